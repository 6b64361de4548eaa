// SPDX-License-Identifier: Apache-2.0

/// A bounded cache in two halves: what was not asked for while the young half filled up goes. Cheaper than keeping
/// every entry's place in a list, and nearly as good.
struct GenerationalCache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
  private struct Entry {
    var value: Value
    var byteCount: Int
  }

  private var young: [Key: Entry] = [:]
  private var youngBytes = 0
  private var old: [Key: Entry] = [:]
  private let bytesMax: Int

  /// Holds between half of `bytesMax` and `bytesMax` once full.
  init(bytesMax: Int) { self.bytesMax = bytesMax / 2 }

  mutating func value(for key: Key) -> Value? {
    if let entry = self.young[key] { return entry.value }
    guard let entry = self.old.removeValue(forKey: key) else { return nil }
    self.insert(entry.value, for: key, byteCount: entry.byteCount)
    return entry.value
  }

  /// `byteCount` is what the entry takes in memory, roughly.
  mutating func insert(_ value: Value, for key: Key, byteCount: Int) {
    if self.youngBytes + byteCount > self.bytesMax {
      swap(&self.young, &self.old)
      self.young.removeAll(keepingCapacity: true)
      self.youngBytes = 0
    }
    let before = self.young.updateValue(Entry(value: value, byteCount: byteCount), forKey: key)
    self.youngBytes += byteCount - (before?.byteCount ?? 0)
  }

  mutating func remove(_ key: Key) {
    if let entry = self.young.removeValue(forKey: key) { self.youngBytes -= entry.byteCount }
    self.old[key] = nil
  }
}
