// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// What the machine's disk and processor can do, without us.
struct Yardsticks: Sendable {
  let scale: Scale
  /// Made, and removed after each use.
  let directory: String

  private var log: String { "\(self.directory).log" }

  // MARK: The disk

  /// fio: one writer that appends 4 KiB and syncs, to a file that grows and to one whose blocks are there; and a large
  /// file with one sync in the end.
  func disk(_ figures: inout Figures) async throws {
    let small = ["--rw=write", "--bs=4k", "--fdatasync=1"]
    figures.add(
      "disk.append-sync",
      try await self.fio(
        small + ["--filesize=512m", "--io_size=\(self.scale.syncedByteCount)", "--overwrite=0", "--fallocate=none"]
      ).operationsPerSecond, "syncs/s")
    let size = "--filesize=\(self.scale.syncedByteCount)"
    try await self.withDirectory {
      _ = try await self.fioJob(["--rw=write", "--bs=1m", size, "--end_fsync=1"])
      figures.add(
        "disk.overwrite-sync", try await self.fioJob(small + [size, "--overwrite=1"]).operationsPerSecond, "syncs/s")
    }
    figures.add(
      "disk.sequential",
      try await self.fio(["--rw=write", "--bs=1m", "--filesize=\(self.scale.transferByteCount)", "--end_fsync=1"])
        .bytesPerSecond / 1e6, "MB/s")
  }

  private struct Job: Decodable {
    struct Write: Decodable {
      let milliseconds: Double
      let operationCount: Double
      let byteCount: Double

      private enum CodingKeys: String, CodingKey {
        case milliseconds = "runtime"
        case operationCount = "total_ios"
        case byteCount = "io_bytes"
      }
    }

    let write: Write

    var operationsPerSecond: Double { 1_000 * self.write.operationCount / max(self.write.milliseconds, 1) }
    var bytesPerSecond: Double { 1_000 * self.write.byteCount / max(self.write.milliseconds, 1) }
  }

  private struct Output: Decodable {
    let jobs: [Job]
  }

  private func fio(_ arguments: [String]) async throws -> Job {
    try await self.withDirectory { try await self.fioJob(arguments) }
  }

  private func fioJob(_ arguments: [String]) async throws -> Job {
    let lines = try await Program.run(
      "fio",
      ["--name=bench", "--directory=\(self.directory)", "--output-format=json", "--ioengine=psync", "--numjobs=1"]
        + arguments, log: self.log)
    // Notes may stand before the document.
    let document = lines.drop { !$0.hasPrefix("{") }.joined(separator: "\n")
    guard let job = try JSONDecoder().decode(Output.self, from: Data(document.utf8)).jobs.first else {
      throw BenchFailure("fio reported no job")
    }
    return job
  }

  private func withDirectory<Result>(_ body: () async throws -> Result) async throws -> Result {
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: self.directory) }
    return try await body()
  }

  // MARK: The processor

  /// openssl, on one core.
  func crypto(_ figures: inout Figures) async throws {
    for (name, arguments) in [
      ("crypto.aes-256-gcm.4k", ["-bytes", "4096", "-evp", "aes-256-gcm"]),
      ("crypto.aes-256-gcm.16k", ["-bytes", "16384", "-evp", "aes-256-gcm"]),
      ("crypto.sha-256.4k", ["-bytes", "4096", "-evp", "sha256"]),
    ] {
      let lines = try await Program.run("openssl", ["speed", "-mr", "-seconds", "1"] + arguments, log: self.log)
      // +F:<number>:<algorithm>:<bytes per second>
      let result = lines.last { $0.hasPrefix("+F:") }?.split(separator: ":").last.flatMap { Double($0) }
      guard let result else { throw BenchFailure("openssl reported no speed") }
      figures.add(name, result / 1e6, "MB/s")
    }
  }
}
