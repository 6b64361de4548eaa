// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import FoundationEssentials
internal import Raft
internal import SectorStore
internal import Sectors
internal import Telemetry
internal import Transport
internal import Trust

/// What a node tells about itself when it is asked for metrics: what was counted since it began, and how all is at this
/// moment.
///
/// Paths of processes and member ids are in labels; names, principals and contents of the tree, addresses and keys are
/// not.
struct NodeMetrics: Sendable {
  typealias Label = MetricFamily.Label
  typealias Sample = MetricFamily.Sample

  /// What is counted as it happens.
  let registry: MetricsRegistry
  let start: Start
  /// This process, as a label has it.
  let process: DomainPath
  let connections: ConnectionSource
  /// Nil in a gateway, and while the process waits to be made a member.
  let group: SectorGroup?
  /// Nil where there is none.
  let filesystem: Filesystem?
  /// Nil where no store is looked after.
  let scrub: ScrubKeeper?

  /// When the node began.
  struct Start: Sendable {
    let instant = ContinuousClock.now
    let date = WallClock.date()
  }

  static func makeRegistry() -> MetricsRegistry {
    MetricsRegistry(CallMetrics.descriptions.merging(LeaderWatch.descriptions) { first, _ in first })
  }

  /// Asks the disk how much is free, so it may block. Works while the store has failed, too.
  func text() -> [UInt8] {
    var families = self.nodeFamilies() + self.connectionFamilies()
    if let group {
      families += self.storeFamilies(group) + self.clusterFamilies(group)
    }
    families += self.contentFamilies()
    if let scrub { families += self.scrubFamilies(scrub) }
    return ExpositionText(families + self.registry.families()).bytes
  }

  private func nodeFamilies() -> [MetricFamily] {
    let (seconds, attoseconds) = (ContinuousClock.now - self.start.instant).components
    #if DEBUG
      let build = "debug"
    #else
      let build = "release"
    #endif
    return [
      MetricFamily(
        "blocktree_build_info", .gauge, help: "Always 1; the labels say what was built, and how.",
        [Sample([Label("build", build), Label("schema", "blocktree.v1")], .integer(1))]),
      MetricFamily(
        "blocktree_node_info", .gauge, help: "Always 1; the labels say which process this is.",
        [
          Sample(
            [Label("domain", "\(self.process.domain)"), Label("process", "\(self.process.path)")], .integer(1))
        ]),
      MetricFamily(
        "process_start_time_seconds", .gauge, help: "When the node began, in seconds since 1970.",
        .number(self.start.date.timeIntervalSince1970)),
      MetricFamily(
        "blocktree_uptime_seconds", .gauge, help: "Since the node began.",
        .number(Double(seconds) + Double(attoseconds) / 1e18)),
      MetricFamily(
        "blocktree_is_member", .gauge,
        help: "0 in a gateway, and while the process waits to be made a member of its cluster.",
        .init(self.group != nil)),
    ]
  }

  private func connectionFamilies() -> [MetricFamily] {
    let handshakes = self.connections.counts.handshakes
    let identities = self.connections.identities
    let anonymous = identities.count { $0.caller.credential == nil }
    return [
      MetricFamily(
        "blocktree_connections", .gauge, help: "Open connections from callers.",
        [
          Sample([Label("caller", "anonymous")], .integer(UInt64(anonymous))),
          Sample([Label("caller", "principal")], .integer(UInt64(identities.count - anonymous))),
        ]),
      MetricFamily(
        "blocktree_handshakes", .gauge, help: "TLS handshakes under way.", .integer(UInt64(handshakes))),
    ]
  }

  // MARK: Contents

  /// Which services have handed out contents, sealed or not.
  private func contentFamilies() -> [MetricFamily] {
    var families: [MetricFamily] = []
    if let group {
      families.append(
        MetricFamily(
          "blocktree_sealed_bytes_sent_total", .counter,
          help: "Bytes of sealed sectors and tree nodes that the sector service has handed out.",
          .integer(group.sealedByteCountSent)))
    }
    if let filesystem {
      families.append(
        MetricFamily(
          "blocktree_plain_bytes_sent_total", .counter,
          help: "Bytes of files that the filesystem service has handed out.",
          .integer(filesystem.plainByteCountSent)))
    }
    return families
  }

  // MARK: Verifying

  private func scrubFamilies(_ scrub: ScrubKeeper) -> [MetricFamily] {
    let (status, healed) = (scrub.scrubStatus, scrub.healed)
    func gauge(_ name: String, _ help: String, _ value: UInt64) -> MetricFamily {
      MetricFamily("blocktree_scrub_\(name)", .gauge, help: help, .integer(value))
    }
    let last = status.last
    return [
      gauge("running", "Whether a pass over the store goes on.", status.running == nil ? 0 : 1),
      gauge("verified_bytes", "What the pass that goes on has verified.", status.running?.verifiedByteCount ?? 0),
      gauge(
        "last_end_time_seconds", "When the last pass ended, in seconds since 1970; 0 before the first.",
        UInt64(clamping: last?.end ?? 0)),
      gauge("last_verified_bytes", "What the last pass has verified.", last?.verifiedByteCount ?? 0),
      gauge("last_found", "Places that the last pass has found damaged.", last?.foundCount ?? 0),
      gauge(
        "damaged", "Places that are damaged and could not be healed so far.",
        UInt64(status.damages.count) + status.omittedCount),
      MetricFamily(
        "blocktree_scrub_healed_total", .counter,
        help: "Places that were healed since the node began or had a new store.",
        .integer(healed.healed)),
    ]
  }

