// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Logging
internal import Sectors
internal import Transport
internal import Trust

extension Node {
  /// What tells others where this process is.
  ///
  /// - Parameter group: the cluster that it is a member of; nil while it waits to become one, and in gateways.
  func addressPublisher(
    _ identity: NodeDirectory.Identity, _ home: NodeHome?, _ network: NodeNetwork, _ transport: NodeServerTransport,
    group: SectorGroup?
  ) throws -> AddressPublisher {
    let description = try NodeDescription(readingFrom: self.directory.description)
    let (configuration, logger) = (self.configuration, self.logger)
    return AddressPublisher(
      identity: identity.credential, key: identity.keys.signing, place: self.credentialPlace(home, network, group),
      addresses: {
        guard let listening = try? await transport.listeningAddresses, !listening.isEmpty else { return nil }
        do {
          return try AddressPublisher.addresses(configuration, description, listening: listening)
        } catch {
          logger.error("what others are to dial is not known", metadata: ["error": "\(error)"])
          return nil
        }
      }, logger: logger)
  }

  /// Which cluster stores the credential file of this process.
  private func credentialPlace(
    _ home: NodeHome?, _ network: NodeNetwork, _ group: SectorGroup?
  ) -> AddressPublisher.Place {
    let volumes = network.volumes
    // Of a process of the root directory, its own cluster; of another one, the cluster above.
    let cluster = home?.above.last
    let remote: AddressPublisher.Remote = { () async throws(SectorError) -> RemoteVolume in
      let volume = try await volumes.volume(
        cluster?.generation ?? .root, serving: cluster?.path ?? .root, cluster?.fileID ?? .rootDirectory)
      guard let volume = volume as? RemoteVolume else { throw .internalFault("volume") }
      return volume
    }
    if cluster == nil, let group { return .own(group, others: remote) }
    return .other(remote)
  }
}
