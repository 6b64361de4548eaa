// SPDX-License-Identifier: Apache-2.0

import Foundation
import GRPCCore
import GRPCProtobuf
import Logging
import Node
import Testing
import Transport

@Suite("The node's log")
struct LogTests {
  private static func lines(
    _ format: NodeConfiguration.LogFormat, level: Logger.Level = .info, _ body: (Logger) -> Void
  ) -> [String] {
    let lines = Notes<[String]>([])
    body(
      Logger(label: "test") { _ in
        LineLogHandler(level: level, format: format) { bytes in
          lines.change { $0.append(String(decoding: bytes, as: UTF8.self)) }
        }
      })
    return lines.value
  }

  @Test("has one line for each event, whatever is in it")
  func text() throws {
    let lines = Self.lines(.text) { logger in
      logger.info("something happened", metadata: ["b": "two words", "a": "1", "c": "x\ny\"\\", "d": ""])
      logger.debug("nobody wants to know")
    }
    try #require(lines.count == 1)
    #expect(lines[0].hasSuffix(" info something happened a=1 b=\"two words\" c=\"x\\ny\\\"\\\\\" d=\"\"\n"))
    #expect(lines[0].filter(\.isNewline).count == 1)
    #expect(lines[0].contains(#/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /#))
  }

  @Test("shows nothing to a terminal but what is to be seen", arguments: NodeConfiguration.LogFormat.allCases)
  func unprintable(_ format: NodeConfiguration.LogFormat) throws {
    let scalars: [Unicode.Scalar] = [
      "\u{7}", "\u{1b}", "\u{7f}", "\u{80}", "\u{9b}", "\u{9f}", "\u{2028}", "\u{2029}", "\u{202a}", "\u{202e}",
      "\u{2066}", "\u{2069}",
    ]
    for scalar in scalars {
      let lines = Self.lines(format) { $0.info("said", metadata: ["value": "a\(Character(scalar))b"]) }
      try #require(lines.count == 1)
      #expect(!lines[0].unicodeScalars.contains(scalar), "\(String(scalar.value, radix: 16))")
      let digits = String(scalar.value, radix: 16)
      let escape = "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      #expect(lines[0].contains("\"a\(escape)b\""), "\(lines[0])")
    }
    // What has a shape of its own stays as it is; what is like a space is not taken for one.
    #expect(Self.lines(.text) { $0.info("said", metadata: ["value": "é漢👩‍👧"]) }[0].hasSuffix(" value=é漢👩‍👧\n"))
    let wide = "a\u{3000}b"
    #expect(Self.lines(.text) { $0.info("said", metadata: ["value": "\(wide)"]) }[0].contains(" value=\"\(wide)\""))
  }

  @Test("is JSON where that is asked for, whatever is in it")
  func json() throws {
    struct Line: Decodable {
      let time: String
      let level: String
      let message: String
      let metadata: [String: String]
    }
    let hostile = "\u{0} \u{1b}[31m \u{7f} \" \\ \r\n é 漢 \u{2028}"
    let lines = Self.lines(.json) { logger in
      var logger = logger
      logger[metadataKey: "always"] = "here"
      logger.error("it is \"quoted\"", metadata: ["value": "\(hostile)"])
    }
    try #require(lines.count == 1)
    #expect(lines[0].utf8.filter { $0 == 10 }.count == 1)
    let line = try JSONDecoder().decode(Line.self, from: Data(lines[0].utf8))
    #expect(line.level == "error")
    #expect(line.message == "it is \"quoted\"")
    #expect(line.metadata == ["always": "here", "value": hostile])
    #expect(line.time.hasSuffix("Z"))
  }

  @Test("explains a fault of ours under a number that the caller is told, and nothing else")
  func incident() async throws {
    struct Secret: Error, CustomStringConvertible { let description = "the inner workings" }
    for isStreamed in [false, true] {
      let (error, lines) = try await Self.outcome(of: Secret(), isStreamed: isStreamed)
      #expect(error.code == .internalError)
      let details = StatusDetails(error)
      #expect(details.reason == "INTERNAL")
      let incident = try #require(details.metadata["incident"])
      #expect(!"\(error)".contains("inner workings"))
      try #require(lines.count == 1)
      #expect(lines[0].contains(incident) && lines[0].contains("the inner workings"))
    }
  }

  @Test("says nothing of what callers got wrong, and names damage as an error")
  func ordinaryFailures() async throws {
    for isStreamed in [false, true] {
      let wrong = GoogleRPCStatus(.notFound, "There is no such file.", reason: "NOT_FOUND")
      let (error, lines) = try await Self.outcome(of: RPCError(wrong), isStreamed: isStreamed)
      #expect(error.code == .notFound)
      #expect(StatusDetails(error).reason == "NOT_FOUND")
      #expect(lines.isEmpty)
      let damage = GoogleRPCStatus(.dataLoss, "What is stored is damaged.", reason: "DATA_LOSS", ["file": "1:7"])
      let (loss, said) = try await Self.outcome(of: RPCError(damage), isStreamed: isStreamed)
      #expect(StatusDetails(loss).metadata["file"] == "1:7")
      try #require(said.count == 1)
      #expect(said[0].contains(" error damage was found "))
    }
  }

  /// What a caller gets, and the log says, when a handler throws: at once, or while it streams its answer.
  private static func outcome(of error: any Error, isStreamed: Bool) async throws -> (RPCError, [String]) {
    let lines = Notes<[String]>([])
    let logger = Logger(label: "test") { _ in
      LineLogHandler(level: .info, format: .text) { bytes in
        lines.change { $0.append(String(decoding: bytes, as: UTF8.self)) }
      }
    }
    let thrown = await withServerContextRPCCancellationHandle { cancellation -> (any Error)? in
      let context = ServerContext(
        descriptor: MethodDescriptor(fullyQualifiedService: "a.Service", method: "Call"), remotePeer: "there",
        localPeer: "here", cancellation: cancellation)
      do {
        let response: StreamingServerResponse<Int> = try await FailureInterceptor(logger: logger).intercept(
          request: StreamingServerRequest(single: ServerRequest(metadata: [:], message: 1)), context: context
        ) { (_: StreamingServerRequest<Int>, _) in
          guard isStreamed else { throw error }
          return StreamingServerResponse { _ in throw error }
        }
        _ = try await response.accepted.get().producer(RPCWriter(wrapping: Nowhere()))
        return nil
      } catch {
        return error
      }
    }
    return (try #require(thrown as? RPCError), lines.value)
  }

  private struct Nowhere: RPCWriterProtocol {
    func write(_ element: Int) async throws {}
    func write(contentsOf elements: some Sequence<Int>) async throws {}
  }
}
