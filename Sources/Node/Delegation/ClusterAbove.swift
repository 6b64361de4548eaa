// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Discovery
internal import Filesystem
internal import Foundation
internal import Inodes
internal import Sectors
internal import SwiftProtobuf
internal import Trust

/// What a process of a delegated directory asks of the cluster that stores that directory: the directory's record, and
/// the credential files in it.
struct ClusterAbove: Sendable {
  let home: NodeHome
  let volumes: RemoteVolumes
  let verifier: ChainVerifier

  /// The volume that stores the directory.
  func volume() async throws(SectorError) -> RemoteVolume {
    guard let cluster = self.home.above.last else { throw .internalFault("no cluster above") }
    return try await self.volume(cluster)
  }

  /// The volume of the root's cluster, which hands out generations.
  func rootVolume() async throws(SectorError) -> RemoteVolume {
    guard let cluster = self.home.above.first else { throw .internalFault("no cluster above") }
    return try await self.volume(cluster)
  }

  private func volume(_ cluster: FilesystemHome.Cluster) async throws(SectorError) -> RemoteVolume {
    let volume = try await self.volumes.volume(cluster.generation, serving: cluster.path, cluster.fileID)
    guard let remote = volume as? RemoteVolume else { throw .internalFault("volume") }
    return remote
  }

  /// The directory's verified record.
  func directory() async throws(SectorError) -> InodeRecord {
    let volume = try await self.volume()
    guard let record = try await volume.record(self.home.directory) else { throw .notFound(self.home.directory) }
    try await volume.verify(record)
    return record
  }

  /// All credential files that lie directly in the directory, verified. What did not change since the last time is not
  /// read again.
  ///
  /// - Parameter known: what was read before, by path.
  /// - Throws: also when the answer may be out of date (`unreachable`), or may not name all (`tooLarge`).
  func credentials(
    known: [TreePath: CredentialEntry] = [:], at time: Date
  ) async throws(SectorError) -> [TreePath: CredentialEntry] {
    let volume = try await self.volume()
    let scope = self.home.path
    let found = try await volume.cluster.call(.read) { call in
      let request = Blocktree_V1_FindRequest.with {
        $0.scope = scope.description
        $0.kind = .contained
      }
      guard case .found(let found)? = try await call.discovery.find(request, options: call.options).answer else {
        throw SectorError.malformedAnswer("find")
      }
      return found
    }
    // Who is missing from an old list, or from one that is cut off, is not known to be gone.
    guard !found.isStale else { throw .unreachable(self.home.directory.generation) }
    guard found.processes.count < DiscoveryLimits.foundMax else {
      throw .tooLarge("processes", limit: DiscoveryLimits.foundMax - 1, found: found.processes.count)
    }
    var entries: [TreePath: CredentialEntry] = [:]
    for process in found.processes {
      guard let path = try? TreePath(parsing: process.path), path.parent == scope else {
        throw SectorError.malformedAnswer("path")
      }
      if let entry = known[path], Digest32(sha256: entry.credential.bytes).bytes == Array(process.credentialDigest) {
        entries[path] = entry
      } else if let entry = try await self.credential(at: path, of: volume, time) {
        entries[path] = entry
      }
    }
    return entries
  }

  /// Nil when it was removed meanwhile, or does not verify: its certificate may have expired.
  private func credential(
    at path: TreePath, of volume: RemoteVolume, _ time: Date
  ) async throws(SectorError) -> CredentialEntry? {
    let answer = try await volume.cluster.call(.read) { call in
      let response = try await call.discovery.readCredential(
        .with { $0.path = path.description }, options: call.options)
      guard case .credential(let answer)? = response.answer else {
        throw SectorError.malformedAnswer("read_credential")
      }
      return answer
    }
    guard !answer.credential.isEmpty, let file = try? CredentialFile(bytes: Array(answer.credential)),
      file.marks.place.path == path, (try? file.verify(with: self.verifier, at: time)) != nil,
      let id = try? FileID(answer.fileID), id.generation == self.home.directory.generation
    else { return nil }
    return CredentialEntry(fileID: id, directory: self.home.directory, credential: file)
  }
}
