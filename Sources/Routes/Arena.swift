// SPDX-License-Identifier: Apache-2.0

/// What lies in an arena: it can hold the index of another, while it is not in use.
protocol ArenaElement: Sendable {
  var link: UInt32 { get set }
}

/// An array whose places are used again. Elements are named by their index, in four bytes.
struct Arena<Element: ArenaElement>: Sendable {
  static var none: UInt32 { .max }
  /// One less than there are indices, as one of them means none.
  static var countMax: Int { Int(UInt32.max) - 1 }

  private var elements: [Element] = []
  /// The first of the places that are free, each of which leads to the next.
  private var free: UInt32 = .max
  private(set) var freeCount = 0

  /// How many places there have been, free ones among them.
  var endIndex: Int { self.elements.count }
  /// How many are in use.
  var count: Int { self.elements.count - self.freeCount }
  var byteCount: Int { self.elements.capacity * MemoryLayout<Element>.stride }

  /// How many bytes there would be with so many more elements.
  func byteCount(adding additional: Int) -> Int {
    let needed = self.count + additional
    if needed <= self.elements.capacity { return self.byteCount }
    return Allocation.roundedByteCount(max(needed, self.grownCapacity) * MemoryLayout<Element>.stride)
  }

  subscript(index: UInt32) -> Element {
    @inline(__always) get { self.elements[Int(index)] }
    @inline(__always) set { self.elements[Int(index)] = newValue }
  }

  mutating func add(_ element: Element) -> UInt32 {
    if self.free != Self.none {
      let index = self.free
      self.free = self.elements[Int(index)].link
      self.freeCount -= 1
      self.elements[Int(index)] = element
      return index
    }
    // By half and not by twice as much: what is taken and not used counts against the limit, too.
    if self.elements.count == self.elements.capacity { self.elements.reserveCapacity(self.grownCapacity) }
    self.elements.append(element)
    return UInt32(self.elements.count - 1)
  }

  mutating func reserve(_ count: Int) { self.elements.reserveCapacity(count) }

  /// Frees a place and leaves there what says that it is free.
  mutating func remove(_ index: UInt32, leaving remains: Element) {
    var remains = remains
    remains.link = self.free
    self.elements[Int(index)] = remains
    self.free = index
    self.freeCount += 1
  }

  private var grownCapacity: Int { max(16, self.elements.capacity + self.elements.capacity / 2) }
}

enum Allocation {
  /// No less than the capacity that an array comes to which asks for so many bytes: allocators round up, large
  /// allocations to whole pages, and arrays make use of it.
  static func roundedByteCount(_ byteCount: Int) -> Int { byteCount + (byteCount < 1 << 16 ? 64 : 8_192) }
}
