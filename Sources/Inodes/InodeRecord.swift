// SPDX-License-Identifier: Apache-2.0

package import Trust

/// What an inode is. Set when it is created and never changed.
package enum FileType: UInt8, Hashable, Sendable {
  case file = 1
  case directory = 2
  case symbolicLink = 3
  case credential = 4
  case superblock = 5
}

/// The part of a record that the writer signs: size, keys and the digest of everything in the file.
package struct ContentPart: Hashable, Sendable {
  package var fileID: FileID
  /// The record's version with which this content was committed.
  package var version: Version
  /// Bytes in the file, at most `TreeShape.fileByteCountMax`.
  package var size: UInt64
  /// Bytes in a sector: a power of two from 4,096 to 65,536.
  package var sectorSize: Int
  /// Random, 16 bytes; kept for as long as the file lives.
  package var contentID: [UInt8]
  /// The epoch that new sectors are sealed under, from 1.
  package var keyEpoch: UInt32
  /// The tree's leaves, while there are at most `TreeShape.recordLeavesMax` sectors.
  package var leaves: [Leaf] = []
  /// The digest of the tree's top node; zero for holes only.
  package var integrityRoot: Digest32 = .zero
  /// Levels of tree nodes.
  package var treeLevels = 0
  /// A tiny content itself, sealed; then there are no sectors.
  package var inlineContent: [UInt8] = []
  /// Nanoseconds since 1970 UTC.
  package var modified: Int64
  /// On whose behalf a filesystem service signed; nil when the signer wrote itself.
  package var actingFor: TreePath?
  /// The fencing token of the writer's lease; 0 for none.
  package var fencingToken: UInt64 = 0
  /// Keys of earlier epochs, each sealed under the next, newest first.
  package var earlierKeys: [SealedEpochKey] = []
  /// For a directory: the format of its entries.
  package var directoryFormat: UInt32 = 0

  package init(
    fileID: FileID, version: Version, size: UInt64 = 0, sectorSize: Int, contentID: [UInt8], keyEpoch: UInt32 = 1,
    modified: Int64
  ) {
    self.fileID = fileID
    self.version = version
    self.size = size
    self.sectorSize = sectorSize
    self.contentID = contentID
    self.keyEpoch = keyEpoch
    self.modified = modified
  }

  /// Sectors of the file, holes included; 0 for inline contents.
  package var sectorCount: UInt64 {
    self.inlineContent.isEmpty ? TreeShape.sectorCount(byteCount: self.size, sectorSize: self.sectorSize) : 0
  }
}

/// The key of an earlier epoch, sealed under the key of the next.
package struct SealedEpochKey: Hashable, Sendable {
  package var epoch: UInt32
  package var sealedKey: [UInt8]

  package init(epoch: UInt32, sealedKey: [UInt8]) {
    self.epoch = epoch
    self.sealedKey = sealedKey
  }
}

/// The part of a record that says who may do what.
package struct AttributesPart: Hashable, Sendable {
  package var fileID: FileID
  package var version: Version
  package var type: FileType
  package var rules: AccessRules
  /// Keys sealed to principals.
  package var readcaps: [Readcap] = []
  /// Nanoseconds since 1970 UTC, as all times here.
  package var changed: Int64
  /// As set by hand; 0 when never set.
  package var accessed: Int64 = 0
  /// A modification time set by hand, for the content version that stands beside it.
  package var modified: Int64 = 0
  package var modifiedAtVersion: Version = .absent
  package var created: Int64
  package var actingFor: TreePath?
  /// The generation that serves a delegated directory.
  package var servedByGeneration: Generation?
  /// Whether the key is in no directory entry.
  package var isCutOff = false
  /// Sealed extended attributes.
  package var extendedAttributes: [UInt8] = []

  package init(
    fileID: FileID, version: Version, type: FileType, rules: AccessRules, changed: Int64, created: Int64
  ) {
    self.fileID = fileID
    self.version = version
    self.type = type
    self.rules = rules
    self.changed = changed
    self.created = created
  }
}

