// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Configuration
internal import Foundation
internal import Logging
internal import Node
internal import Transport
internal import Trust

/// `btnode run`
struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves until SIGTERM.",
    discussion: """
      Prints one line on standard output when it serves: 'ready', the domain's id, the process's path, and the address.
      Log lines go to standard error.

      Settings come from flags, then from the environment (BLOCKTREE_LOG_LEVEL), then from the file of --config
      ({"log": {"level": "debug"}}), then from DIR/node.json:

        listen, advertise, threads, log.level, log.format, shutdown.graceSeconds, store.checkpointBytes,
        metrics.listen, limits.connections, limits.handshakes, limits.handshakeSeconds, limits.idleSeconds,
        limits.messageBytes, limits.streamsPerConnection

      Other TLS stacks check the process by the name that 'btnode init' printed:

        buf curl --protocol grpc --cacert DIR/root.pem --servername NAME \\
          https://HOST:PORT/grpc.health.v1.Health/Check

      and show the person's certificate with --cert DIR/profile/credential.pem --key DIR/profile/key.pem.
      """)

  @OptionGroup var place: DirectoryOption

  @Option(help: ArgumentHelp("A file of settings, as JSON.", valueName: "file"), completion: .file())
  var config: String?

  @Option(help: ArgumentHelp("Where to listen; port 0 takes a free one.", valueName: "host:port"))
  var listen: ListenAddress?

  @Option(help: "trace, debug, info, notice, warning, error or critical.", transform: Self.level)
  var logLevel: Logger.Level?

  @Option(help: "text or json.")
  var logFormat: NodeConfiguration.LogFormat?

  @Option(help: ArgumentHelp("How long calls may go on after SIGTERM.", valueName: "seconds"))
  var grace: Int?

  @Option(help: ArgumentHelp("Event loops.", valueName: "count"))
  var threads: Int?

  @Option(help: ArgumentHelp("Bytes of log after which a checkpoint begins.", valueName: "bytes"))
  var checkpointBytes: Int?

  func run() async throws {
    let directory = NodeDirectory(self.place.directory)
    let configuration = try await withOptions(self.givenOptions) {
      try await NodeConfiguration(
        flags: self.flags, environment: ProcessInfo.processInfo.environment, file: self.config, directory: directory)
    }
    let logger = Logger(label: "btnode") { _ in
      LineLogHandler(level: configuration.logLevel, format: configuration.logFormat)
    }
    try await Node(directory, configuration, logger: logger).run { ready in
      let addresses = ready.addresses.map(\.description).joined(separator: " ")
      Output.line("ready \(ready.domain) \(ready.process) \(addresses)")
    }
  }

  private static func level(_ text: String) throws -> Logger.Level {
    guard let level = Logger.Level(rawValue: text) else {
      throw ValidationError("'\(text)' is not one of \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).")
    }
    return level
  }

  private static let optionNames = [
    "listen": "--listen", "log.level": "--log-level", "log.format": "--log-format", "shutdown.graceSeconds": "--grace",
    "threads": "--threads", "store.checkpointBytes": "--checkpoint-bytes",
  ]

  /// Those that were there. They come before all other sources: a setting that is one of them has its value from it.
  private var givenOptions: [String: String] {
    let flags = self.flags
    return Self.optionNames.filter { flags[$0.key] != nil }
  }

  private var flags: NodeConfiguration.Flags {
    var flags: NodeConfiguration.Flags = [:]
    if let listen { flags["listen"] = .string(listen.description) }
    if let logLevel { flags["log.level"] = .string(logLevel.rawValue) }
    if let logFormat { flags["log.format"] = .string(logFormat.rawValue) }
    if let grace { flags["shutdown.graceSeconds"] = .int(grace) }
    if let threads { flags["threads"] = .int(threads) }
    if let checkpointBytes { flags["store.checkpointBytes"] = .int(checkpointBytes) }
    return flags
  }
}

extension NodeConfiguration.LogFormat: ExpressibleByArgument {}
