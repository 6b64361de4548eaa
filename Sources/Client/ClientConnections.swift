// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix
internal import Routes
internal import Transport
internal import Trust

/// What all clusters of one client share: who it is, its connections, and what it has heard of clusters' lives.
final class ClientConnections: Sendable {
  let profile: Profile
  let configuration: ClientConfiguration
  /// Runs tasks on the event loop that all connections of the client are on.
  let executor: EventLoopExecutor
  let lives: KnownLives
  let pool: ConnectionPool
  /// The present time, for what is remembered of who serves what.
  let now: @Sendable () -> RouteTime
  let answers: FindAnswers
  /// Asks DNS when nobody can be reached; nil when the profile has no name to ask for.
  let bootstrap: Bootstrap?

  /// How long a process that could not be reached is left alone at most.
  private static let maxBackoff: Duration = .milliseconds(500)

  init(
    _ profile: Profile, _ configuration: ClientConfiguration, now: @escaping @Sendable () -> RouteTime
  ) throws(BlocktreeError) {
    let identity = profile.caller.map {
      TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing)
    }
    let security: TransportSecurity
    do {
      security = try TransportSecurity(root: profile.root, identity: identity)
    } catch {
      throw BlocktreeError(error)
    }
    let servers = configuration.dnsServers
    self.bootstrap = try profile.dnsName.map { (name) throws(BlocktreeError) in try Bootstrap(name, servers: servers) }
    self.profile = profile
    self.configuration = configuration
    self.now = now
    self.answers = FindAnswers(now: now)
    // One loop, so that tasks which run on it reach every connection without waking another thread.
    let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
    self.executor = EventLoopExecutor(eventLoop)
    var limits = TransportLimits()
    // A process that starts again is to be found soon. How often calls ask for it is bounded by their own pauses.
    limits.maxBackoff = Self.maxBackoff
    let lives = KnownLives(of: profile.directory, root: profile.root)
    self.lives = lives
    self.pool = ConnectionPool(
      Dialer(
        security, group: eventLoop, limits: limits,
        // A process serves the directory that its credential lies in.
        interceptorsForPeer: { [LifeCheck(lives: lives, directory: $0.path.parent ?? .root)] }))
  }

  var isAnonymous: Bool { self.profile.caller == nil }
}
