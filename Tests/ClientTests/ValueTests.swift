// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import Testing

@Suite("Values of the library")
struct ValueTests {
  @Test(
    "times are printed as RFC 3339 has them",
    arguments: [
      (0, "1970-01-01T00:00:00.000000000Z"), (-1, "1969-12-31T23:59:59.999999999Z"),
      (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
      (1_709_251_199_123_456_789, "2024-02-29T23:59:59.123456789Z"),
      (4_107_542_400_000_000_001, "2100-03-01T00:00:00.000000001Z"),
      (Int64.max, "2262-04-11T23:47:16.854775807Z"), (Int64.min, "1677-09-21T00:12:43.145224192Z"),
    ] as [(Int64, String)])
  func timestamps(nanoseconds: Int64, text: String) {
    #expect(Timestamp(nanoseconds: nanoseconds).description == text)
  }

  @Test("file ids are read as they are printed, and nothing else is")
  func fileIDs() {
    #expect(FileID("1:17") == FileID(generation: 1, inode: 17))
    #expect(FileID("1:17")?.description == "1:17")
    for text in ["", "1", "1:", ":1", "0:1", "1:0", "1:2:3", "-1:2", "a:b", "1: 2", "18446744073709551616:1"] {
      #expect(FileID(text) == nil, "\(text)")
    }
  }

  @Test("modes keep twelve bits")
  func modes() {
    #expect(FileMode(rawValue: 0o100644).description == "0644")
    #expect(FileMode(rawValue: 0o4755).description == "4755")
    #expect((0 as FileMode).description == "0000")
  }

  @Test("errors are one line, with code, reason and details")
  func errors() {
    let error = BlocktreeError(
      code: .notFound, reason: .notFound, message: "There is no such file.", metadata: ["path": "/a", "file": "1:2"])
    #expect(error.description == "NOT_FOUND (NOT_FOUND): There is no such file. file=1:2 path=/a")
    #expect(BlocktreeError.Code(rawValue: 99).description == "CODE_99")
  }
}

/// Records what is asked, and answers what it was given.
private struct Recorder: FileOperations {
  let domain = String(repeating: "a", count: 52)

  func perform(_ request: FileRequest) async throws -> FileResponse {
    throw BlocktreeError(code: .aborted, message: "asked")
  }
}

@Suite("Paths that are given to the library")
struct PathTests {
  private func outcome(_ path: String) async -> BlocktreeError? {
    do {
      _ = try await Recorder().stat(path)
      return nil
    } catch {
      return error as? BlocktreeError
    }
  }

  @Test("reach the process when they are good")
  func good() async {
    for path in ["/", "/a", "/a b/ü/…", "bt://\(Recorder().domain)/a%20b", "bt://\(Recorder().domain)/"] {
      #expect(await self.outcome(path)?.message == "asked", "\(path)")
    }
  }

  @Test(
    "are refused here when they break a rule, with the rule's name",
    arguments: [
      ("", "empty"), ("a", "notAbsolute"), ("/a//b", "emptyComponent"), ("/a/", "emptyComponent"),
      ("/a/../b", "dotComponent"), ("/.", "dotComponent"), ("/a\u{0}b", "nul"),
      ("/" + String(repeating: "x", count: 256), "componentTooLong"),
      (String(repeating: "/x", count: 2049), "pathTooLong"), ("bt://abc/x", "invalidURI"),
      ("bt://\(String(repeating: "b", count: 51))a/x", "otherDomain"),
    ])
  func bad(path: String, rule: String) async {
    let error = await self.outcome(path)
    #expect(error?.code == .invalidArgument && error?.reason == .invalidPath, "\(path)")
    #expect(error?.metadata["rule"] == rule, "\(path)")
  }

  @Test("of transfers are checked before anything else")
  func transfers() async throws {
    await #expect(throws: BlocktreeError.self) {
      try await Recorder().writeBytes([UInt8](repeating: 0, count: 1 << 20 + 1), to: "/a")
    }
    await #expect(throws: BlocktreeError.self) { try await Recorder().readBytes("/a", count: 0) }
  }
}
