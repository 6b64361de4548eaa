// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import SectorStore
internal import Sectors

/// How far a process has verified its store: a file beside the store, as it is about this copy alone.
struct ScrubRecord: Codable, Hashable, Sendable {
  static let currentVersion = 1

  var version = ScrubRecord.currentVersion
  /// The store that was verified. Another one has to be verified from its beginning.
  var member: UInt64
  /// Passes are numbered on when the store is another.
  var lastNumber: UInt64 = 0
  var running: ScrubPass?
  /// Where the running one goes on.
  var cursor: Data?
  /// Whether somebody asked for the running pass, and at which rate, in bytes in a second.
  var isRequested = false
  var rate: UInt64?
  var last: ScrubPass?

  init(member: UInt64) { self.member = member }

  /// What is known of a store: nothing where there is no such file, or none that can be read.
  static func read(_ path: String, member: UInt64) -> ScrubRecord {
    guard let bytes = try? OwnerFiles.read(path),
      let record = try? JSONDecoder().decode(ScrubRecord.self, from: Data(bytes)), record.version <= Self.currentVersion
    else { return ScrubRecord(member: member) }
    guard record.member != member else { return record }
    // Whoever asked for a pass that the former store did not live to see the end of, gets one of this one.
    var other = ScrubRecord(member: member)
    other.lastNumber = record.lastNumber
    other.isRequested = record.isRequested && record.running != nil
    other.rate = record.rate
    return other
  }

  func write(_ path: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try OwnerFiles.write(Array(encoder.encode(self)) + [UInt8(ascii: "\n")], to: path)
  }
}
