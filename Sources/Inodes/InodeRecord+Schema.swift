// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import Foundation
internal import SwiftProtobuf
package import Trust

// Between records and their schema. Bytes are parsed once, into types that can no longer be wrong; whatever is
// missing, unknown or beyond its limit is an error and never a default.

extension FileID {
  package init(_ message: Blocktree_V1_FileId) throws(RecordError) {
    guard message.generation > 0, message.inode > 0 else { throw .malformed("file_id") }
    self.init(generation: Generation(message.generation), inode: InodeNumber(message.inode))
  }

  package var message: Blocktree_V1_FileId {
    .with {
      $0.generation = self.generation.rawValue
      $0.inode = self.inode.rawValue
    }
  }
}

extension FileType {
  package init(_ message: Blocktree_V1_FileType) throws(RecordError) {
    guard let raw = UInt8(exactly: message.rawValue), let type = FileType(rawValue: raw) else {
      throw .malformed("type")
    }
    self = type
  }

  package var message: Blocktree_V1_FileType { Blocktree_V1_FileType(rawValue: Int(self.rawValue)) ?? .unspecified }
}

extension OperationID {
  package init(_ message: Blocktree_V1_OperationId) throws(RecordError) {
    guard message.session.count == 16, message.sequence > 0, message.sequence <= Int64.max else {
      throw .malformed("operation")
    }
    self.init(session: Array(message.session), sequence: message.sequence)
  }

  package var message: Blocktree_V1_OperationId {
    .with {
      $0.session = Data(self.session)
      $0.sequence = self.sequence
    }
  }
}

extension BatchSignature {
  package init(_ message: Blocktree_V1_BatchSignature) throws(RecordError) {
    guard let signature = try? BatchSignature(bytes: message.encoded) else { throw .malformed("signature") }
    self = signature
  }

  package var message: Blocktree_V1_BatchSignature { .with { $0.encoded = Data(self.bytes) } }
}

extension Digest32 {
  package init(_ data: Data, field: String) throws(RecordError) {
    guard data.count == 32 else { throw .malformed(field) }
    self.init(copying: Array(data)[...])
  }
}

extension TreePath {
  init(field: String, _ text: String) throws(RecordError) {
    do { try self.init(parsing: text) } catch { throw .malformed(field) }
  }

  /// An absent path is an empty string.
  static func optional(field: String, _ text: String) throws(RecordError) -> TreePath? {
    text.isEmpty ? nil : try TreePath(field: field, text)
  }
}

extension SwiftProtobuf.Message {
  init(body: [UInt8], field: String) throws(RecordError) {
    do { try self.init(serializedBytes: body) } catch { throw .malformed(field) }
  }

  func encodedBody(field: String) throws(RecordError) -> [UInt8] {
    do {
      let bytes: [UInt8] = try self.serializedBytes()
      guard bytes.count <= RecordLimits.partByteCountMax else { throw RecordError.tooLarge(field) }
      return bytes
    } catch let error as RecordError {
      throw error
    } catch {
      throw .malformed(field)
    }
  }
}

extension ContentPart: RecordPart {
  package static var purpose: SigningPurpose { .contentPart }

