// SPDX-License-Identifier: Apache-2.0

internal import HashTreeCollections
internal import Inodes
internal import Trust

/// The entries of a directory in format 1, and the sectors they lie in.
///
/// An entry stays in its sector for as long as it exists, so a change touches one sector, and a listing can go on from
/// a sector and a name whatever else has changed. To look a name up, all sectors have to be known: a format for very
/// large directories will come beside this one, with a number of its own.
///
/// A copy is cheap: what changed later is all that differs.
struct DirectoryContent: Sendable {
  /// The number of this format, as it stands in the directory's content part.
  static let format = DirectorySector.format

  private struct Placed: Sendable {
    var entry: DirectoryEntry
    var sector: Int
    /// Bytes that the entry takes in its sector.
    var byteCount: Int
  }

  private struct Sector: Sendable {
    var names: [PathComponent] = []
    var byteCount = 0
  }

  let sectorSize: Int
  private var placed: TreeDictionary<PathComponent, Placed> = [:]
  private var sectors: [Sector] = []
  /// No sector before this one has room for an entry of usual size.
  private var firstWithRoom = 0
  /// Sectors that were changed since `takeChangedSectors`.
  private var changed: Set<Int> = []
  /// Bytes of all entries in their sectors.
  private var entriesByteCount = 0

  init(sectorSize: Int) { self.sectorSize = sectorSize }

  /// Sectors in use.
  var sectorCount: Int { self.sectors.count }
  var count: Int { self.placed.count }
  var isEmpty: Bool { self.placed.isEmpty }

  /// About how much memory it takes: an entry in the tree, its name, and its key in an allocation of its own.
  var memoryByteCount: Int { self.placed.count * 256 + self.entriesByteCount + self.sectors.count * 64 }

  func entry(_ name: PathComponent) -> DirectoryEntry? { self.placed[name]?.entry }

  /// Whether there is something to be written.
  var isChanged: Bool { !self.changed.isEmpty }

  /// How many entries lead to an inode. Looks at all of them.
  func count(of file: FileID) -> Int { self.placed.count { $0.value.entry.fileID == file } }

  // MARK: Changes

  /// Adds an entry whose name is not there yet.
  mutating func insert(_ entry: DirectoryEntry) {
    let byteCount = DirectorySector.byteCount(of: entry)
    let room = self.sectorSize - DirectorySector.headerByteCount
    var sector = self.firstWithRoom
    while sector < self.sectors.count, self.sectors[sector].byteCount + byteCount > room {
      // A short name may still fit where a long one did not: only nearly full sectors are passed for good.
      if sector == self.firstWithRoom, self.sectors[sector].byteCount > room - 128 { self.firstWithRoom += 1 }
      sector += 1
    }
    if sector == self.sectors.count { self.sectors.append(Sector()) }
    self.sectors[sector].names.append(entry.name)
    self.sectors[sector].byteCount += byteCount
    self.entriesByteCount += byteCount
    self.placed[entry.name] = Placed(entry: entry, sector: sector, byteCount: byteCount)
    self.changed.insert(sector)
  }

  /// Changes what an entry says, but for its name. It stays in its sector as long as that has room, and goes behind all
  /// others otherwise: a listing that goes on meanwhile may show it twice, but never misses it.
  mutating func update(_ entry: DirectoryEntry) {
    guard let placed = self.placed[entry.name] else { return }
    let byteCount = DirectorySector.byteCount(of: entry)
    let room = self.sectorSize - DirectorySector.headerByteCount
    guard self.sectors[placed.sector].byteCount - placed.byteCount + byteCount <= room else {
      self.remove(entry.name)
      self.sectors.append(Sector(names: [entry.name], byteCount: byteCount))
      self.entriesByteCount += byteCount
      self.placed[entry.name] = Placed(entry: entry, sector: self.sectors.count - 1, byteCount: byteCount)
      self.changed.insert(self.sectors.count - 1)
      return
    }
    self.sectors[placed.sector].byteCount += byteCount - placed.byteCount
    self.entriesByteCount += byteCount - placed.byteCount
    self.placed[entry.name] = Placed(entry: entry, sector: placed.sector, byteCount: byteCount)
    self.changed.insert(placed.sector)
  }

