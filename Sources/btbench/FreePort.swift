// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix

enum FreePort {
  /// A port of the loopback interface that nobody listens on at this moment.
  static func find() async throws -> Int {
    let channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
      .bind(host: "127.0.0.1", port: 0).get()
    let port = channel.localAddress?.port
    try await channel.close()
    guard let port else { throw BenchFailure("there is no free port") }
    return port
  }
}