  // MARK: The store

  private func storeFamilies(_ group: SectorGroup) -> [MetricFamily] {
    let (disk, store) = (group.status(), group.store.status())
    func gauge(_ name: String, _ help: String, _ value: UInt64) -> MetricFamily {
      MetricFamily("blocktree_store_\(name)", .gauge, help: help, .integer(value))
    }
    return [
      gauge("up", "0 when the store has failed and refuses everything.", store.failure == nil ? 1 : 0),
      gauge("applied_index", "The last log entry that was applied.", disk.appliedIndex),
      gauge("checkpoint_index", "The last log entry that the checkpoint has.", store.checkpointIndex.rawValue),
      gauge(
        "checkpoint_failing", "1 when the last checkpoint could not be written.", store.checkpointError == nil ? 0 : 1),
      gauge("log_bytes", "Bytes that the log takes on the disk.", disk.logBytes),
      gauge("used_bytes", "Bytes of sectors and tree nodes in use.", disk.usedBytes),
      gauge("allocated_bytes", "Bytes of data files on the disk.", disk.allocatedBytes),
      gauge("free_bytes", "Bytes that data files may still grow by.", disk.diskFreeBytes),
      gauge("inodes", "Inodes with a record.", disk.inodes),
      gauge("sessions", "Sessions that are remembered.", UInt64(store.sessionCount)),
      gauge("queue_entries", "Changes that wait for the writer.", UInt64(store.queuedCount)),
      gauge("queue_bytes", "Bytes of the changes that wait for the writer.", UInt64(store.queuedBytes)),
    ]
  }

  // MARK: The cluster

  private func clusterFamilies(_ group: SectorGroup) -> [MetricFamily] {
    let status = group.clusterStatus()
    let replica = status.replica
    func gauge(_ name: String, _ help: String, _ value: MetricFamily.Value) -> MetricFamily {
      MetricFamily("blocktree_cluster_\(name)", .gauge, help: help, value)
    }
    let role = Self.name(replica.leadership.role)
    return [
      MetricFamily(
        "blocktree_cluster_role", .gauge, help: "1 for the part that this process has.",
        Self.roles.map { Sample([Label("role", $0)], .init($0 == role)) }),
      gauge("is_leader", "1 while this process leads.", .init(replica.leadership.role == .leader)),
      gauge("has_leader", "1 while this process knows who leads.", .init(replica.leadership.leader != nil)),
      gauge("term", "The term of the consensus.", .integer(replica.leadership.term.rawValue)),
      gauge("last_index", "The last entry of the log, committed or not.", .integer(replica.last.index.rawValue)),
      gauge("commit_index", "The last entry that is known to be committed.", .integer(replica.commit.rawValue)),
      gauge("applied_index", "The last entry that was applied.", .integer(status.applied)),
      gauge("persisted_index", "Through where the own disk has the log.", .integer(replica.persisted.rawValue)),
      gauge("is_writable", "0 when the own disk takes no more.", .init(replica.isWritable)),
      gauge("membership_pending", "1 while a change of the membership goes on.", .init(replica.membershipIsPending)),
      self.members(status),
    ] + self.progress(status)
  }

  private func members(_ status: ClusterStatus) -> MetricFamily {
    let learners = status.members.count { $0.vote == .learner }
    return MetricFamily(
      "blocktree_cluster_members", .gauge, help: "Members as this process knows them, by whether they vote.",
      [
        Sample([Label("kind", "voter")], .integer(UInt64(status.members.count - learners))),
        Sample([Label("kind", "learner")], .integer(UInt64(learners))),
      ])
  }

  /// As the leader sees it; others know nothing of it, and say nothing.
  private func progress(_ status: ClusterStatus) -> [MetricFamily] {
    var (lag, silence, match): ([Sample], [Sample], [Sample]) = ([], [], [])
    for member in status.members {
      guard let progress = member.progress else { continue }
      let labels = [
        Label("member", "\(member.id.rawValue)"), Label("process", member.process.map { "\($0)" } ?? ""),
      ]
      let (seconds, attoseconds) = progress.silence.components
      lag.append(Sample(labels, .integer(progress.lag)))
      match.append(Sample(labels, .integer(progress.match.rawValue)))
      silence.append(Sample(labels, .number(Double(seconds) + Double(attoseconds) / 1e18)))
    }
    return [
      MetricFamily(
        "blocktree_cluster_member_lag_entries", .gauge,
        help: "Entries that are not known to be durable at a member; from the leader only.", lag),
      MetricFamily(
        "blocktree_cluster_member_match_index", .gauge,
        help: "The last entry that is known to be durable at a member; from the leader only.", match),
      MetricFamily(
        "blocktree_cluster_member_silence_seconds", .gauge,
        help: "Since a member was heard last; from the leader only.", silence),
    ]
  }

  private static let roles = [Role.follower, .preCandidate, .candidate, .leader].map(name)

  private static func name(_ role: Role) -> String {
    switch role {
    case .follower: "follower"
    case .preCandidate: "pre_candidate"
    case .candidate: "candidate"
    case .leader: "leader"
    }
  }
}