  /// All entries, in no order that means something.
  var all: some Sequence<DirectoryEntry> { self.placed.lazy.map(\.value.entry) }

  /// Removes an entry.
  mutating func remove(_ name: PathComponent) {
    guard let removed = self.placed.removeValue(forKey: name) else { return }
    self.sectors[removed.sector].names.removeAll { $0 == name }
    self.sectors[removed.sector].byteCount -= removed.byteCount
    self.entriesByteCount -= removed.byteCount
    self.firstWithRoom = min(self.firstWithRoom, removed.sector)
    self.changed.insert(removed.sector)
    while let last = self.sectors.last, last.names.isEmpty {
      self.sectors.removeLast()
      self.changed.remove(self.sectors.count)
    }
    self.firstWithRoom = min(self.firstWithRoom, self.sectors.count)
  }

  /// The sectors to be written, with their bytes, in order.
  mutating func takeChangedSectors() throws(IntegrityError) -> [(index: Int, bytes: [UInt8])] {
    var result: [(index: Int, bytes: [UInt8])] = []
    for index in self.changed.sorted() { result.append((index, try self.encode(index))) }
    self.changed = []
    return result
  }

  // MARK: Listing

  /// Where a listing goes on: behind this name in this sector.
  struct Cursor: Hashable, Sendable {
    var sector: Int
    var name: [UInt8]

    init(sector: Int, name: [UInt8]) {
      self.sector = sector
      self.name = name
    }

    /// Takes what `bytes` gave: the sector (4 bytes, big-endian) and the name.
    init?(bytes: [UInt8]) {
      guard bytes.count >= 4, bytes.count <= 4 + PathComponent.byteCountMax else { return nil }
      self.sector = bytes[0..<4].reduce(0) { $0 << 8 | Int($1) }
      self.name = Array(bytes[4...])
    }

    var bytes: [UInt8] { withUnsafeBytes(of: UInt32(self.sector).bigEndian, Array.init) + self.name }
  }

  /// Up to so many entries behind the cursor, and where the next page begins; nil when there is none.
  func page(after cursor: Cursor?, count: Int) -> (entries: [DirectoryEntry], next: Cursor?) {
    var entries: [DirectoryEntry] = []
    var sector = cursor?.sector ?? 0
    var after = cursor?.name ?? []
    while sector < self.sectors.count {
      let names = self.sectors[sector].names.filter { after.isEmpty || after.lexicographicallyPrecedes($0.bytes) }
        .sorted()
      for name in names {
        // The last one that was listed may lie in the sector before.
        if entries.count == count, let last = entries.last { return (entries, self.cursor(after: last.name)) }
        if let entry = self.placed[name]?.entry { entries.append(entry) }
      }
      sector += 1
      after = []
    }
    return (entries, nil)
  }

  /// Where a listing goes on behind an entry.
  func cursor(after name: PathComponent) -> Cursor? {
    self.placed[name].map { Cursor(sector: $0.sector, name: name.bytes) }
  }

  // MARK: Bytes

  private func encode(_ index: Int) throws(IntegrityError) -> [UInt8] {
    try DirectorySector.encode(
      self.sectors[index].names.compactMap { self.placed[$0]?.entry }, sectorSize: self.sectorSize)
  }

  /// Takes the next sector of a directory that is being read.
  mutating func appendSector(_ bytes: ArraySlice<UInt8>) throws(IntegrityError) {
    var sector = Sector()
    for entry in try DirectorySector.decode(bytes) {
      guard self.placed[entry.name] == nil else { throw .malformed }
      let byteCount = DirectorySector.byteCount(of: entry)
      sector.names.append(entry.name)
      sector.byteCount += byteCount
      self.entriesByteCount += byteCount
      self.placed[entry.name] = Placed(entry: entry, sector: self.sectors.count, byteCount: byteCount)
    }
    self.sectors.append(sector)
  }
}
