// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix

/// How many calls a node has answered, by its metrics.
struct CallCounts: Sendable {
  /// Of the loopback interface, as the node's `metrics.listen` says.
  let port: Int

  /// More is no page of a node.
  private static let byteCountMax = 4 << 20

  /// Calls of a method that have ended, however they did.
  ///
  /// - Parameter method: with its service: `blocktree.v1.FilesystemService/Read`.
  func count(of method: String) async throws -> Int {
    // blocktree_calls_total{method="…",status="OK"} 12
    let lines = try await self.page().split(separator: "\n").filter {
      $0.hasPrefix("blocktree_calls_total{") && $0.contains("\"\(method)\"")
    }
    return lines.reduce(0) { sum, line in sum + (line.split(separator: " ").last.flatMap { Int($0) } ?? 0) }
  }

  private func page() async throws -> String {
    let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .connect(host: "127.0.0.1", port: self.port) { channel in
        channel.eventLoop.makeCompletedFuture {
          try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
        }
      }
    let answer = try await channel.executeThenClose { inbound, outbound in
      try await outbound.write(ByteBuffer(string: "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))
      var answer = ByteBuffer()
      // The node closes the connection after one answer.
      for try await part in inbound where answer.readableBytes < Self.byteCountMax {
        answer.writeImmutableBuffer(part)
      }
      return answer
    }
    return String(buffer: answer)
  }
}
