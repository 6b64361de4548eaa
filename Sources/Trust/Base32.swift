// SPDX-License-Identifier: Apache-2.0

/// RFC 4648 base32 in lower case and without padding: names that are case-insensitive elsewhere stay equal.
enum Base32 {
  private static let alphabet = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)

  static func encode(_ bytes: some Sequence<UInt8>) -> String {
    var text: [UInt8] = []
    var pending: UInt32 = 0
    var pendingBits = 0
    for byte in bytes {
      pending = pending << 8 | UInt32(byte)
      pendingBits += 8
      while pendingBits >= 5 {
        pendingBits -= 5
        text.append(self.alphabet[Int(pending >> UInt32(pendingBits) & 31)])
      }
    }
    if pendingBits > 0 {
      text.append(self.alphabet[Int(pending << UInt32(5 - pendingBits) & 31)])
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// The inverse of `encode`. Nil for anything that `encode` does not produce: other characters, upper case, lengths
  /// that no whole number of bytes has, or bits set beyond the last byte. So there is one text for each value.
  static func decode(_ text: some Sequence<UInt8>) -> [UInt8]? {
    var bytes: [UInt8] = []
    var pending: UInt32 = 0
    var pendingBits = 0
    for character in text {
      let value: UInt8
      switch character {
      case UInt8(ascii: "a")...UInt8(ascii: "z"): value = character - UInt8(ascii: "a")
      case UInt8(ascii: "2")...UInt8(ascii: "7"): value = character - UInt8(ascii: "2") + 26
      default: return nil
      }
      pending = pending << 5 | UInt32(value)
      pendingBits += 5
      if pendingBits >= 8 {
        pendingBits -= 8
        bytes.append(UInt8(truncatingIfNeeded: pending >> UInt32(pendingBits)))
      }
    }
    let unused = pending & (1 << UInt32(pendingBits) - 1)
    return pendingBits < 5 && unused == 0 ? bytes : nil
  }
}
