// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import NIOCore
import NIOPosix
import Synchronization
import Testing
import Transport
import Trust

@testable import Node

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("The metrics of a node", .timeLimit(.minutes(5)))
struct MetricsTests {
  @Test("tell how the node, its store, its cluster, its connections and its calls are")
  func scrape() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start(environment: ["BLOCKTREE_METRICS_LISTEN=127.0.0.1:0"])
    let endpoint = try await Endpoint(of: node)
    try await withClient(node.profile) { client in
      _ = try await client.write([1, 2, 3], to: "/secret-name")
      await #expect(throws: BlocktreeError.self) { try await client.stat("/no-such-file") }
      // A call that is counted when its answer has arrived, or very soon after.
      try await eventually {
        try await endpoint.metrics().values.keys.contains { $0.hasSuffix(#"/Stat",status="NOT_FOUND"}"#) }
      }
      let metrics = try await endpoint.metrics()
      func value(_ name: String) -> Double? { metrics.values[name] }
      #expect(metrics.values.keys.contains { $0.hasPrefix("blocktree_build_info{build=") })
      #expect(value(#"blocktree_connections{caller="principal"}"#) ?? 0 >= 1)
      #expect(value(#"blocktree_connections{caller="anonymous"}"#) == 0)
      #expect(value("blocktree_uptime_seconds") ?? 0 > 0)
      #expect(abs((value("process_start_time_seconds") ?? 0) - Date.now.timeIntervalSince1970) < 600)
      #expect(value("blocktree_is_member") == 1)
      #expect(value("blocktree_store_up") == 1)
      #expect(value("blocktree_store_applied_index") ?? 0 > 0)
      #expect(value("blocktree_store_log_bytes") ?? 0 > 0)
      #expect(value("blocktree_store_used_bytes") ?? 0 > 0)
      #expect(value("blocktree_store_free_bytes") ?? 0 > 0)
      #expect(value("blocktree_store_queue_entries") == 0)
      #expect(value("blocktree_scrub_running") == 0 && value("blocktree_scrub_damaged") == 0)
      #expect(value("blocktree_scrub_last_end_time_seconds") == 0 && value("blocktree_scrub_healed_total") == 0)
      #expect(value("blocktree_cluster_is_leader") == 1)
      #expect(value(#"blocktree_cluster_role{role="leader"}"#) == 1)
      #expect(value(#"blocktree_cluster_role{role="follower"}"#) == 0)
      #expect(value("blocktree_cluster_term") ?? 0 > 0)
      #expect(value(#"blocktree_cluster_members{kind="voter"}"#) == 1)
      #expect(value(#"blocktree_cluster_members{kind="learner"}"#) == 0)
      #expect(value("blocktree_cluster_leader_changes_total") == 1)
      #expect(value("blocktree_cluster_commit_index") == value("blocktree_cluster_last_index"))
      #expect(value("blocktree_cluster_applied_index") == value("blocktree_cluster_commit_index"))
      #expect(
        metrics.values.contains { $0.key.hasPrefix("blocktree_cluster_member_lag_entries{") && $0.value == 0 })
      let stat = #"method="blocktree.v1.FilesystemService/Stat""#
      #expect(value("blocktree_calls_total{\(stat),status=\"NOT_FOUND\"}") ?? 0 >= 1)
      #expect(value("blocktree_call_seconds_bucket{\(stat),le=\"+Inf\"}") ?? 0 >= 1)
      #expect(value("blocktree_calls_in_progress") ?? -1 >= 0)
      #expect(value("telemetry_dropped_series_total") == 0)
      // A change shows.
      let before = value("blocktree_store_applied_index") ?? 0
      _ = try await client.write([4], to: "/second")
      try await eventually { try await endpoint.metrics().values["blocktree_store_applied_index"] ?? 0 > before }
      // Nothing of what the tree holds, and of who calls.
      let text = try await endpoint.metrics().text
      for secret in ["secret-name", "no-such-file", "/owner"] { #expect(!text.contains(secret)) }
    }
    // Well-formed to somebody who knows the format: each line is one of these.
    let line =
      #/# (HELP [a-zA-Z_:][a-zA-Z0-9_:]* .+|TYPE [a-zA-Z_:][a-zA-Z0-9_:]* (counter|gauge|histogram))|[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*="[^"]*",?)+\})? [-+.0-9a-zA-Z]+/#
    let text = try await endpoint.metrics().text
    for some in text.split(separator: "\n") { #expect(some.wholeMatch(of: line) != nil, "\(some)") }
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }

  @Test("are nowhere unless an address is set, and what is no address keeps the node from starting")
  func setting() async throws {
    let node = try await NodeUnderTest.initialized()
    let directory = NodeDirectory(node.directory)
    func listen(_ text: String?) async throws -> ListenAddress? {
      try await NodeConfiguration(
        flags: [:], environment: text.map { ["BLOCKTREE_METRICS_LISTEN": $0] } ?? [:], file: nil, directory: directory
      ).metricsListen
    }
    #expect(try await listen(nil) == nil)
    #expect(try await listen("") == nil)
    #expect(try await listen("9464") == ListenAddress(host: "127.0.0.1", port: 9464))
    #expect(try await listen("0.0.0.0:9464") == ListenAddress(host: "0.0.0.0", port: 9464))
    #expect(try await listen("[::1]:0") == ListenAddress(host: "::1", port: 0))
    for text in ["x", "70000", "a:b", ":1", "1:", "::1:9"] {
      await #expect(throws: NodeError.self) { try await listen(text) }
    }
    let process = try await node.start()
    #expect(!node.logText.contains("serving metrics"))
    #expect(process.pollEnd() == nil)
  }

  @Test("end the node with an error when their address is taken")
  func addressTaken() async throws {
    let node = try await NodeUnderTest.initialized()
    let other = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .bind(host: "127.0.0.1", port: 0).get()
    let port = try #require(other.localAddress?.port)
    let process = try node.launch(
      ["run", "--dir", node.directory], environment: ["BLOCKTREE_METRICS_LISTEN=127.0.0.1:\(port)"])
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(1))
    #expect(node.logText.contains("can not listen on 127.0.0.1:\(port)"), "\(node.logText)")
    try await other.close()
  }

  @Test("are read by GET only, from one path, with a request that is small")
  func requests() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start(environment: ["BLOCKTREE_METRICS_LISTEN=127.0.0.1:0"])
    let endpoint = try await Endpoint(of: node)
    func status(_ request: String) async throws -> String {
      String(try await endpoint.exchange(request).prefix { $0 != "\r\n" })
    }
    let end = "HTTP/1.1\r\nhost: x\r\n\r\n"
    #expect(try await status("GET /metrics \(end)") == "HTTP/1.1 200 OK")
    #expect(try await status("GET /metrics?name=x \(end)") == "HTTP/1.1 200 OK")
    #expect(try await status("GET /metrics HTTP/1.0\r\n\r\n") == "HTTP/1.1 200 OK")
    #expect(try await status("GET / \(end)") == "HTTP/1.1 404 Not Found")
    #expect(try await status("GET /metrics/x \(end)") == "HTTP/1.1 404 Not Found")
    #expect(try await status("HEAD /metrics \(end)").hasPrefix("HTTP/1.1 405"))
    #expect(try await endpoint.exchange("DELETE /metrics \(end)").contains("\r\nallow: GET\r\n"))
    #expect(
      try await status("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello").hasPrefix("HTTP/1.1 413"))
    #expect(try await status("nonsense\r\n\r\n").hasPrefix("HTTP/1.1 400"))
    // Each connection serves one request.
    let twice = try await endpoint.exchange("GET / \(end)GET / \(end)")
    #expect(twice.split(separator: "HTTP/1.1 404").count == 1)
    // Too much is cut off, wherever it stands.
    let long = String(repeating: "x", count: 20_000)
    #expect(!(try await status("GET /\(long) \(end)").contains("200")))
    #expect(!(try await status("GET /metrics HTTP/1.1\r\nhost: x\r\nlong: \(long)\r\n\r\n").contains("200")))
    #expect(try await status("GET /metrics \(end)") == "HTTP/1.1 200 OK")
    #expect(process.pollEnd() == nil)
  }

  @Test("take no more connections than their limit, and are there again when some have closed")
  func connections() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start(environment: ["BLOCKTREE_METRICS_LISTEN=127.0.0.1:0"])
    let endpoint = try await Endpoint(of: node)
    var idle: [any Channel] = []
    for _ in 0..<MetricsEndpoint.Limits.connectionsMax { idle.append(try await endpoint.connect()) }
    // Not before the others have been accepted, which are closed a while later in any case.
    try await eventually { try await endpoint.exchange("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").isEmpty }
    for channel in idle { try? await channel.close() }
    try await eventually {
      try await endpoint.exchange("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").hasPrefix("HTTP/1.1 200")
    }
    #expect(process.pollEnd() == nil)
  }

  /// Where a node says that metrics can be read.
  private struct Endpoint {
    struct Metrics {
      let text: String
      /// By name and labels.
      let values: [String: Double]
    }

    let port: Int

    init(of node: NodeUnderTest) async throws {
      var port: Int?
      try await eventually {
        port = node.logText.firstMatch(of: #/serving metrics.*127\.0\.0\.1:(\d+)/#).flatMap { Int($0.1) }
        return port != nil
      }
      self.port = try #require(port)
    }

    func connect(_ handler: (any ChannelInboundHandler & Sendable)? = nil) async throws -> any Channel {
      try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
        .channelInitializer { channel in
          handler.map { channel.pipeline.addHandler($0) } ?? channel.eventLoop.makeSucceededVoidFuture()
        }
        .connect(host: "127.0.0.1", port: self.port).get()
    }

    /// All that is answered until the other side closes; nothing when it closes at once.
    func exchange(_ request: String) async throws -> String {
      let received = Received()
      let channel = try await self.connect(received)
      try? await channel.writeAndFlush(ByteBuffer(string: request))
      try await channel.closeFuture.get()
      return String(decoding: received.bytes.withLock { $0 }, as: UTF8.self)
    }

    func metrics() async throws -> Metrics {
      let answer = try await self.exchange("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
      let end = try #require(answer.firstRange(of: "\r\n\r\n"), "\(answer)")
      #expect(answer[..<end.lowerBound].contains("content-type: text/plain; version=0.0.4; charset=utf-8"))
      let text = String(answer[end.upperBound...])
      var values: [String: Double] = [:]
      for line in text.split(separator: "\n") where !line.hasPrefix("#") {
        let space = try #require(line.lastIndex(of: " "))
        let name = String(line[..<space])
        #expect(values[name] == nil, "\(name) is there twice")
        let value: Double = try #require(Double(line[line.index(after: space)...]), "\(line)")
        values[name] = value
      }
      return Metrics(text: text, values: values)
    }
  }

  private final class Received: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    let bytes = Mutex<[UInt8]>([])

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      let buffer = self.unwrapInboundIn(data)
      self.bytes.withLock { $0 += buffer.readableBytesView }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
  }
}
