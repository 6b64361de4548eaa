// SPDX-License-Identifier: Apache-2.0

/// What an entry of the log holds, as it stands on the disk: a change with the places of its blocks, or what only the
/// group itself is concerned with.
enum LogContent: Sendable {
  case change(EntryBody)
  /// Begins a leader's term, and changes nothing.
  case noop
  /// Who belongs to the group from here on, in the encoding of the layer above.
  case membership([UInt8])

  /// First bytes of a payload that no version of ``EntryBody`` has.
  private static let noopMark: UInt8 = 0x80
  private static let membershipMark: UInt8 = 0x81

  func encoded() -> [UInt8] {
    switch self {
    case .change(let body): body.encoded()
    case .noop: [Self.noopMark]
    case .membership(let bytes): [Self.membershipMark] + bytes
    }
  }

  /// Nil where the bytes are not what `encoded` gives.
  init?(encoded bytes: [UInt8]) {
    switch bytes.first {
    case Self.noopMark:
      guard bytes.count == 1 else { return nil }
      self = .noop
    case Self.membershipMark: self = .membership(Array(bytes.dropFirst()))
    default:
      guard let body = EntryBody(encoded: bytes) else { return nil }
      self = .change(body)
    }
  }

  /// Whether bytes of blocks that stand in the entry are as many as the blocks take.
  func isWhole(_ configuration: StoreConfiguration) -> Bool {
    guard case .change(let body) = self, !body.inlined.isEmpty else { return true }
    return zip(body.blocks, body.inlined).allSatisfy { placed, bytes in
      bytes.count == placed.checksums.count * configuration.blockSize(level: placed.level)
    }
  }

  /// The places of the blocks.
  var blocks: [EntryBody.PlacedBlocks] {
    if case .change(let body) = self { body.blocks } else { [] }
  }
}
