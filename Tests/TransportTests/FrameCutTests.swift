// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import Transport

@Suite("What is read, cut for the HTTP/2 decoder")
struct FrameCutTests {
  private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

  private func frame(type: UInt8, byteCount: Int) -> [UInt8] {
    [UInt8(byteCount >> 16), UInt8(byteCount >> 8 & 255), UInt8(byteCount & 255), type, 0, 0, 0, 0, 1]
      // Payloads that look like headers of long frames.
      + [UInt8](repeating: 0x40, count: byteCount)
  }

  /// The places, one after another, at which the frames of these bytes end; only DATA frames.
  private func dataEnds(_ frames: [[UInt8]], from start: Int) -> [Int] {
    var end = start
    var ends: [Int] = []
    for frame in frames {
      end += frame.count
      if frame[3] == 0 { ends.append(end) }
    }
    return ends
  }

  @Test("ends within a DATA frame often enough, wherever reads begin and end", arguments: [true, false])
  func bounded(isServer: Bool) {
    let seed = UInt64.random(in: .min ... .max)
    var random = SeededNumbers(seed)
    for _ in 0..<50 {
      let frames = (0..<400).map { _ in
        self.frame(
          type: Int.random(in: 0..<4, using: &random) == 0 ? UInt8.random(in: 1...9, using: &random) : 0,
          byteCount: Int.random(in: 0...(Bool.random(using: &random) ? 30 : 6_000), using: &random))
      }
      let start = isServer ? Self.preface.count : 0
      let bytes = (isServer ? Self.preface : []) + frames.joined()
      let ends = self.dataEnds(frames, from: start)
      // Whole frames in most reads, as on a connection that is not busy; else anywhere.
      let isWhole = Bool.random(using: &random)
      let frameEnds = frames.reduce(into: [start]) { $0.append(($0.last ?? 0) + $1.count) }.dropFirst()
      var cut = FrameCut(isServer: isServer)
      var position = 0
      var held = 0
      while position < bytes.count {
        let wanted = position + Int.random(in: 1...9_000, using: &random)
        let end = min(isWhole ? frameEnds.first { $0 >= wanted } ?? bytes.count : wanted, bytes.count)
        let buffer = ByteBuffer(bytes: bytes[position..<end])
        let first = cut.cut(buffer.readableBytesView)
        for part in first.map({ [position..<position + $0, position + $0..<end] }) ?? [position..<end] {
          #expect(!part.isEmpty, "seed \(seed)")
          held += part.count
          // The decoder begins anew when what it got ends within the payload of a DATA frame.
          let next = ends.first { $0 > part.upperBound }
          let frameStart = next.flatMap { next in frameEnds.last { $0 < next } } ?? start
          if let next, part.upperBound < next, part.upperBound > frameStart + 9, part.upperBound >= frameStart {
            held = 0
          }
        }
        position = end
        // A read, and what comes up to the next DATA frame that can be cut.
        #expect(held <= FrameCut.heldByteCountMax + 120_000, "seed \(seed)")
      }
    }
  }

  @Test("is handed on at once while little has gathered, and one byte before a DATA frame's end then")
  func place() {
    var cut = FrameCut(isServer: false)
    let message = self.frame(type: 0, byteCount: 1_000)
    let trailers = self.frame(type: 1, byteCount: 50)
    var gathered = 0
    while gathered + message.count <= FrameCut.heldByteCountMax {
      #expect(cut.cut(ByteBuffer(bytes: message).readableBytesView) == nil)
      gathered += message.count
    }
    #expect(cut.cut(ByteBuffer(bytes: trailers).readableBytesView) == nil)
    #expect(cut.cut(ByteBuffer(bytes: message + message + trailers).readableBytesView) == 2 * message.count - 1)
    #expect(cut.heldByteCount == 1 + trailers.count)
  }
}

/// SplitMix64.
private struct SeededNumbers: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { self.state = seed }
  mutating func next() -> UInt64 {
    self.state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = self.state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
