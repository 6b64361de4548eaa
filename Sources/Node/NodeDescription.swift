// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Trust

/// What `node.json` says about the node. The same file may hold settings, which ``NodeConfiguration`` reads.
struct NodeDescription: Codable, Hashable, Sendable {
  static let currentVersion = 1

  /// A process to start from.
  struct Process: Codable, Hashable, Sendable {
    var path: String
    /// `host:port`.
    var addresses: [String]
  }

  /// A directory's key, sealed to this process.
  struct SealedKey: Codable, Hashable, Sendable {
    /// The directory's path when the key was sealed.
    var path: String
    /// `generation:inode`.
    var file: String
    var epoch: UInt32
    var sealedKey: Data
  }

  /// A directory with a cluster of its own.
  struct Served: Codable, Hashable, Sendable {
    var generation: UInt64
    var path: String
    /// `generation:inode`.
    var file: String
  }

  var version = NodeDescription.currentVersion
  /// Where the node listens unless it is told otherwise, `host:port`.
  var listen: String
  /// What others are told to dial, `host:port`.
  var advertise: [String]
  /// The generation that this process belongs to; nil for a process that joined the root's cluster, or does not know yet.
  var generation: UInt64?
  /// Bytes in a sector of that generation.
  var sectorSize: Int?
  /// For a process that joined.
  ///
  /// Objects and not lists of objects: settings are read from the same file, by a reader that knows no such lists.
  var startFrom: [String: Process]?
  /// By the directory's file id.
  var readcaps: [String: SealedKey]?
  /// The directory that the credential lies in, `generation:inode`.
  var directory: String?
  /// The clusters above, by their generations.
  var above: [String: Served]?
  /// What this process asks for a generation by: 16 random bytes.
  var claim: Data?
  /// The generation that it was given, until the directory says which one serves it.
  var claimedGeneration: UInt64?

  private struct VersionOnly: Decodable {
    var version: Int
  }

  init(listen: String, advertise: [String]) {
    self.listen = listen
    self.advertise = advertise
  }

  init(readingFrom path: String) throws(NodeError) {
    let data = Data(try OwnerFiles.read(path))
    let decoder = JSONDecoder()
    guard let version = try? decoder.decode(VersionOnly.self, from: data).version else {
      throw .malformed(path, why: "it is not a node's description")
    }
    guard version <= Self.currentVersion else {
      throw .newerVersion(path, found: version, supported: Self.currentVersion)
    }
    do {
      self = try decoder.decode(Self.self, from: data)
    } catch {
      throw .malformed(path, why: "it is not a node's description")
    }
  }

  /// Processes of one directory that are kept to start from: the file is read as a whole, and a few will do.
  static let startingPointsMax = 32

  /// Puts processes that lie directly in a directory in place of those that were known there. Those without an address
  /// are left out; if none has one, all stays as it was.
  mutating func setStartingPoints(_ processes: [Process], in directory: TreePath) {
    let useful = processes.filter { !$0.addresses.isEmpty }.sorted { $0.path < $1.path }.prefix(Self.startingPointsMax)
    guard !useful.isEmpty else { return }
    var startFrom = (self.startFrom ?? [:]).filter { (try? TreePath(parsing: $0.value.path))?.parent != directory }
    for process in useful { startFrom[process.path] = process }
    self.startFrom = startFrom
  }

  func write(to path: String) throws(NodeError) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else { throw .malformed(path, why: "it can not be written") }
    try OwnerFiles.write(Array(data) + [UInt8(ascii: "\n")], to: path)
  }
}
