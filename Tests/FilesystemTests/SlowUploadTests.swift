// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Testing
import Trust

@testable import Filesystem

@Suite("A slow upload into a delegated directory")
struct SlowUploadTests {
  /// Nanoseconds, as in `MarkKeeper`.
  private static let age: Int64 = 60_000_000_000

  @Test("is not taken for one that was broken off, as long as something comes")
  func slow() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      var upload = try await filesystem.upload(
        TestDomain.path("/site/slow"), mode: Mode(truncating: 0o644), mustBeNew: true, filesystem.asOwner)
      var data = [UInt8](repeating: 7, count: 2 * Filesystem.Upload.bufferByteCount + 1)
      try await upload.append(data)
      #expect(try site.markedCount == 1)
      for round in 0..<8 {
        site.clock.advance(seconds: 20)
        // Now a little more than a sector, now less.
        let part = [UInt8](repeating: UInt8(round), count: round.isMultiple(of: 2) ? 5_000 : 3_000)
        try await upload.append(part)
        data += part
        #expect(try await filesystem.settleMarks(olderThan: Self.age) == 0)
      }
      _ = try await upload.finish(modified: nil)
      #expect(try await filesystem.get("/site/slow") == data)
      #expect(try site.markedCount == 0)
    }
  }

  @Test("is, when nothing came for a minute")
  func brokenOff() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      var upload = try await filesystem.upload(
        TestDomain.path("/site/slow"), mode: Mode(truncating: 0o644), mustBeNew: true, filesystem.asOwner)
      try await upload.append([UInt8](repeating: 7, count: 2 * Filesystem.Upload.bufferByteCount + 1))
      _ = try await filesystem.names("/site")
      site.clock.advance(seconds: 61)
      #expect(try await filesystem.settleMarks(olderThan: Self.age) == 1)
      #expect(try site.markedCount == 0)
      await #expect(throws: FilesystemError.self) { _ = try await upload.finish(modified: nil) }
      await upload.abandon()
    }
  }
}
