// SPDX-License-Identifier: Apache-2.0

/// The keys of a file in all epochs that something of it is still sealed under. Whoever has the newest has all: the key
/// of each epoch is sealed under that of the next.
package struct FileKeys: Sendable {
  /// The newest, which everything new is sealed under.
  package let current: FileKey
  /// By epoch, the earlier ones.
  private var earlier: [UInt32: FileKey] = [:]

  /// Of a file that was never given a new key, or has nothing left that is sealed under another.
  package init(_ key: FileKey) { self.current = key }

  /// Opens the earlier keys in a content part.
  ///
  /// - Parameter key: of the content part's own epoch.
  /// - Throws: `malformed` when the key is of another epoch, or does not open them.
  package init(_ key: FileKey, content: ContentPart) throws(IntegrityError) {
    guard key.epoch == content.keyEpoch else { throw .malformed }
    self.init(key)
    var newer = key
    for sealed in content.earlierKeys {
      guard sealed.epoch == newer.epoch - 1, sealed.epoch > 0 else { throw .malformed }
      let bytes = try SectorCipher(key: newer, contentID: content.contentID).open(sealed.sealedKey, as: .earlierKey)
      guard let key = FileKey(bytes: bytes, epoch: sealed.epoch) else { throw .malformed }
      self.earlier[key.epoch] = key
      newer = key
    }
  }

  /// The key of an epoch; nil when it is not known.
  package subscript(epoch: UInt32) -> FileKey? { epoch == self.current.epoch ? self.current : self.earlier[epoch] }
}

extension ContentPart {
  /// Begins the next epoch: what is sealed from now on is sealed under the new key. A tiny content is sealed anew at once.
  ///
  /// - Parameters:
  ///   - key: the present key.
  ///   - next: of the next epoch.
  /// - Throws: `malformed` when an epoch is not the one that it should be, or the present key does not open what is
  ///   there; `outOfRange` when there are as many epochs as there may be, and something of each is still there.
  package mutating func beginEpoch(from key: FileKey, to next: FileKey) throws(IntegrityError) {
    guard key.epoch == self.keyEpoch, key.epoch < .max, next.epoch == key.epoch + 1 else { throw .malformed }
    let cipher = SectorCipher(key: next, contentID: self.contentID)
    if !self.inlineContent.isEmpty {
      let plain = try SectorCipher(key: key, contentID: self.contentID).open(self.inlineContent, as: .inlineContent)
      self.inlineContent = try cipher.seal(plain, as: .inlineContent)
    }
    if self.sectorCount == 0 {
      self.earlierKeys = []
    } else {
      guard self.earlierKeys.count < RecordLimits.earlierKeysMax else { throw .outOfRange }
      self.earlierKeys.insert(
        SealedEpochKey(epoch: key.epoch, sealedKey: try cipher.seal(key.bytes, as: .earlierKey)), at: 0)
    }
    self.keyEpoch = next.epoch
  }
}
