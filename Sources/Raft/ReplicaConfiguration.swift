// SPDX-License-Identifier: Apache-2.0

/// A replica's settings. Those of time must be the same on all members.
public struct ReplicaConfiguration: Hashable, Sendable {
  public var member: MemberID
  public var incarnation: GroupIncarnation
  /// For election timeouts and nonces. Must differ between members and between lives of one: take it from the system's
  /// randomness at each start.
  public var seed: UInt64

  /// How often a leader is heard, at least.
  public var heartbeatInterval: Duration = .milliseconds(30)
  /// How long a follower waits for its leader: at random in this range, anew each time. The lower end should be a few
  /// heartbeat intervals; it is also how long a member stands by the leader that it heard last.
  public var electionTimeout: ClosedRange<Duration> = .milliseconds(150)...(.milliseconds(300))
  /// How far a clock may go wrong. With it, a leader serves reads by lease; without, by a heartbeat round for each.
  public var clockDriftBound: ClockDriftBound?
  /// A write that takes longer means that the disk has stopped answering.
  public var storageStallLimit: Duration = .seconds(1)

  public var entriesPerAppendMax = 1024
  /// An entry beyond this goes alone.
  public var bytesPerAppendMax = 1 << 20
  /// What may be on its way to one follower, unanswered.
  public var appendsInFlightMax = 64
  public var bytesInFlightMax = 16 << 20
  /// What a leader takes before it is committed; beyond, it answers ``ProposalRejection/tooMuchInFlight``.
  public var uncommittedBytesMax = 64 << 20
  public var uncommittedEntriesMax = 1 << 16
  /// How many reads may wait for confirmation.
  public var pendingReadsMax = 1 << 16

  /// Breaks the core on purpose: see `Mutation`.
  package var mutation: Mutation?

  public init(member: MemberID, incarnation: GroupIncarnation, seed: UInt64) {
    self.member = member
    self.incarnation = incarnation
    self.seed = seed
  }
}

/// A bound on clocks: in a real second, each member's clock goes on by `1000 - n` to `1000 + n` milliseconds.
public struct ClockDriftBound: Hashable, Sendable {
  /// 0 to 999.
  public let perThousand: UInt64

  /// Values beyond 999 mean 999, which leaves next to no lease.
  public init(perThousand: UInt64) { self.perThousand = min(perThousand, 999) }

  /// How long a leader may rely on a promise that a follower keeps for `promise` nanoseconds of its own clock.
  ///
  /// The follower's clock may be fast by the bound, and the leader's slow: `(1 - bound) / (1 + bound)` of it.
  package func lease(of promise: UInt64) -> UInt64 {
    let (high, low) = promise.multipliedFullWidth(by: 1000 &- self.perThousand)
    return (1000 &+ self.perThousand).dividingFullWidth((high, low)).quotient
  }
}

/// The settings of time, in nanoseconds.
struct Timing: Hashable, Sendable {
  let heartbeatInterval: UInt64
  let electionTimeoutMin: UInt64
  let electionTimeoutMax: UInt64
  let storageStallLimit: UInt64
  /// Zero: no leases.
  let lease: UInt64

  init(_ configuration: ReplicaConfiguration) {
    self.heartbeatInterval = max(1, configuration.heartbeatInterval.clampedNanoseconds)
    self.electionTimeoutMin = max(1, configuration.electionTimeout.lowerBound.clampedNanoseconds)
    self.electionTimeoutMax = max(self.electionTimeoutMin, configuration.electionTimeout.upperBound.clampedNanoseconds)
    self.storageStallLimit = max(1, configuration.storageStallLimit.clampedNanoseconds)
    self.lease =
      configuration.mutation == .leaseWithoutDriftBound
      ? self.electionTimeoutMin
      : configuration.clockDriftBound?.lease(of: self.electionTimeoutMin) ?? 0
  }
}
