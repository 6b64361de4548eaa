// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import Inodes
internal import Trust

/// `btrpc sector inode`
package struct SectorInode: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "inode",
    abstract: "Show an inode's record: its parts, who signed them, and the cluster's acceptance.",
    discussion: """
      Nothing is verified; see 'btrpc sector verify'.

      EXAMPLES:
        btrpc sector inode 1:2
        btrpc --json sector inode /home/ann/notes.txt
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: ArgumentHelp("GENERATION:INODE, or a path.", valueName: "file"))
  var file: FileArgument

  package init() {}

  package func run(_ client: Client) async throws {
    let id = try await self.file.resolve(client)
    let sectors = try await self.file.sectors(client, id)
    let record = try await about(self.file.text) { try await StoredFileVerifier(client, sectors).record(of: id) }
    let shown = RecordJSON(record)
    if self.options.json { return try JSONOutput.print(shown) }
    for line in Format.table(shown.rows) { try Standard.line(line) }
  }
}

/// An inode's record as this program prints it.
struct RecordJSON: Encodable {
  struct Signature: Encodable {
    var signer: String
    var version: UInt64
    var actingFor: String?

    init<Part>(_ signed: Signed<Part>) {
      self.signer = signed.signer.description
      self.version = signed.part.version.rawValue
      self.actingFor = signed.part.actingFor?.description
    }
  }

  struct Content: Encodable {
    var size: UInt64
    var sectorSize: Int
    var sectors: UInt64
    var contentID: String
    var keyEpoch: UInt32
    var treeLevels: Int
    var integrityRoot: String?
    var leafDigests: [String]
    var inlineBytes: Int
    var modified: String
    var fencingToken: UInt64
    var earlierKeys: Int
    var directoryFormat: UInt32
    var signature: Signature
  }

  struct Attributes: Encodable {
    var type: String
    var mode: String
    var owner: String
    var group: String
    var access: [String]
    var readcaps: [String]
    var changed: String
    var created: String
    var servedByGeneration: UInt64?
    var isCutOff: Bool
    var signature: Signature
  }

  struct Links: Encodable {
    var count: UInt32
    var parents: [String]
    var isPending: Bool
    var signature: Signature
  }

  struct Acceptance: Encodable {
    var signer: String
    var accepted: String
  }

  var id: String
  var version: UInt64
  var content: Content
  var attributes: Attributes
  var links: Links
  var acceptance: Acceptance?
  var credentialBytes: Int

  init(_ record: InodeRecord) {
    let (content, attributes, links) = (record.content.part, record.attributes.part, record.links.part)
    self.id = record.fileID.description
    self.version = record.version.rawValue
    self.content = Content(
      size: content.size, sectorSize: content.sectorSize, sectors: content.sectorCount,
      contentID: Format.hex(content.contentID), keyEpoch: content.keyEpoch, treeLevels: content.treeLevels,
      integrityRoot: content.treeLevels > 0 ? content.integrityRoot.description : nil,
      leafDigests: content.leaves.map { $0.isHole ? "hole" : $0.digest.description },
      inlineBytes: content.inlineContent.count, modified: Timestamp(nanoseconds: content.modified).description,
      fencingToken: content.fencingToken, earlierKeys: content.earlierKeys.count,
      directoryFormat: content.directoryFormat, signature: Signature(record.content))
    self.attributes = Attributes(
      type: BlocktreeClient.FileType(rawValue: Int(attributes.type.rawValue)).description,
      mode: attributes.rules.mode.description, owner: attributes.rules.owner.description,
      group: attributes.rules.group.description,
      access: attributes.rules.entries.map { entry in
        switch entry.subject {
        case .principal(let path): "\(entry.permission) principal \(path)"
        case .group(let path): "\(entry.permission) group \(path)"
        }
      },
      readcaps: attributes.readcaps.map { "\($0.principal) epoch \($0.epoch) key \($0.keyID)" },
      changed: Timestamp(nanoseconds: attributes.changed).description,
      created: Timestamp(nanoseconds: attributes.created).description,
      servedByGeneration: attributes.servedByGeneration?.rawValue, isCutOff: attributes.isCutOff,
      signature: Signature(record.attributes))
    self.links = Links(
      count: links.count, parents: links.parents.map(\.description), isPending: links.pending != nil,
      signature: Signature(record.links))
    self.acceptance = record.acceptance.map {
      Acceptance(signer: $0.signer.description, accepted: Timestamp(nanoseconds: $0.accepted).description)
    }
    self.credentialBytes = record.credential.count
  }

  /// For people: names, and what there is to say.
  var rows: [[String]] {
    var rows = [
      ["inode:", "\(self.id), version \(self.version), \(self.attributes.type)"],
      ["content:", "version \(self.content.signature.version), \(Format.exactSize(self.content.size))"],
      [
        "  sectors:", "\(self.content.sectors) of \(self.content.sectorSize) bytes, key epoch \(self.content.keyEpoch)",
      ],
      ["  content id:", self.content.contentID],
    ]
    if let root = self.content.integrityRoot {
      rows.append(["  tree:", "\(self.content.treeLevels) levels, root \(root)"])
    }
    for (index, digest) in self.content.leafDigests.enumerated() { rows.append(["  leaf \(index):", digest]) }
    if self.content.inlineBytes > 0 { rows.append(["  inline:", "\(self.content.inlineBytes) sealed bytes"]) }
    rows.append(["  modified:", self.content.modified])
    rows += Self.signer(self.content.signature)
    rows.append(["attributes:", "version \(self.attributes.signature.version)"])
    rows.append(["  mode:", "\(self.attributes.mode), owner \(self.attributes.owner), group \(self.attributes.group)"])
    rows += self.attributes.access.map { ["  access:", $0] }
    rows += self.attributes.readcaps.map { ["  readcap:", $0] }
    if let generation = self.attributes.servedByGeneration {
      rows.append(["  served by:", "generation \(generation)"])
    }
    if self.attributes.isCutOff { rows.append(["  cut off:", "the key is in no directory entry"]) }
    rows.append(["  created:", self.attributes.created])
    rows.append(["  changed:", self.attributes.changed])
    rows += Self.signer(self.attributes.signature)
    rows.append(["links:", "version \(self.links.signature.version), \(self.links.count)"])
    rows += self.links.parents.map { ["  parent:", $0] }
    if self.links.isPending { rows.append(["  pending:", "its name is not confirmed"]) }
    rows += Self.signer(self.links.signature)
    if self.credentialBytes > 0 { rows.append(["credential:", "\(self.credentialBytes) bytes"]) }
    if let acceptance = self.acceptance {
      rows.append(["accepted:", acceptance.accepted])
      rows.append(["  signer:", acceptance.signer])
    } else {
      rows.append(["accepted:", "no"])
    }
    return rows.map { $0.map(Terminal.escaped) }
  }

  private static func signer(_ signature: Signature) -> [[String]] {
    [["  signer:", signature.signer]] + (signature.actingFor.map { [["  acting for:", $0]] } ?? [])
  }
}
