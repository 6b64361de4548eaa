// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Filesystem
internal import Inodes
internal import Logging
internal import Replication
internal import Sectors
internal import ServiceLifecycle
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Sees to it that this process's credential file says where the process can be reached: the only thing in it that a
/// process says itself. Others find it there, so this is what a process that has moved is found again by.
///
/// It needs nobody to reach this process: it calls the leader of the cluster that stores the credential file.
struct AddressPublisher: ServiceLifecycle.Service {
  /// The cluster that stores the credential file of this process.
  enum Place: Sendable {
    /// The one that this process belongs to. Its leader may be another member.
    case own(SectorGroup, others: Remote)
    case other(Remote)
  }

  /// The same as seen from outside.
  typealias Remote = @Sendable () async throws(SectorError) -> RemoteVolume

  /// The path and key of this process.
  let identity: Credential
  let key: SigningKey
  let place: Place
  /// Where the process can be reached. Waits until that is known; nil when it never will be.
  let addresses: @Sendable () async -> [NetworkAddress]?
  let logger: Logger

  private static let initialPause = Duration.milliseconds(250)
  private static let pauseMax = Duration.seconds(10)
  /// How often it is looked whether the file still says the same: it may have been put there anew with other addresses.
  private static let interval = Duration.seconds(60)

  func run() async throws {
    await cancelWhenGracefulShutdown {
      let addresses = await self.addresses() ?? []
      var (pause, lastError) = (Self.initialPause, "")
      while !Task.isCancelled {
        do {
          // Nothing to say is no reason to take back what others know.
          if !addresses.isEmpty { try await self.publish(addresses) }
          (pause, lastError) = (Self.initialPause, "")
          try await Task.sleep(for: Self.interval)
        } catch {
          if Task.isCancelled { break }
          if lastError != "\(error)" {
            lastError = "\(error)"
            self.logger.info(
              "the credential file does not say yet where this process is", metadata: ["error": "\(error)"])
          }
          try? await Task.sleep(for: pause)
          pause = min(pause * 2, Self.pauseMax)
        }
      }
    }
  }

  /// Brings the credential file up to date. What it says is on the disks of a majority when this returns.
  private func publish(_ addresses: [NetworkAddress]) async throws {
    let volume: any Volume
    let file: Inodes.FileID
    switch self.place {
    case .own(let group, let others):
      guard let entry = group.credentials.entry(self.identity.path) else { throw SectorError.permissionDenied }
      if entry.credential.addresses?.addresses.addresses == addresses { return }
      file = entry.fileID
      volume = group.replica.leader == group.replica.member ? group : try await others()
    case .other(let remote):
      let other = try await remote()
      guard let (id, credential) = try await self.credential(in: other) else { throw SectorError.permissionDenied }
      if credential.addresses?.addresses.addresses == addresses { return }
      (file, volume) = (id, other)
    }
    guard let record = try await volume.record(file) else { throw SectorError.notFound(file) }
    guard let next = try self.replacement(for: record, addresses) else { return }
    var commit = Commit()
    commit.records = [next]
    _ = try await volume.perform(commit, by: self.identity)
    self.logger.notice(
      "the credential file says now where this process is",
      metadata: ["addresses": "\(addresses.map(\.description).joined(separator: " "))"])
  }

  /// The record that takes the place of another; nil when that says so already.
  ///
  /// - Throws: `permissionDenied` when it is not this process's credential (any more).
  func replacement(for record: InodeRecord, _ addresses: [NetworkAddress]) throws -> InodeRecord? {
    let file = try CredentialFile(bytes: record.credential)
    guard file.marks.place.path == self.identity.path, file.marks.keyID == self.identity.keyID else {
      throw SectorError.permissionDenied
    }
    let former = file.addresses?.addresses
    if former?.addresses == addresses { return nil }
    // Times grow, as long as clocks are right; the number does in any case.
    let (now, last) = (WallClock.milliseconds(), former?.serial ?? 0)
    guard last < UInt64.max else { throw SectorError.permissionDenied }
    let new = try CredentialAddresses(
      keyID: self.identity.keyID, addresses: addresses, serial: max(now, last + 1), issuedAtMilliseconds: now)
    return InodeRecord(
      fileID: record.fileID, version: record.version.next, content: record.content, attributes: record.attributes,
      links: record.links, credential: file.replacing(addresses: try new.signed(with: self.key)).bytes)
  }

  /// The credential file as another cluster stores it; nil when it has none.
  private func credential(in volume: RemoteVolume) async throws -> (Inodes.FileID, CredentialFile)? {
    let path = self.identity.path.description
    let answer = try await volume.cluster.call(.read) { call in
      let response = try await call.discovery.readCredential(.with { $0.path = path }, options: call.options)
      guard case .credential(let answer)? = response.answer else {
        throw SectorError.malformedAnswer("read_credential")
      }
      return answer
    }
    guard !answer.credential.isEmpty else { return nil }
    return (
      try FileID(answer.fileID), try CredentialFile(bytes: Array(answer.credential))
    )
  }
}

extension AddressPublisher {
  /// Where others are to dial a process.
  ///
  /// - Parameters:
  ///   - listening: where it listens; never empty.
  static func addresses(
    _ configuration: NodeConfiguration, _ description: NodeDescription, listening: [NetworkAddress]
  ) throws -> [NetworkAddress] {
    let described = try ListenAddress(parsing: description.listen)
    // Whoever names only another address to listen on does not mean the one that was derived from the former.
    let derived = [try LocalAddress.advertised(for: described)]
    let isOutdated = configuration.advertise == derived && configuration.listen != described
    if let advertise = configuration.advertise, !advertise.isEmpty, !isOutdated { return advertise }
    return try listening.map { address in
      try LocalAddress.advertised(for: ListenAddress(host: configuration.listen.host, port: address.port))
    }
  }
}
