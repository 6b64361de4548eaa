// SPDX-License-Identifier: Apache-2.0

/// Names one sector cluster and the sectors that it stores. Handed out once, never reused; the root cluster's is 1.
package struct Generation: Hashable, Sendable, Comparable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  package let rawValue: UInt64

  package init(_ rawValue: UInt64) { self.rawValue = rawValue }
  package init(integerLiteral value: UInt64) { self.rawValue = value }

  /// The root cluster's.
  package static let root: Generation = 1

  package var description: String { "\(self.rawValue)" }
  package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// An inode's number within its generation, from 1. Never reused.
package struct InodeNumber: Hashable, Sendable, Comparable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  package let rawValue: UInt64

  package init(_ rawValue: UInt64) { self.rawValue = rawValue }
  package init(integerLiteral value: UInt64) { self.rawValue = value }

  /// The superblock, which is in no directory.
  package static let superblock: InodeNumber = 1
  /// In generation 1: the root directory.
  package static let rootDirectory: InodeNumber = 2

  package var description: String { "\(self.rawValue)" }
  package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// Names one inode of the domain for good.
package struct FileID: Hashable, Sendable, Comparable, CustomStringConvertible {
  package let generation: Generation
  package let inode: InodeNumber

  package init(generation: Generation, inode: InodeNumber) {
    self.generation = generation
    self.inode = inode
  }

  /// The root directory of the domain.
  package static let rootDirectory = FileID(generation: .root, inode: .rootDirectory)

  /// "generation:inode", as logs and error details show it.
  package var description: String { "\(self.generation):\(self.inode)" }

  /// Takes what `description` gave; nil for anything else.
  package init?(text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let generation = UInt64(parts[0]), let inode = UInt64(parts[1]), generation > 0, inode > 0
    else { return nil }
    self.init(generation: Generation(generation), inode: InodeNumber(inode))
  }

  package static func < (left: Self, right: Self) -> Bool {
    (left.generation, left.inode) < (right.generation, right.inode)
  }
}

/// The version of an inode's record: 1 when it is created, and one more with each commit that changes it. 0 stands for
/// an inode that does not exist.
package struct Version: Hashable, Sendable, Comparable, CustomStringConvertible, ExpressibleByIntegerLiteral {
  package let rawValue: UInt64

  package init(_ rawValue: UInt64) { self.rawValue = rawValue }
  package init(integerLiteral value: UInt64) { self.rawValue = value }

  /// The version of what does not exist.
  package static let absent: Version = 0

  /// The version that the next commit gives.
  package var next: Version { Version(self.rawValue + 1) }

  package var description: String { "\(self.rawValue)" }
  package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}
