// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import Inodes
import SwiftProtobuf
import Testing
import Trust

@Suite("An inode record")
struct RecordTests {
  let signer = RecordSigner(key: SigningKey(), chainDigest: Digest32(sha256: [1]))
  let file = FileID(generation: 3, inode: 77)

  private func path(_ text: String) throws -> TreePath { try TreePath(parsing: text) }

  private func content() throws -> ContentPart {
    var generator = SeededGenerator(seed: 1)
    var content = ContentPart(
      fileID: self.file, version: 4, size: 3 * 4_096 - 5, sectorSize: 4_096, contentID: generator.bytes(16),
      keyEpoch: 2,
      modified: 1_234)
    content.leaves = [try generator.leaf(), .hole, try generator.leaf()]
    content.actingFor = try self.path("/people/ann")
    content.fencingToken = 9
    content.earlierKeys = [SealedEpochKey(epoch: 1, sealedKey: generator.bytes(60))]
    content.directoryFormat = 1
    return content
  }

  private func attributes() throws -> AttributesPart {
    let rules = AccessRules(
      owner: try self.path("/people/ann"), group: try self.path("/people"), mode: Mode(truncating: 0o1750),
      entries: [
        AccessEntry(.principal(try self.path("/people/bob")), [.read, .write]),
        AccessEntry(.group(try self.path("/staff")), .read),
      ])
    var attributes = AttributesPart(
      fileID: self.file, version: 3, type: .file, rules: rules, changed: 5, created: -6)
    attributes.readcaps = [
      Readcap(principal: try self.path("/node1"), keyID: Digest32(sha256: [2]), epoch: 2, sealedKey: [1, 2, 3])
    ]
    attributes.accessed = 7
    attributes.modified = 8
    attributes.modifiedAtVersion = 2
    attributes.servedByGeneration = 12
    attributes.isCutOff = true
    attributes.extendedAttributes = [4, 5]
    return attributes
  }

  private func links() throws -> LinksPart {
    var links = LinksPart(
      fileID: self.file, version: 1, count: 2,
      parents: [FileID(generation: 3, inode: 5), FileID(generation: 3, inode: 6)])
    links.pending = PendingMark(
      directory: FileID(generation: 1, inode: 2),
      operation: OperationID(session: [UInt8](repeating: 3, count: 16), sequence: 8), since: 99, isCondemned: true)
    return links
  }

  private func record() throws -> InodeRecord {
    InodeRecord(
      fileID: self.file, version: 4, content: try self.signer.sign(self.content()),
      attributes: try self.signer.sign(self.attributes()), links: try self.signer.sign(self.links()),
      acceptance: Acceptance(
        signature: try SigningKey().sign(Digest32(sha256: [7]), purpose: .acceptance), signer: Digest32(sha256: [8]),
        accepted: 55))
  }

  @Test("comes back from its bytes as it was, part by part")
  func roundTrip() throws {
    let record = try self.record()
    let back = try InodeRecord(serialized: record.serialized())
    #expect(back == record)
    #expect(back.content.part == (try self.content()))
    #expect(back.attributes.part == (try self.attributes()))
    #expect(back.links.part == (try self.links()))
    #expect(back.acceptanceDigest == record.acceptanceDigest)
    #expect(back.content.digest == Digest32(sha256: record.content.body))
    let key = self.signer.key.verifyingKey
    #expect(back.links.signature.verify(digest: back.links.digest, purpose: .linksPart, key: key, cache: nil))
    #expect(!back.links.signature.verify(digest: back.links.digest, purpose: .contentPart, key: key, cache: nil))
  }

  @Test("has an acceptance digest that depends on each part, its signer and the version")
  func acceptance() throws {
    let record = try self.record()
    var digests: Set<Digest32> = [record.acceptanceDigest]
    var other = record
    other.version = 5
    digests.insert(other.acceptanceDigest)
    other = record
    other.fileID = FileID(generation: 3, inode: 78)
    digests.insert(other.acceptanceDigest)
    other = record
    var content = try self.content()
    content.size -= 1
    other.content = try self.signer.sign(content)
    digests.insert(other.acceptanceDigest)
    other = record
    other.attributes = try RecordSigner(key: SigningKey(), chainDigest: .zero).sign(self.attributes())
    digests.insert(other.acceptanceDigest)
    other = record
    other.credential = [1]
    digests.insert(other.acceptanceDigest)
    #expect(digests.count == 6)
    // The signature is not part of it: signed again, it is the same record.
    other = record
    other.links = try self.signer.sign(self.links())
    #expect(other.acceptanceDigest == record.acceptanceDigest)
  }