  package init(body: [UInt8]) throws(RecordError) {
    let message = try Blocktree_V1_ContentPart(body: body, field: "content")
    guard message.size <= TreeShape.fileByteCountMax else { throw .tooLarge("size") }
    guard RecordLimits.sectorSizes.contains(Int(message.sectorSize)) else { throw .malformed("sector_size") }
    guard message.contentID.count == 16 else { throw .malformed("content_id") }
    guard message.version > 0 else { throw .malformed("version") }
    guard message.keyEpoch > 0 else { throw .malformed("key_epoch") }
    guard message.inlineContent.count <= RecordLimits.inlineContentByteCountMax else {
      throw .tooLarge("inline_content")
    }
    guard message.earlierKeys.count <= RecordLimits.earlierKeysMax else { throw .tooLarge("earlier_keys") }
    try self.init(
      fileID: FileID(message.fileID), version: Version(message.version), size: message.size,
      sectorSize: Int(message.sectorSize), contentID: Array(message.contentID), keyEpoch: message.keyEpoch,
      modified: message.modifiedNs)
    self.inlineContent = Array(message.inlineContent)
    let sectorCount = self.sectorCount
    self.treeLevels = Int(message.treeLevels)
    guard self.treeLevels == TreeShape.levels(sectorCount: sectorCount) else { throw .contradiction("tree_levels") }
    let leaves = Array(message.leaves)
    if self.treeLevels == 0 {
      guard leaves.count == Int(sectorCount) * Leaf.byteCount, message.integrityRoot.isEmpty else {
        throw .contradiction("leaves")
      }
      for index in 0..<Int(sectorCount) {
        do {
          self.leaves.append(try Leaf(encoded: leaves[index * Leaf.byteCount..<(index + 1) * Leaf.byteCount]))
        } catch { throw .malformed("leaves") }
      }
    } else {
      guard leaves.isEmpty else { throw .contradiction("leaves") }
      self.integrityRoot = try Digest32(message.integrityRoot, field: "integrity_root")
    }
    self.actingFor = try TreePath.optional(field: "acting_for", message.actingFor)
    self.fencingToken = message.fencingToken
    self.earlierKeys = message.earlierKeys.map { SealedEpochKey(epoch: $0.epoch, sealedKey: Array($0.sealedKey)) }
    self.directoryFormat = message.directoryFormat
  }

  package func encoded() throws(RecordError) -> [UInt8] {
    var message = Blocktree_V1_ContentPart()
    message.fileID = self.fileID.message
    message.version = self.version.rawValue
    message.size = self.size
    message.sectorSize = UInt32(self.sectorSize)
    message.contentID = Data(self.contentID)
    message.keyEpoch = self.keyEpoch
    if self.treeLevels == 0 {
      var leaves = [UInt8](repeating: 0, count: self.leaves.count * Leaf.byteCount)
      for (index, leaf) in self.leaves.enumerated() { leaf.encode(into: &leaves, at: index * Leaf.byteCount) }
      message.leaves = Data(leaves)
    } else {
      message.integrityRoot = Data(self.integrityRoot.bytes)
    }
    message.treeLevels = UInt32(self.treeLevels)
    message.inlineContent = Data(self.inlineContent)
    message.modifiedNs = self.modified
    message.actingFor = self.actingFor?.description ?? ""
    message.fencingToken = self.fencingToken
    message.earlierKeys = self.earlierKeys.map { key in
      .with {
        $0.epoch = key.epoch
        $0.sealedKey = Data(key.sealedKey)
      }
    }
    message.directoryFormat = self.directoryFormat
    return try message.encodedBody(field: "content")
  }
}

extension AccessEntry {
  package init(_ message: Blocktree_V1_AccessEntry) throws(RecordError) {
    guard message.permission <= 7 else { throw .malformed("permission") }
    let path = try TreePath(field: "access.path", message.path)
    let permission = Permission(rawValue: UInt8(message.permission))
    self.init(message.isGroup ? .group(path) : .principal(path), permission)
  }

  package var message: Blocktree_V1_AccessEntry {
    .with {
      switch self.subject {
      case .principal(let path): $0.path = path.description
      case .group(let path):
        $0.path = path.description
        $0.isGroup = true
      }
      $0.permission = UInt32(self.permission.rawValue)
    }
  }
}

extension Readcap {
  package init(_ message: Blocktree_V1_Readcap) throws(RecordError) {
    guard message.epoch > 0, message.sealedKey.count <= 512, message.agreementKey.count <= 128 else {
      throw .malformed("readcap")
    }
    try self.init(
      principal: TreePath(field: "readcap.principal", message.principal),
      keyID: Digest32(message.keyID, field: "readcap.key_id"), epoch: message.epoch,
      sealedKey: Array(message.sealedKey), agreementKey: Array(message.agreementKey))
  }

