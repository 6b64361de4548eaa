// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Synchronization

/// Files that are written and read whole, through the filesystem service.
struct FileLoads: Sendable {
  let client: Client
  /// Where the files are. It exists.
  let directory: String
  let scale: Scale

  static let pieceByteCount = 128 << 10
  static let smallByteCount = 4_096
  private static let filesInFlight = 16

  // MARK: A large file

  /// Writes a file as a whole, durably, reads it, and removes it.
  func transfer(_ figures: inout Figures) async throws {
    let path = "\(self.directory)/large"
    let piece = Noise.bytes(Self.pieceByteCount)
    let writing = ContinuousClock.now
    let byteCount = try await self.writeLarge(piece, to: path)
    figures.add("transfer.write", Load.rate(Int(byteCount), since: writing) / 1e6, "MB/s")
    let reading = ContinuousClock.now
    try await Self.readLarge(path, piece, of: byteCount, self.client)
    figures.add("transfer.read", Load.rate(Int(byteCount), since: reading) / 1e6, "MB/s")
    try await self.client.remove(path)
  }

  /// Returns how many bytes that were.
  @discardableResult
  func writeLarge(_ piece: [UInt8] = Noise.bytes(Self.pieceByteCount), to path: String) async throws -> UInt64 {
    let pieceCount = self.scale.transferByteCount / piece.count
    let info = try await self.client.write(to: path, .create) { file in
      for _ in 0..<pieceCount { try await file.write(piece) }
    }
    let byteCount = UInt64(pieceCount * piece.count)
    guard info.size == byteCount else { throw BenchFailure("\(path) has not all of its bytes") }
    return byteCount
  }

  /// Reads what ``writeLarge(_:to:)`` wrote.
  static func readLarge(_ path: String, _ piece: [UInt8], of byteCount: UInt64, _ client: Client) async throws {
    try await client.read(path) { file in
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
  }

  // MARK: Small files

  /// Creates files of one sector, each durable when it is answered, reads them, and removes them.
  func small(_ figures: inout Figures) async throws {
    let directory = "\(self.directory)/files"
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