  @Test("is refused when parts are malformed, missing or beyond their limits")
  func malformedParts() throws {
    func expectRefused<Part: RecordPart, Message: SwiftProtobuf.Message>(
      _: Part.Type, _ body: [UInt8], _ message: Message, _ changes: [(String, (inout Message) -> Void)]
    ) throws {
      // What is refused is not refused for another reason.
      #expect(throws: Never.self) { try Part(body: body) }
      for (what, change) in changes {
        var bad = message
        change(&bad)
        let bytes: [UInt8] = try bad.serializedBytes()
        #expect(throws: RecordError.self, "\(what)") { try Part(body: bytes) }
      }
      #expect(throws: RecordError.self) { try Part(body: []) }
      #expect(throws: RecordError.self) { try Part(body: [0xFF, 0xFF]) }
      #expect(throws: RecordError.self) { try Part(body: Array(body.dropLast(3))) }
    }
    let content = try self.content().encoded()
    try expectRefused(
      ContentPart.self, content, Blocktree_V1_ContentPart(serializedBytes: content),
      [
        ("no file", { $0.clearFileID() }), ("no inode", { $0.fileID.inode = 0 }), ("no version", { $0.version = 0 }),
        ("too large", { $0.size = 1 << 50 + 1 }), ("sector size", { $0.sectorSize = 5_000 }),
        ("content id", { $0.contentID = Data([1]) }), ("epoch", { $0.keyEpoch = 0 }),
        ("levels", { $0.treeLevels = 1 }), ("leaves", { $0.leaves.removeLast() }),
        ("a leaf too many", { $0.leaves.append(Data(count: 64)) }), ("a root", { $0.integrityRoot = Data(count: 32) }),
        ("more sectors than leaves", { $0.size = 4 * 4_096 }),
        (
          "tree without root",
          {
            $0.size = 64 * 4_096; $0.treeLevels = 1; $0.leaves = Data()
          }
        ),
        ("acting for", { $0.actingFor = "people" }), ("acting for ..", { $0.actingFor = "/a/../b" }),
        ("inline and leaves", { $0.inlineContent = Data([1]) }),
        (
          "inline too large",
          {
            $0.inlineContent = Data(count: RecordLimits.inlineContentByteCountMax + 1); $0.leaves = Data()
          }
        ),
        ("keys", { $0.earlierKeys = Array(repeating: .init(), count: 257) }),
      ])
    let attributes = try self.attributes().encoded()
    try expectRefused(
      AttributesPart.self, attributes, Blocktree_V1_AttributesPart(serializedBytes: attributes),
      [
        ("no version", { $0.version = 0 }), ("no type", { $0.type = .unspecified }),
        ("unknown type", { $0.type = .UNRECOGNIZED(77) }), ("mode", { $0.mode = 0o10000 }),
        ("mode", { $0.mode = .max }), ("no owner", { $0.owner = "" }), ("owner", { $0.owner = "/a//b" }),
        ("group", { $0.group = "/a\0" }),
        ("name of 256 bytes", { $0.owner = "/" + String(repeating: "a", count: 256) }),
        ("access", { $0.access = Array(repeating: $0.access[0], count: 65) }),
        ("permission", { $0.access[0].permission = 8 }),
        ("readcaps", { $0.readcaps = Array(repeating: $0.readcaps[0], count: 65) }),
        ("readcap epoch", { $0.readcaps[0].epoch = 0 }), ("readcap key", { $0.readcaps[0].keyID = Data([1]) }),
        ("readcap", { $0.readcaps[0].sealedKey = Data(count: 513) }),
        ("extended attributes", { $0.extendedAttributes = Data(count: 16_385) }),
      ])
    let links = try self.links().encoded()
    try expectRefused(
      LinksPart.self, links, Blocktree_V1_LinksPart(serializedBytes: links),
      [
        ("no version", { $0.version = 0 }), ("parent", { $0.parents[0].inode = 0 }),
        ("parents", { $0.parents = Array(repeating: $0.parents[0], count: 1_001) }),
        ("pending", { $0.pending.directory.generation = 0 }),
        ("operation", { $0.pending.operation.session = Data([1]) }),
        ("operation", { $0.pending.operation.sequence = 0 }),
      ])
  }

  @Test("is refused when its parts do not belong together")
  func contradictions() throws {
    let message = try self.record().message
    func expectRefused(_ error: RecordError, _ change: (inout Blocktree_V1_InodeRecord) -> Void) {
      var bad = message
      change(&bad)
      #expect(throws: error) { try InodeRecord(bad) }
    }
    expectRefused(.contradiction("file_id")) { $0.fileID.inode = 78 }
    expectRefused(.contradiction("version")) { $0.version = 3 }
    expectRefused(.contradiction("credential")) { $0.credential = Data([1]) }
    expectRefused(.tooLarge("credential")) { $0.credential = Data(count: 32_769) }
    expectRefused(.malformed("file_id")) { $0.fileID.generation = 0 }
    expectRefused(.malformed("signature")) { $0.links.signature.encoded = Data([1, 2]) }
    expectRefused(.malformed("signer")) { $0.links.signer = Data() }
    expectRefused(.malformed("acceptance.signer")) { $0.acceptance.signer = Data(count: 31) }
    expectRefused(.tooLarge("part")) { $0.attributes.body = Data(count: 32_769) }
    expectRefused(.malformed("signature")) { $0.clearContent() }
  }

  @Test("of more than 64 KiB is not made")
  func size() throws {
    var record = try self.record()
    record.credential = [UInt8](repeating: 1, count: 66_000)
    #expect(throws: RecordError.tooLarge("record")) { try record.serialized() }
    var attributes = try self.attributes()
    attributes.rules.entries = (0..<64).map {
      AccessEntry(
        .principal(
          (try? TreePath(parsing: "/\($0)" + String(repeating: "/" + String(repeating: "a", count: 200), count: 3)))
            ?? .root), .read)
    }
    #expect(throws: RecordError.tooLarge("attributes")) { try attributes.encoded() }
  }
}