/// A key sealed to a principal.
package struct Readcap: Hashable, Sendable {
  package var principal: TreePath
  /// SHA-256 of the key-agreement public key.
  package var keyID: Digest32
  package var epoch: UInt32
  /// The encapsulated key and the ciphertext (HPKE).
  package var sealedKey: [UInt8]
  /// The key-agreement public key (X9.63, 65 bytes), so that the next key can be sealed to it; empty where it was not
  /// written down.
  package var agreementKey: [UInt8]

  package init(principal: TreePath, keyID: Digest32, epoch: UInt32, sealedKey: [UInt8], agreementKey: [UInt8] = []) {
    self.principal = principal
    self.keyID = keyID
    self.epoch = epoch
    self.sealedKey = sealedKey
    self.agreementKey = agreementKey
  }
}

/// The part of a record that says where the inode is found.
package struct LinksPart: Hashable, Sendable {
  package var fileID: FileID
  package var version: Version
  /// Names that the inode has.
  package var count: UInt32
  /// The directories that hold these names, one for each name.
  package var parents: [FileID]
  package var pending: PendingMark?
  package var actingFor: TreePath?

  package init(fileID: FileID, version: Version, count: UInt32, parents: [FileID]) {
    self.fileID = fileID
    self.version = version
    self.count = count
    self.parents = parents
  }
}

/// Marks an inode whose name is not confirmed yet.
package struct PendingMark: Hashable, Sendable {
  package var directory: FileID
  package var operation: OperationID?
  package var since: Int64
  package var isCondemned: Bool

  package init(directory: FileID, operation: OperationID?, since: Int64, isCondemned: Bool = false) {
    self.directory = directory
    self.operation = operation
    self.since = since
    self.isCondemned = isCondemned
  }
}

/// Identifies a mutating operation, so that a repetition is applied once.
package struct OperationID: Hashable, Sendable {
  /// 16 bytes.
  package let session: [UInt8]
  /// From 1.
  package let sequence: UInt64

  package init(session: [UInt8], sequence: UInt64) {
    self.session = session
    self.sequence = sequence
  }
}

/// A part of a record with its signature, kept as the very bytes that were signed.
package struct Signed<Part: RecordPart>: Hashable, Sendable {
  package let part: Part
  /// The bytes that were signed.
  package let body: [UInt8]
  /// SHA-256 of `body`.
  package let digest: Digest32
  package let signature: BatchSignature
  /// The digest of the signer's certificate chain.
  package let signer: Digest32

  /// Takes apart what was stored or received. The signature is not verified here.
  package init(body: [UInt8], signature: BatchSignature, signer: Digest32) throws(RecordError) {
    guard body.count <= RecordLimits.partByteCountMax else { throw .tooLarge("part") }
    self.part = try Part(body: body)
    self.body = body
    self.digest = Digest32(sha256: body)
    self.signature = signature
    self.signer = signer
  }

  fileprivate init(part: Part, body: [UInt8], digest: Digest32, signature: BatchSignature, signer: Digest32) {
    self.part = part
    self.body = body
    self.digest = digest
    self.signature = signature
    self.signer = signer
  }

  package static func == (left: Self, right: Self) -> Bool {
    left.digest == right.digest && left.signer == right.signer && left.signature == right.signature
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(self.digest) }
}

/// A part of a record that is signed apart.
package protocol RecordPart: Hashable, Sendable {
  /// What its signature says that it is.
  static var purpose: SigningPurpose { get }
  var fileID: FileID { get }
  var version: Version { get }
  var actingFor: TreePath? { get }
  init(body: [UInt8]) throws(RecordError)
  func encoded() throws(RecordError) -> [UInt8]
}