  package var message: Blocktree_V1_Readcap {
    .with {
      $0.principal = self.principal.description
      $0.keyID = Data(self.keyID.bytes)
      $0.epoch = self.epoch
      $0.sealedKey = Data(self.sealedKey)
      $0.agreementKey = Data(self.agreementKey)
    }
  }
}

extension AttributesPart: RecordPart {
  package static var purpose: SigningPurpose { .attributesPart }

  package init(body: [UInt8]) throws(RecordError) {
    let message = try Blocktree_V1_AttributesPart(body: body, field: "attributes")
    guard message.version > 0 else { throw .malformed("version") }
    guard let bits = UInt16(exactly: message.mode), let mode = Mode(rawValue: bits) else { throw .malformed("mode") }
    guard message.access.count <= RecordLimits.accessEntriesMax else { throw .tooLarge("access") }
    guard message.readcaps.count <= RecordLimits.readcapsMax else { throw .tooLarge("readcaps") }
    guard message.extendedAttributes.count <= RecordLimits.extendedAttributesByteCountMax else {
      throw .tooLarge("extended_attributes")
    }
    var entries: [AccessEntry] = []
    for entry in message.access { entries.append(try AccessEntry(entry)) }
    try self.init(
      fileID: FileID(message.fileID), version: Version(message.version), type: FileType(message.type),
      rules: AccessRules(
        owner: TreePath(field: "owner", message.owner), group: TreePath(field: "group", message.group), mode: mode,
        entries: entries),
      changed: message.changedNs, created: message.createdNs)
    for readcap in message.readcaps { self.readcaps.append(try Readcap(readcap)) }
    self.accessed = message.accessedNs
    self.modified = message.modifiedNs
    self.modifiedAtVersion = Version(message.modifiedAtVersion)
    self.actingFor = try TreePath.optional(field: "acting_for", message.actingFor)
    self.servedByGeneration = message.servedByGeneration == 0 ? nil : Generation(message.servedByGeneration)
    self.isCutOff = message.cutOff
    self.extendedAttributes = Array(message.extendedAttributes)
  }

  package func encoded() throws(RecordError) -> [UInt8] {
    var message = Blocktree_V1_AttributesPart()
    message.fileID = self.fileID.message
    message.version = self.version.rawValue
    message.type = self.type.message
    message.mode = UInt32(self.rules.mode.rawValue)
    message.owner = self.rules.owner.description
    message.group = self.rules.group.description
    message.access = self.rules.entries.map(\.message)
    message.readcaps = self.readcaps.map(\.message)
    message.changedNs = self.changed
    message.accessedNs = self.accessed
    message.modifiedNs = self.modified
    message.modifiedAtVersion = self.modifiedAtVersion.rawValue
    message.createdNs = self.created
    message.actingFor = self.actingFor?.description ?? ""
    message.servedByGeneration = self.servedByGeneration?.rawValue ?? 0
    message.cutOff = self.isCutOff
    message.extendedAttributes = Data(self.extendedAttributes)
    return try message.encodedBody(field: "attributes")
  }
}

extension LinksPart: RecordPart {
  package static var purpose: SigningPurpose { .linksPart }

  package init(body: [UInt8]) throws(RecordError) {
    let message = try Blocktree_V1_LinksPart(body: body, field: "links")
    guard message.version > 0 else { throw .malformed("version") }
    guard message.parents.count <= RecordLimits.parentsMax else { throw .tooLarge("parents") }
    var parents: [FileID] = []
    for parent in message.parents { parents.append(try FileID(parent)) }
    try self.init(
      fileID: FileID(message.fileID), version: Version(message.version), count: message.count, parents: parents)
    if message.hasPending {
      self.pending = try PendingMark(
        directory: FileID(message.pending.directory),
        operation: message.pending.hasOperation ? OperationID(message.pending.operation) : nil,
        since: message.pending.sinceNs, isCondemned: message.pending.condemned)
    }
    self.actingFor = try TreePath.optional(field: "acting_for", message.actingFor)
  }

