// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// What one client reads.
struct ReadLoads: Sendable {
  let way: ReadWay
  let client: Client
  let scale: Scale

  private static let small = Noise.bytes(FileLoads.smallByteCount)
  private static let piece = Noise.bytes(FileLoads.pieceByteCount)
  private static let warmUpCount = 50
  private static let inFlight = 16

  private var path: String { "\(self.way.directory)/small" }

  /// Connects, learns the way, and has both sides remember what they can.
  func warmUp() async throws { _ = try await self.seconds(ofEach: Self.warmUpCount) }

  func readSmall() async throws {
    guard try await self.client.readAll(self.path).bytes == Self.small else {
      throw BenchFailure("\(self.path) was not read as it was written")
    }
  }

  /// So many small reads, one after the other.
  func seconds(ofEach count: Int) async throws -> [Double] {
    try await self.client.onEventLoop {
      var seconds: [Double] = []
      for _ in 0..<count {
        let begin = ContinuousClock.now
        try await self.readSmall()
        seconds.append((ContinuousClock.now - begin) / .seconds(1))
      }
      return seconds
    }
  }

  /// What a read takes, in the mean.
  func seconds(_ load: ReadLoad) async throws -> Double {
    let many = Load(inFlight: load == .small ? 1 : Self.inFlight, duration: self.scale.loadDuration)
    switch load {
    case .small, .many:
      let rate = try await self.client.onEventLoop {
        try await many.calls {
          try await self.readSmall()
          return true
        }
      }
      return 1 / max(rate, 1e-9)
    case .session:
      let path = self.path
      let rate = try await self.client.withFileSession { session in
        // Opened before it is measured.
        _ = try await session.stat(path)
        return try await self.client.onEventLoop {
          try await many.calls {
            guard try await session.readBytes(path, count: 1 << 16).bytes == Self.small else {
              throw BenchFailure("\(path) was not read as it was written")
            }
            return true
          }
        }
      }
      return 1 / max(rate, 1e-9)
    case .large:
      let begin = ContinuousClock.now
      try await FileLoads.readLarge(
        "\(self.way.directory)/large", Self.piece, of: UInt64(self.scale.transferByteCount), self.client)
      return (ContinuousClock.now - begin) / .seconds(1)
    }
  }
}