/// An inode's record: three parts that are signed apart, and the cluster's acceptance of their combination.
package struct InodeRecord: Hashable, Sendable {
  package var fileID: FileID
  package var version: Version
  package var content: Signed<ContentPart>
  package var attributes: Signed<AttributesPart>
  package var links: Signed<LinksPart>
  /// The signed credential of a credential file, readable by everybody; empty otherwise.
  package var credential: [UInt8]
  /// Nil until the cluster has accepted it.
  package var acceptance: Acceptance?

  package init(
    fileID: FileID, version: Version, content: Signed<ContentPart>, attributes: Signed<AttributesPart>,
    links: Signed<LinksPart>, credential: [UInt8] = [], acceptance: Acceptance? = nil
  ) {
    self.fileID = fileID
    self.version = version
    self.content = content
    self.attributes = attributes
    self.links = links
    self.credential = credential
    self.acceptance = acceptance
  }

  /// What the cluster signs: which parts, signed by whom, form this version.
  package var acceptanceDigest: Digest32 {
    var bytes = Array("blocktree/acceptance/v1".utf8)
    bytes.reserveCapacity(bytes.count + 24 + 8 * 32)
    for number in [self.fileID.generation.rawValue, self.fileID.inode.rawValue, self.version.rawValue] {
      withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) }
    }
    for (digest, signer) in [
      (self.content.digest, self.content.signer), (self.attributes.digest, self.attributes.signer),
      (self.links.digest, self.links.signer),
      (self.credential.isEmpty ? Digest32.zero : Digest32(sha256: self.credential), Digest32.zero),
    ] {
      bytes.append(contentsOf: digest.bytes)
      bytes.append(contentsOf: signer.bytes)
    }
    return Digest32(sha256: bytes)
  }
}

/// The cluster's word that the signers of a record were entitled when it was committed.
package struct Acceptance: Hashable, Sendable {
  package let signature: BatchSignature
  package let signer: Digest32
  /// Nanoseconds since 1970 UTC.
  package let accepted: Int64

  package init(signature: BatchSignature, signer: Digest32, accepted: Int64) {
    self.signature = signature
    self.signer = signer
    self.accepted = accepted
  }
}

/// What is wrong with a record.
package enum RecordError: Error, Hashable, Sendable {
  /// Bytes that are no record, or a field with an impossible value. Names the field.
  case malformed(String)
  /// A part beyond its limit. Names what.
  case tooLarge(String)
  /// The parts contradict one another. Names the field.
  case contradiction(String)
}

/// Bounds of records.
package enum RecordLimits {
  package static let partByteCountMax = 32_768
  package static let credentialByteCountMax = 32_768
  package static let recordByteCountMax = 65_536
  package static let accessEntriesMax = 64
  package static let readcapsMax = 64
  package static let parentsMax = 1_000
  package static let inlineContentByteCountMax = 4_096 + 28
  package static let extendedAttributesByteCountMax = 16_384
  package static let earlierKeysMax = 256
  /// Bytes of a directory's sectors: room for some ten million entries.
  package static let directoryByteCountMax: UInt64 = 1 << 30
  package static let sectorSizes = [4_096, 8_192, 16_384, 32_768, 65_536]
}

/// Signs record parts, all those of a commit with one signature.
package struct RecordSigner: Sendable {
  package let key: SigningKey
  /// The digest of the signer's certificate chain.
  package let chainDigest: Digest32
  /// Knows the signatures made here, so that they need not be verified again in this process.
  private let cache: SignatureCache?

  package init(key: SigningKey, chainDigest: Digest32, cache: SignatureCache? = nil) {
    self.key = key
    self.chainDigest = chainDigest
    self.cache = cache
  }

  /// Signs parts of one kind with one signature.
  package func sign<Part: RecordPart>(_ parts: [Part]) throws -> [Signed<Part>] {
    let bodies = try parts.map { try $0.encoded() }
    let digests = bodies.map { Digest32(sha256: $0) }
    let signatures = try self.key.sign(digests, purpose: Part.purpose, cache: self.cache)
    return parts.indices.map { index in
      Signed(
        part: parts[index], body: bodies[index], digest: digests[index], signature: signatures[index],
        signer: self.chainDigest)
    }
  }

  /// Signs one part.
  package func sign<Part: RecordPart>(_ part: Part) throws -> Signed<Part> {
    let body = try part.encoded()
    let digest = Digest32(sha256: body)
    let signature = try self.key.sign(digest, purpose: Part.purpose, cache: self.cache)
    return Signed(part: part, body: body, digest: digest, signature: signature, signer: self.chainDigest)
  }
}
