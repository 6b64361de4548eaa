// SPDX-License-Identifier: Apache-2.0

import SectorStore
import Testing

@Suite("The checksum")
struct ChecksumTests {
  @Test(
    "is XXH64",
    arguments: [
      ("", 0, 0xEF46_DB37_51D8_E999), ("a", 0, 0xD24E_C4F1_A98C_6E5B), ("abc", 0, 0x44BC_2CF5_AD77_0999),
    ] as [(String, UInt64, UInt64)])
  func knownValues(_ text: String, _ seed: UInt64, _ expected: UInt64) {
    #expect(Checksum.of(Array(text.utf8), seed: seed) == expected)
  }

  @Test("differs after any change of one bit")
  func everyBitCounts() {
    for length in [1, 7, 31, 32, 33, 100] {
      var bytes = pattern(0x0123_4567_89AB_CDEF, length)
      let original = Checksum.of(bytes)
      for bit in 0..<length * 8 {
        bytes[bit / 8] ^= 1 << UInt8(bit % 8)
        #expect(Checksum.of(bytes) != original)
        bytes[bit / 8] ^= 1 << UInt8(bit % 8)
      }
      #expect(Checksum.of(bytes, seed: 1) != original)
    }
  }
}