  package func encoded() throws(RecordError) -> [UInt8] {
    var message = Blocktree_V1_LinksPart()
    message.fileID = self.fileID.message
    message.version = self.version.rawValue
    message.count = self.count
    message.parents = self.parents.map(\.message)
    if let pending = self.pending {
      message.pending = .with {
        $0.directory = pending.directory.message
        if let operation = pending.operation { $0.operation = operation.message }
        $0.sinceNs = pending.since
        $0.condemned = pending.isCondemned
      }
    }
    message.actingFor = self.actingFor?.description ?? ""
    return try message.encodedBody(field: "links")
  }
}

extension Signed {
  package init(_ message: Blocktree_V1_SignedPart) throws(RecordError) {
    try self.init(
      body: Array(message.body), signature: BatchSignature(message.signature),
      signer: Digest32(message.signer, field: "signer"))
  }

  package var message: Blocktree_V1_SignedPart {
    .with {
      $0.body = Data(self.body)
      $0.signature = self.signature.message
      $0.signer = Data(self.signer.bytes)
    }
  }
}

extension Acceptance {
  package init(_ message: Blocktree_V1_Acceptance) throws(RecordError) {
    try self.init(
      signature: BatchSignature(message.signature), signer: Digest32(message.signer, field: "acceptance.signer"),
      accepted: message.acceptedNs)
  }

  package var message: Blocktree_V1_Acceptance {
    .with {
      $0.signature = self.signature.message
      $0.signer = Data(self.signer.bytes)
      $0.acceptedNs = self.accepted
    }
  }
}

extension InodeRecord {
  /// Takes a record apart and checks that its parts belong together. Signatures are not verified here.
  package init(_ message: Blocktree_V1_InodeRecord) throws(RecordError) {
    guard message.credential.count <= RecordLimits.credentialByteCountMax else { throw .tooLarge("credential") }
    try self.init(
      fileID: FileID(message.fileID), version: Version(message.version), content: Signed(message.content),
      attributes: Signed(message.attributes), links: Signed(message.links), credential: Array(message.credential),
      acceptance: message.hasAcceptance ? Acceptance(message.acceptance) : nil)
    guard self.content.part.fileID == self.fileID, self.attributes.part.fileID == self.fileID,
      self.links.part.fileID == self.fileID
    else { throw .contradiction("file_id") }
    let newest = max(self.content.part.version, self.attributes.part.version, self.links.part.version)
    guard self.version.rawValue > 0, newest <= self.version else { throw .contradiction("version") }
    guard (self.attributes.part.type == .credential) == !self.credential.isEmpty else {
      throw .contradiction("credential")
    }
  }

  package init(serialized bytes: [UInt8]) throws(RecordError) {
    try self.init(Blocktree_V1_InodeRecord(body: bytes, field: "record"))
  }

  package var message: Blocktree_V1_InodeRecord {
    .with {
      $0.fileID = self.fileID.message
      $0.version = self.version.rawValue
      $0.content = self.content.message
      $0.attributes = self.attributes.message
      $0.links = self.links.message
      $0.credential = Data(self.credential)
      if let acceptance = self.acceptance { $0.acceptance = acceptance.message }
    }
  }

  package func serialized() throws(RecordError) -> [UInt8] {
    do {
      let bytes: [UInt8] = try self.message.serializedBytes()
      guard bytes.count <= RecordLimits.recordByteCountMax else { throw RecordError.tooLarge("record") }
      return bytes
    } catch let error as RecordError {
      throw error
    } catch {
      throw .malformed("record")
    }
  }
}
