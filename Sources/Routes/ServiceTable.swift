// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// Numbers for the services that there are routes for: two bytes in a route instead of a text. Nil, which stands for
/// any service, has one, too.
struct ServiceTable: Sendable {
  private struct Entry: Sendable {
    var service: Service?
    var routeCount: Int
  }

  private var entries: [Entry] = []
  private var numbers: [Service?: UInt16] = [:]
  private var free: [UInt16] = []

  /// Estimated: two tables and a text for each.
  var byteCount: Int { self.entries.capacity * 192 }

  subscript(number: UInt16) -> Service? { self.entries[Int(number)].service }

  @inline(__always)
  func find(_ service: Service?) -> UInt16? {
    // There are hardly ever more than these, and comparing short texts is faster than hashing one.
    for number in self.entries.indices.prefix(8) {
      if self.entries[number].service == service && self.entries[number].routeCount > 0 { return UInt16(number) }
    }
    return self.entries.count > 8 ? self.numbers[service] : nil
  }

  /// Counts one more route for the service. Nil when there are routes for 65,535 other services.
  mutating func retain(_ service: Service?) -> UInt16? {
    if let number = self.numbers[service] {
      self.entries[Int(number)].routeCount += 1
      return number
    }
    let entry = Entry(service: service, routeCount: 1)
    let number: UInt16
    if let last = self.free.popLast() {
      number = last
      self.entries[Int(number)] = entry
    } else {
      guard self.entries.count < Int(UInt16.max) else { return nil }
      number = UInt16(self.entries.count)
      self.entries.append(entry)
    }
    self.numbers[service] = number
    return number
  }

  mutating func release(_ number: UInt16) {
    self.entries[Int(number)].routeCount -= 1
    guard self.entries[Int(number)].routeCount == 0 else { return }
    self.numbers[self.entries[Int(number)].service] = nil
    self.free.append(number)
  }
}
