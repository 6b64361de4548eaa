// SPDX-License-Identifier: Apache-2.0

/// The position of an entry in the log: 1 for the first, consecutive.
package struct LogIndex: RawRepresentable, Hashable, Comparable, Sendable {
  package var rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  package init(_ rawValue: UInt64) { self.rawValue = rawValue }
  package static let zero = LogIndex(0)
  package var next: LogIndex { LogIndex(self.rawValue + 1) }
  package static func < (left: LogIndex, right: LogIndex) -> Bool { left.rawValue < right.rawValue }
}

/// For modules that also know another log index. (`SectorStore.LogIndex` would be a member of the class.)
package typealias StoreLogIndex = LogIndex

/// A session's identifier: 16 random bytes.
package struct SessionID: Hashable, Sendable {
  package let high: UInt64
  package let low: UInt64

  package init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// Nil unless there are 16 bytes.
  package init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == 16 else { return nil }
    self.high = bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    self.low = bytes.dropFirst(8).reduce(0) { $0 << 8 | UInt64($1) }
  }

  package static func random() -> SessionID {
    SessionID(high: .random(in: .min ... .max), low: .random(in: .min ... .max))
  }

  package var bytes: [UInt8] {
    withUnsafeBytes(of: self.high.bigEndian, Array.init) + withUnsafeBytes(of: self.low.bigEndian, Array.init)
  }
}

/// A SHA-256 digest, which the caller computed.
package struct Digest: Hashable, Sendable {
  private let words: (UInt64, UInt64, UInt64, UInt64)

  /// Nil unless there are 32 bytes.
  package init?(_ bytes: some Collection<UInt8>) {
    guard bytes.count == 32 else { return nil }
    func word(_ number: Int) -> UInt64 {
      bytes.dropFirst(number * 8).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
    self.words = (word(0), word(1), word(2), word(3))
  }

  package var bytes: [UInt8] {
    [self.words.0, self.words.1, self.words.2, self.words.3]
      .flatMap { withUnsafeBytes(of: $0.bigEndian, Array.init) }
  }

  package static func == (left: Digest, right: Digest) -> Bool { left.words == right.words }

  package func hash(into hasher: inout Hasher) {
    hasher.combine(self.words.0)
    hasher.combine(self.words.1)
  }
}
