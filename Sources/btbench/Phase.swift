// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser

/// What can be measured on its own.
enum Phase: String, CaseIterable, Sendable, ExpressibleByArgument {
  // The machine.
  case disk
  case crypto
  case tls
  // The node.
  case commits
  case reads
  case stat
  case transfer
  case files

  /// Whether it needs a node.
  var usesNode: Bool {
    switch self {
    case .disk, .crypto, .tls: false
    case .commits, .reads, .stat, .transfer, .files: true
    }
  }
}

/// How much is done for each figure.
struct Scale: Sendable, Codable {
  /// Of each load of small operations.
  var loadMilliseconds: Int
  /// Bytes of the file that is transferred whole, and of the yardsticks for it.
  var transferByteCount: Int
  var fileCount: Int
  /// Inodes that sectors are read from.
  var readInodeCount: Int
  /// Bytes that are written 4 KiB at a time, each with a sync.
  var syncedByteCount: Int

  static let full = Scale(
    loadMilliseconds: 2_000, transferByteCount: 1 << 30, fileCount: 2_000, readInodeCount: 8_192,
    syncedByteCount: 16 << 20)
  static let quick = Scale(
    loadMilliseconds: 200, transferByteCount: 16 << 20, fileCount: 100, readInodeCount: 256,
    syncedByteCount: 1 << 20)

  var loadDuration: Duration { .milliseconds(self.loadMilliseconds) }
}
