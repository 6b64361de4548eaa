// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import Inodes
internal import SwiftProtobuf
internal import Trust

/// Makes commits as a program does that seals and signs its files itself: each creates an inode of one sector, owned by
/// the writer and still without a name, below a directory that the writer may write.
struct SectorWriter: Sendable {
  /// A commit, and what is needed to read its sector later.
  struct Commit: Sendable {
    let request: Blocktree_V1_CommitRequest
    let sector: SealedSector
  }

  /// A sector that was committed.
  struct SealedSector: Sendable {
    let file: FileID
    let digest: Digest32
  }

  private let signer: RecordSigner
  private let rules: AccessRules
  private let directory: FileID
  private let sectorSize: Int
  /// For operation ids, 16 bytes.
  private let session: [UInt8]
  private let plain: [UInt8]
  private var sequence: UInt64 = 0
  private var inodes: Range<UInt64>

  init(
    _ principal: (credential: Credential, key: SigningKey), directory: FileID, sectorSize: Int, session: [UInt8],
    inodes: Range<UInt64>
  ) {
    self.signer = RecordSigner(key: principal.key, chainDigest: principal.credential.chainDigest)
    self.rules = AccessRules(owner: principal.credential.path, group: .root, mode: Mode(truncating: 0o644))
    self.directory = directory
    self.sectorSize = sectorSize
    self.session = session
    self.plain = Noise.bytes(sectorSize)
    self.inodes = inodes
  }

  /// Makes at most so many commits; fewer when the inode numbers are used up. Each part of the records is signed once
  /// for all of them.
  mutating func commits(_ count: Int) throws -> [Commit] {
    let numbers = self.inodes.prefix(count)
    self.inodes = self.inodes.dropFirst(numbers.count)
    guard !numbers.isEmpty else { return [] }
    let time = Int64(Date.now.timeIntervalSince1970 * 1e9)
    var contents: [ContentPart] = []
    var attributes: [AttributesPart] = []
    var links: [LinksPart] = []
    var runs: [SealedRun] = []
    var operations: [OperationID] = []
    var random = SystemRandomNumberGenerator()
    for number in numbers {
      let file = FileID(generation: self.directory.generation, inode: InodeNumber(number))
      self.sequence += 1
      let operation = OperationID(session: self.session, sequence: self.sequence)
      let contentID = [random.next() as UInt64, random.next()].flatMap { word in withUnsafeBytes(of: word, Array.init) }
      let cipher = SectorCipher(key: .random(), contentID: contentID)
      let (leaves, run) = try cipher.seal(self.plain[...], from: 0, sectorSize: self.sectorSize)
      var content = ContentPart(
        fileID: file, version: 1, size: UInt64(self.plain.count), sectorSize: self.sectorSize, contentID: contentID,
        modified: time)
      content.leaves = leaves
      contents.append(content)
      attributes.append(
        AttributesPart(fileID: file, version: 1, type: .file, rules: self.rules, changed: time, created: time))
      var part = LinksPart(fileID: file, version: 1, count: 0, parents: [])
      part.pending = PendingMark(directory: self.directory, operation: operation, since: time)
      links.append(part)
      runs.append(run)
      operations.append(operation)
    }
    let signed = (
      contents: try self.signer.sign(contents), attributes: try self.signer.sign(attributes),
      links: try self.signer.sign(links)
    )
    return contents.indices.map { index in
      let record = InodeRecord(
        fileID: contents[index].fileID, version: 1, content: signed.contents[index],
        attributes: signed.attributes[index], links: signed.links[index])
      let block = Blocktree_V1_Block.with { $0.bytes = Data(runs[index].bytes) }
      let request = Blocktree_V1_CommitRequest.with {
        $0.operation = operations[index].message
        $0.records = [record.message]
        $0.blocks = [
          .with {
            $0.fileID = record.fileID.message
            $0.blocks = [block]
          }
        ]
      }
      return Commit(request: request, sector: SealedSector(file: record.fileID, digest: runs[index].digests[0]))
    }
  }
}
