// SPDX-License-Identifier: Apache-2.0

internal import Trust

extension Digest32 {
  /// Takes the 32 bytes of a slice that has just so many.
  init(copying slice: ArraySlice<UInt8>) {
    assert(slice.count == Digest32.byteCount)
    self = Digest32(bytes: slice) ?? .zero
  }

  var isZero: Bool { self == .zero }
}
