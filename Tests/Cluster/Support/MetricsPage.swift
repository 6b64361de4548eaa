// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

/// What a node tells of itself when it is asked for metrics.
struct MetricsPage {
  private let lines: [Substring]

  /// More is no page of a node.
  private static let byteCountMax = 4 << 20

  static func read(from host: String, port: Int) async throws -> MetricsPage {
    let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .connect(host: host, port: port) { channel in
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
      return String(buffer: answer)
    }
    guard answer.hasPrefix("HTTP/1.1 200") else { throw ClusterFailure("no metrics: \(answer.prefix(80))") }
    return MetricsPage(lines: answer.split(whereSeparator: \.isNewline))
  }

  /// The sum of all samples of this name that have all of these labels; 0 when there is none.
  func sum(of name: String, _ labels: [String: String]) -> Double {
    self.lines.reduce(0) { sum, line in
      guard line.hasPrefix(name), let next = line.dropFirst(name.count).first, next == " " || next == "{",
        labels.allSatisfy({ line.contains("\($0.key)=\"\($0.value)\"") }),
        let value = line.split(separator: " ").last.flatMap({ Double($0) })
      else { return sum }
      return sum + value
    }
  }
}
