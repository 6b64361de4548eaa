// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Inodes
internal import NIOPosix
internal import Transport
internal import Trust

/// A node that serves, a client of it, and what is measured with both.
struct Site: Sendable {
  let node: BenchNode
  let client: Client
  let scale: Scale

  /// Everything happens in here.
  static let directory = "/bench"

  private static let smallByteCount = 4_096

  private var files: FileLoads { FileLoads(client: self.client, directory: Self.directory, scale: self.scale) }

  func measure(_ phase: Phase, _ figures: inout Figures) async throws {
    switch phase {
    case .disk, .crypto, .tls: break
    case .commits:
      var result = figures
      try await self.withSectors { try await $0.commits(&result) }
      figures = result
    case .reads:
      var result = figures
      try await self.withSectors { try await $0.reads(&result) }
      figures = result
    case .stat: try await self.stat(&figures)
    case .transfer: try await self.files.transfer(&figures)
    case .files: try await self.files.small(&figures)
    }
  }

  /// Calls `body` with a connection of its own.
  private func withSectors(_ body: (SectorLoads) async throws -> Void) async throws {
    let profile = self.node.profile
    guard let caller = profile.caller, let point = profile.startingPoints.first else {
      throw BenchFailure("the profile has no caller or no address")
    }
    let directory = try await self.client.stat(Self.directory).id
    let security = try TransportSecurity(
      root: profile.root, identity: .init(chain: caller.credential.chain, key: caller.keys.signing))
    try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
      .withConnection(to: point.address, expecting: point.path) { connection in
        try await body(
          SectorLoads(
            principal: (caller.credential, caller.keys.signing), connection: connection,
            directory: Inodes.FileID(
              generation: Generation(directory.generation), inode: InodeNumber(directory.inode)),
            scale: self.scale))
      }
  }

  // MARK: Calls

  private func stat(_ figures: inout Figures) async throws {
    let client = self.client
    let path = "\(Self.directory)/stat"
    try await client.write(Noise.bytes(Self.smallByteCount), to: path)
    for inFlight in [1, 16, 64] {
      let load = Load(inFlight: inFlight, duration: self.scale.loadDuration)
      let rate = try await client.onEventLoop {
        try await load.calls {
          guard try await client.stat(path).size == UInt64(Self.smallByteCount) else {
            throw BenchFailure("\(path) is not as it was written")
          }
          return true
        }
      }
      figures.add("stat.unary.\(inFlight)", rate, "calls/s")
    }
    try await client.remove(path)
  }
}
