// SPDX-License-Identifier: Apache-2.0

package import Configuration
internal import FoundationEssentials
package import Logging
package import Sectors
internal import SystemPackage
package import Transport
package import Trust

/// The settings of a node while it runs: from flags, then the environment, then a file named by `--config`, then
/// `node.json`. A setting `store.checkpointBytes` is `BLOCKTREE_STORE_CHECKPOINT_BYTES` in the environment, and
/// `{"store": {"checkpointBytes": …}}` in a file. Whatever is malformed keeps the node from starting.
package struct NodeConfiguration: Sendable {
  /// How log lines look.
  package enum LogFormat: String, Sendable, CaseIterable {
    case text, json
  }

  /// `listen`: where to listen; port 0 for any free port.
  package var listen: ListenAddress
  /// `advertise`: what others are told to dial; nil for what the process listens on. It stands in the process's credential
  /// file soon after it has started.
  package var advertise: [NetworkAddress]?
  /// `log.level`: trace, debug, info, notice, warning, error or critical.
  package var logLevel = Logger.Level.info
  /// `log.format`: text or json.
  package var logFormat = LogFormat.text
  /// `threads`: event loops. One busy thread beats two that wake each other, as long as the cores are few.
  package var threads = 1
  /// `shutdown.graceSeconds`: how long calls may go on after SIGTERM.
  package var grace = Duration.seconds(10)
  /// `store.checkpointBytes`: a checkpoint begins when the log has grown by so much.
  package var checkpointBytes = 64 << 20
  /// `cluster.heartbeatMilliseconds`: how often the leader of a cluster is heard. An election begins when it was not
  /// for 5 to 10 times as long. The same on all members.
  package var timing = GroupTiming()
  /// `scrub.rateBytes`: how many bytes of the store are verified in a second, in the background; 0 for none.
  /// `scrub.intervalHours`: from the end of a pass over all of it to the beginning of the next.
  var scrub = ScrubKeeper.Pace(rate: 8 << 20, rest: .seconds(168 * 3_600))
  /// `limits.…`: connections, handshakes, handshakeSeconds, idleSeconds, messageBytes, streamsPerConnection.
  package var limits = TransportLimits()

  /// `metrics.listen`: where metrics can be read, without TLS and by anybody; nil for nowhere. A port alone stands for
  /// that port of 127.0.0.1.
  package var metricsListen: ListenAddress?

  /// The values that flags gave, by setting name.
  package typealias Flags = [String: ConfigContent]

  package init(
    flags: Flags, environment: [String: String], file: String?, directory: NodeDirectory
  ) async throws(NodeError) {
    let reader = try await Self.reader(flags: flags, environment: environment, file: file, directory: directory)
    let description = directory.description
    guard let listen = try await Self.text("listen", reader) else {
      throw .malformed(description, why: "it has no address to listen on")
    }
    guard let address = try? ListenAddress(parsing: listen) else { throw .setting("listen", expected: "HOST:PORT") }
    self.listen = address
    if let level = try await Self.text("log.level", reader) {
      guard let level = Logger.Level(rawValue: level) else {
        throw .setting("log.level", expected: Logger.Level.allCases.map(\.rawValue).joined(separator: ", "))
      }
      self.logLevel = level
    }
    if let format = try await Self.text("log.format", reader) {
      guard let format = LogFormat(rawValue: format) else {
        throw .setting("log.format", expected: LogFormat.allCases.map(\.rawValue).joined(separator: " or "))
      }
      self.logFormat = format
    }
    self.threads = try await Self.number("threads", reader, in: 1...64) ?? self.threads
    if let seconds = try await Self.number("shutdown.graceSeconds", reader, in: 0...3_600) {
      self.grace = .seconds(seconds)
    }
    self.checkpointBytes =
      try await Self.number("store.checkpointBytes", reader, in: (1 << 20)...(1 << 30)) ?? self.checkpointBytes
    if let milliseconds = try await Self.number("cluster.heartbeatMilliseconds", reader, in: 5...10_000) {
      self.timing.heartbeatInterval = .milliseconds(milliseconds)
      self.timing.electionTimeout = .milliseconds(5 * milliseconds)...(.milliseconds(10 * milliseconds))
    }
    if let rate = try await Self.number("scrub.rateBytes", reader, in: 0...(1 << 40)) {
      self.scrub.rate = UInt64(rate)
    }
    if let hours = try await Self.number("scrub.intervalHours", reader, in: 1...8_760) {
      self.scrub.rest = .seconds(hours * 3_600)
    }
    try await self.readLimits(reader)
    self.metricsListen = try await Self.metricsAddress(reader)
    self.advertise = try await Self.addresses("advertise", reader)
  }

  private mutating func readLimits(_ reader: ConfigReader) async throws(NodeError) {
    let bounds: [(String, WritableKeyPath<TransportLimits, Int>, ClosedRange<Int>)] = [
      ("limits.connections", \.maxConnections, 1...65_536),
      ("limits.handshakes", \.maxConcurrentHandshakes, 1...65_536),
      ("limits.messageBytes", \.maxMessageByteCount, (64 << 10)...(64 << 20)),
      ("limits.streamsPerConnection", \.maxConcurrentStreams, 1...65_536),
    ]
    for (name, field, range) in bounds {
      if let number = try await Self.number(name, reader, in: range) { self.limits[keyPath: field] = number }
    }
    if let seconds = try await Self.number("limits.handshakeSeconds", reader, in: 1...600) {
      self.limits.handshakeTimeout = .seconds(seconds)
    }
    if let seconds = try await Self.number("limits.idleSeconds", reader, in: 1...86_400) {
      self.limits.serverIdleTime = .seconds(seconds)
    }
    self.limits.drainTime = self.grace
  }

  // MARK: Reading

  private static func reader(
    flags: Flags, environment: [String: String], file: String?, directory: NodeDirectory
  ) async throws(NodeError) -> ConfigReader {
    var values: [AbsoluteConfigKey: ConfigValue] = [:]
    for (name, content) in flags {
      values[AbsoluteConfigKey(ConfigKey(name))] = ConfigValue(content, isSecret: false)
    }
    var providers: [any ConfigProvider] = [
      InMemoryProvider(name: "flags", values: values),
      EnvironmentVariablesProvider(environmentVariables: environment).prefixKeys(with: "blocktree"),
    ]
    for path in [file, directory.description].compactMap({ $0 }) {
      do {
        providers.append(try await FileProvider<JSONSnapshot>(filePath: FilePath(path)))
      } catch {
        if OwnerFiles.exists(path) { throw .malformed(path, why: "it is not JSON: \(error)") }
        throw path == directory.description ? .notANode(directory.path) : .missing(path)
      }
    }
    return ConfigReader(providers: providers)
  }

  private static func text(_ name: String, _ reader: ConfigReader) async throws(NodeError) -> String? {
    do { return try await reader.fetchString(forKey: ConfigKey(name)) } catch {
      throw .setting(name, expected: "text")
    }
  }

  private static func number(
    _ name: String, _ reader: ConfigReader, in range: ClosedRange<Int>
  ) async throws(NodeError) -> Int? {
    let number: Int?
    do { number = try await reader.fetchInt(forKey: ConfigKey(name)) } catch {
      throw .setting(name, expected: "a number")
    }
    guard let number else { return nil }
    guard range.contains(number) else {
      throw .setting(name, expected: "from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  private static func metricsAddress(_ reader: ConfigReader) async throws(NodeError) -> ListenAddress? {
    let name = "metrics.listen"
    guard let text = try await Self.text(name, reader), !text.isEmpty else { return nil }
    let address = text.contains(":") ? text : "127.0.0.1:\(text)"
    do { return try ListenAddress(parsing: address) } catch { throw .setting(name, expected: "HOST:PORT or PORT") }
  }

  private static func addresses(_ name: String, _ reader: ConfigReader) async throws(NodeError) -> [NetworkAddress]? {
    let texts: [String]?
    do { texts = try await reader.fetchStringArray(forKey: ConfigKey(name)) } catch {
      throw .setting(name, expected: "a list of HOST:PORT")
    }
    guard let texts else { return nil }
    var addresses: [NetworkAddress] = []
    for text in texts {
      guard let address = try? NetworkAddress(parsing: text) else {
        throw .setting(name, expected: "a list of HOST:PORT")
      }
      addresses.append(address)
    }
    return addresses
  }
}
