// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Inodes
internal import NIOPosix
internal import Synchronization
internal import Transport
internal import Trust

/// A node that serves, a client of it, and what is measured with both.
struct Site: Sendable {
  let node: BenchNode
  let client: Client
  let scale: Scale

  /// Everything happens in here.
  static let directory = "/bench"

  private static let pieceByteCount = 128 << 10
  private static let smallByteCount = 4_096
  private static let filesInFlight = 16

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
    case .transfer: try await self.transfer(&figures)
    case .files: try await self.files(&figures)
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

  // MARK: A large file

  private func transfer(_ figures: inout Figures) async throws {
    let path = "\(Self.directory)/large"
    let pieceCount = self.scale.transferByteCount / Self.pieceByteCount
    let piece = Noise.bytes(Self.pieceByteCount)
    let byteCount = UInt64(pieceCount * piece.count)
    let writing = ContinuousClock.now
    let info = try await self.client.write(to: path, .create) { file in
      for _ in 0..<pieceCount { try await file.write(piece) }
    }
    figures.add("transfer.write", Load.rate(Int(byteCount), since: writing) / 1e6, "MB/s")
    guard info.size == byteCount else { throw BenchFailure("\(path) has not all of its bytes") }
    let reading = ContinuousClock.now
    try await self.client.read(path) { file in
      var position: UInt64 = 0
      for try await bytes in file {
        // Wherever a part begins, it has to be the right one; the service has verified all of it.
        let offset = Int(position % UInt64(piece.count))
        let count = min(64, bytes.count, piece.count - offset)
        guard bytes[..<count] == piece[offset..<offset + count] else {
          throw BenchFailure("\(path) is not as it was written, from byte \(position) on")
        }
        position += UInt64(bytes.count)
      }
      guard position == byteCount else { throw BenchFailure("\(path) ended after \(position) bytes") }
    }
    figures.add("transfer.read", Load.rate(Int(byteCount), since: reading) / 1e6, "MB/s")
    try await self.client.remove(path)
  }

  // MARK: Small files

  private func files(_ figures: inout Figures) async throws {
    let directory = "\(Self.directory)/files"
    try await self.client.makeDirectory(directory)
    let bytes = Noise.bytes(Self.smallByteCount)
    try await self.client.withFileSession { session in
      let creating = try await self.forEachFile { number in
        try await session.writeBytes(bytes, to: "\(directory)/file-\(number)", .create)
      }
      figures.add("files.create", creating, "files/s")
      let reading = try await self.forEachFile { number in
        guard try await session.readBytes("\(directory)/file-\(number)", count: 1 << 16).bytes == bytes else {
          throw BenchFailure("file-\(number) is not as it was written")
        }
      }
      figures.add("files.read", reading, "files/s")
      _ = try await self.forEachFile { try await session.remove("\(directory)/file-\($0)") }
    }
    try await self.client.remove(directory, .directory)
  }

  /// Returns files per second.
  private func forEachFile(_ body: @escaping @Sendable (Int) async throws -> Void) async throws -> Double {
    let next = Atomic(0)
    let count = self.scale.fileCount
    return try await self.client.onEventLoop {
      try await Load(inFlight: Self.filesInFlight, duration: nil).calls {
        let number = next.add(1, ordering: .relaxed).oldValue
        guard number < count else { return false }
        try await body(number)
        return true
      }
    }
  }
}
