// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Filesystem
internal import Relay
internal import Sectors
internal import ServiceLifecycle
internal import Trust

/// Carries messages to programs that are attached to the node, until the node ends.
struct MessageTraffic: ServiceLifecycle.Service {
  let hub: MessageHub

  func run() async throws {
    await cancelWhenGracefulShutdown { await self.hub.ended() }
    await self.hub.end()
  }
}

extension RelayServiceHandler.Judge {
  /// - Parameters:
  ///   - home: the directory that the process's credential lies in.
  ///   - marks: the services that the credential file of somebody names; nil when that is not known.
  ///   - filesystem: says who owns what; nil where directories can not be read.
  init(
    _ principals: any PrincipalJudge, home: TreePath, filesystem: Filesystem?,
    marks: @escaping @Sendable (TreePath) -> [Trust.Service]?
  ) {
    self.init(
      confirms: { principals.confirms($0) },
      mayHost: { credential, service in
        if credential.path.parent == home, marks(credential.path)?.contains(service) ?? false { return true }
        guard let filesystem else { return false }
        if try await filesystem.homeOwner() == credential.path { return true }
        return try await filesystem.ownsRootDirectory(credential.path)
      })
  }
}
