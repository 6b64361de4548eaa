// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Follows the HTTP/2 frames (RFC 9113, 4.1) among the bytes that a connection receives, and says where to cut what was
/// read, so that the decoder behind lets go of what it holds.
///
/// swift-nio-http2's decoder (1.46) appends each read to one buffer and takes whole frames from its front. It begins
/// anew at the front only when a read ends within a DATA frame. On a stream of small messages, each of which arrives
/// whole, the buffer therefore grows with every message; and as the frames that were taken share its memory, each read
/// copies all of it. With a few thousand messages of 5 KiB that came to 11 ms for each further one. Cut one byte before
/// the end of a DATA frame, a read becomes two, of which the first ends within it.
struct FrameCut: Sendable {
  /// How much the decoder may gather before it is made to let go: copies of so much cost next to nothing.
  static let heldByteCountMax = 32 << 10
  private static let headerByteCount = 9
  private static let dataType: UInt8 = 0

  /// Of what a client sends before its first frame (RFC 9113, 3.4).
  private var prefaceLeft: Int
  private var headerCount = 0
  private var payloadLength = 0
  private var isData = false
  private var payloadLeft = 0
  /// What the decoder has got since it last began anew.
  private(set) var heldByteCount = 0

  init(isServer: Bool) { self.prefaceLeft = isServer ? 24 : 0 }

  /// Takes note of a read, and returns how many of its bytes to hand on first; nil to hand on all of it at once.
  mutating func cut(_ bytes: ByteBufferView) -> Int? {
    var position = bytes.startIndex
    var cut: Int?
    var endsWithinData = false
    while position < bytes.endIndex {
      endsWithinData = false
      let left = bytes.endIndex - position
      if self.prefaceLeft > 0 {
        let count = min(self.prefaceLeft, left)
        self.prefaceLeft -= count
        position += count
      } else if self.payloadLeft > 0 {
        let count = min(self.payloadLeft, left)
        self.payloadLeft -= count
        position += count
        endsWithinData = self.isData && self.payloadLeft > 0
        if self.isData, self.payloadLeft == 0, count > 1 { cut = position - 1 - bytes.startIndex }
      } else {
        self.takeHeaderByte(bytes[position])
        position += 1
      }
    }
    self.heldByteCount += bytes.count
    if endsWithinData {
      self.heldByteCount = 0
    } else if self.heldByteCount > Self.heldByteCountMax, let cut {
      self.heldByteCount = bytes.count - cut
      return cut
    }
    return nil
  }

  private mutating func takeHeaderByte(_ byte: UInt8) {
    switch self.headerCount {
    case 0: self.payloadLength = Int(byte)
    case 1, 2: self.payloadLength = self.payloadLength << 8 | Int(byte)
    case 3: self.isData = byte == Self.dataType
    default: break
    }
    self.headerCount += 1
    if self.headerCount == Self.headerByteCount {
      self.headerCount = 0
      self.payloadLeft = self.payloadLength
    }
  }
}
