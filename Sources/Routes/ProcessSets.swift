// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// Sets of processes, each kept once however many routes lead to it: all that lies below a directory is served by the
/// same few.
struct ProcessSets: Sendable {
  private struct ProcessSet: ArenaElement {
    /// None in a free place, and in a set whose processes were all dropped.
    var processes: [RouteProcess]
    /// How many routes lead to it; the next free place while none does.
    var link: UInt32
    var hash: UInt64
    /// A bit for each process, by the hash of its path: most sets are passed over by a look at it.
    var filter: UInt64
    var isInUse: Bool
  }

  private var sets = Arena<ProcessSet>()
  private var slots = HashSlots()
  /// Of what the sets point to.
  private var heapByteCount = 0
  /// How many routes lead to sets whose processes were all dropped.
  private(set) var deadRouteCount = 0

  func byteCount(adding processes: [RouteProcess]) -> Int {
    let isNew = !processes.isEmpty && self.find(processes, hash: Self.hash(processes)) == nil
    let sets = self.sets.byteCount(adding: isNew ? 1 : 0) + self.slots.byteCount(adding: isNew ? 1 : 0)
    return sets + self.heapByteCount + (isNew ? Self.heapByteCount(of: processes) : 0)
  }

  var byteCount: Int { self.sets.byteCount + self.slots.byteCount + self.heapByteCount }

  @inline(__always)
  func isDead(_ index: UInt32) -> Bool { self.sets[index].processes.isEmpty }

  func processes(_ index: UInt32) -> [RouteProcess] { self.sets[index].processes }

  /// Takes a set that is not empty, in order, and counts one more route to it.
  mutating func retain(_ processes: [RouteProcess]) -> UInt32 {
    let hash = Self.hash(processes)
    if let index = self.find(processes, hash: hash) {
      self.sets[index].link += 1
      return index
    }
    let index = self.sets.add(
      ProcessSet(processes: processes, link: 1, hash: hash, filter: Self.filter(of: processes), isInUse: true))
    self.slots.insert(index, hash: hash)
    self.heapByteCount += Self.heapByteCount(of: processes)
    return index
  }

  mutating func release(_ index: UInt32) {
    self.sets[index].link -= 1
    if self.isDead(index) { self.deadRouteCount -= 1 }
    guard self.sets[index].link == 0 else { return }
    self.slots.remove(index, hash: self.sets[index].hash)
    self.heapByteCount -= Self.heapByteCount(of: self.sets[index].processes)
    self.sets.remove(index, leaving: ProcessSet(processes: [], link: 0, hash: 0, filter: 0, isInUse: false))
  }

  /// Takes a process out of all sets, which takes a pass over all of them.
  mutating func drop(_ path: TreePath) {
    let bit = Self.bit(of: path)
    for index in 0..<UInt32(self.sets.endIndex) where self.sets[index].filter & bit != 0 {
      let processes = self.sets[index].processes
      let left = processes.filter { $0.path != path }
      guard left.count < processes.count else { continue }
      // From now on it is another set than before. Should there be an equal one already, there are two of them for a
      // while, of which the first is found.
      let hash = Self.hash(left)
      self.slots.remove(index, hash: self.sets[index].hash)
      if !left.isEmpty { self.slots.insert(index, hash: hash) }
      self.heapByteCount += Self.heapByteCount(of: left) - Self.heapByteCount(of: processes)
      self.sets[index].processes = left
      self.sets[index].hash = hash
      self.sets[index].filter = Self.filter(of: left)
      if left.isEmpty { self.deadRouteCount += Int(self.sets[index].link) }
    }
  }

  private func find(_ processes: [RouteProcess], hash: UInt64) -> UInt32? {
    self.slots.find(hash) { self.sets[$0].processes == processes }
  }

  /// Differs from run to run, which nothing but places in a table depends on.
  private static func hash(_ processes: [RouteProcess]) -> UInt64 {
    UInt64(bitPattern: Int64(processes.hashValue))
  }

  private static func bit(of path: TreePath) -> UInt64 { 1 << UInt64(path.hashValue & 63) }

  private static func filter(of processes: [RouteProcess]) -> UInt64 {
    processes.reduce(0) { $0 | self.bit(of: $1.path) }
  }

  /// What the arrays and texts take, with what the allocator adds to each.
  static func heapByteCount(of processes: [RouteProcess]) -> Int {
    guard !processes.isEmpty else { return 0 }
    let perArray = 32 + 16
    return processes.reduce(perArray + processes.count * MemoryLayout<RouteProcess>.stride) { sum, process in
      let path = perArray + process.path.bytes.count
      let services =
        process.services.isEmpty
        ? 0
        : process.services.reduce(perArray) {
          $0 + MemoryLayout<Service>.stride + self.heapByteCount(of: $1.name)
        }
      let addresses =
        process.addresses.isEmpty
        ? 0
        : process.addresses.reduce(perArray) {
          $0 + MemoryLayout<NetworkAddress>.stride + self.heapByteCount(of: $1.host)
        }
      return sum + path + services + addresses
    }
  }

  /// Texts of up to 15 bytes need nothing but their own two words.
  private static func heapByteCount(of text: String) -> Int { text.utf8.count <= 15 ? 0 : text.utf8.count + 48 }
}
