// SPDX-License-Identifier: Apache-2.0

package import Routes

/// How a client behaves.
public struct ClientConfiguration: Hashable, Sendable {
  /// For each operation, repetitions included; nil for no limit. Transfers of any length have none of their own: cancel
  /// their task.
  public var timeout: Duration?
  /// How long operations wait for a process to become reachable, when none is.
  public var connectionPatience: Duration
  /// The same, for operations that had reached one: it may be starting again.
  public var reconnectionPatience: Duration
  /// Whom to ask where the profile has a name in DNS: `address:port` each, at most 8. Empty for the servers of the system.
  public var dnsServers: [String]

  public init(
    timeout: Duration? = .seconds(30), connectionPatience: Duration = .seconds(10),
    reconnectionPatience: Duration = .seconds(10), dnsServers: [String] = []
  ) {
    self.timeout = timeout
    self.connectionPatience = connectionPatience
    self.reconnectionPatience = reconnectionPatience
    self.dnsServers = dnsServers
  }
}

/// Connects with what a profile says, calls `body`, and closes the connections when that returns.
///
/// ```swift
/// let profile = try Profile(contentsOf: directory)
/// try await withClient(profile) { client in
///   for try await entry in client.list("/") { print(entry.name) }
/// }
/// ```
///
/// Nothing is sent before the first operation.
public func withClient<Result>(
  _ profile: Profile, configuration: ClientConfiguration = ClientConfiguration(),
  _ body: (Client) async throws -> Result
) async throws -> Result {
  try await withClient(Client(profile, configuration: configuration), body)
}

/// The same with a clock for what the client remembers of who serves what.
package func withClient<Result>(
  _ profile: Profile, configuration: ClientConfiguration = ClientConfiguration(),
  now: @escaping @Sendable () -> RouteTime, _ body: (Client) async throws -> Result
) async throws -> Result {
  try await withClient(Client(profile, configuration: configuration, now: now), body)
}

private func withClient<Result>(_ client: Client, _ body: (Client) async throws -> Result) async throws -> Result {
  try await withThrowingTaskGroup(of: Void.self) { group in
    group.addTask { await client.run() }
    let result: Result
    do {
      result = try await body(client)
    } catch {
      group.cancelAll()
      throw error
    }
    client.core.beginGracefulShutdown()
    group.addTask { try? await Task.sleep(for: .seconds(1)) }
    _ = await group.nextResult()
    group.cancelAll()
    return result
  }
}

/// A client of one domain. Make it with ``withClient(_:configuration:_:)``, or make it and run it as a service of your
/// program.
///
/// It is a value: copies share their connections, and each may have its own ``timeout``.
public struct Client: FileOperations {
  let core: ClientCore

  /// For each operation through this copy of the client; see ``ClientConfiguration/timeout``.
  public var timeout: Duration?

  /// Makes a client that works while ``run()`` runs.
  public init(_ profile: Profile, configuration: ClientConfiguration = ClientConfiguration()) throws {
    let origin = ContinuousClock.now
    try self.init(profile, configuration: configuration) { RouteTime(nanoseconds: 0) + (ContinuousClock.now - origin) }
  }

  /// - Parameter now: the present time for what is remembered of who serves what, on a clock that never goes back.
  package init(_ profile: Profile, configuration: ClientConfiguration, now: @escaping @Sendable () -> RouteTime) throws
  {
    self.core = try ClientCore(profile, configuration, now: now)
    self.timeout = configuration.timeout
  }

  /// Keeps the client's connections, until the task is cancelled. Call it once.
  public func run() async {
    await self.core.run()
  }

  /// The profile that the client was made with.
  public var profile: Profile { self.core.profile }

  public var domain: String { self.core.profile.domain }

  /// Runs `body` on the thread of the client's connections. Its calls need no hop between threads then, which makes
  /// many small ones several times as fast. It must not block: no waiting for disks, no long computations.
  public func onEventLoop<Result, Failure: Error>(
    _ body: () async throws(Failure) -> Result
  ) async throws(Failure) -> Result {
    try await withTaskExecutorPreference(self.core.executor, operation: body)
  }
}
