// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema

/// `btrpc cluster status`
package struct ClusterStatusCommand: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Say how a cluster and each of its processes are.",
    discussion: """
      Lag counts the log entries that the leader does not know to be on a process's disk, and Heard says how long ago it \
      heard from it: only a leader knows these. All else is what each process says of itself; one that does not answer \
      within two seconds is shown without it.

      EXAMPLES:
        btrpc cluster status
        btrpc cluster status --path /site-b
        btrpc --json cluster status | jq -r '.members[] | select(.lag > 1000).process'
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var scope: ClusterScope

  package init() {}

  package func run(_ client: Client) async throws {
    let report = ClusterReport(try await self.scope.cluster(client).overview())
    if self.options.json { return try JSONOutput.print(report) }
    for line in report.lines { try Standard.line(line) }
  }
}

/// What `btrpc cluster status` prints.
package struct ClusterReport: Encodable {
  package struct Member: Encodable {
    var id: String
    var process: String
    var addresses: [String]
    var vote: String
    // What the leader says; absent without one.
    var matchIndex: UInt64?
    var nextIndex: UInt64?
    var lag: UInt64?
    var silenceMilliseconds: UInt64?
    var replication: String?
    // What it says itself; absent when it does not answer.
    var role: String?
    var term: UInt64?
    var commitIndex: UInt64?
    var appliedIndex: UInt64?
    var lastLogIndex: UInt64?
    var isWritable: Bool?
    var usedBytes: UInt64?
    var allocatedBytes: UInt64?
    var freeBytes: UInt64?
    var logBytes: UInt64?
    var scrub: Scrub?
    /// Stores in its directory that it has given up, for people to look at and to remove.
    var storesSetAside: [String]?
    /// Why its store does not work, or it did not answer.
    var problem: String?
    /// What there is to say beside the table.
    fileprivate var remarks: [String] = []

    private enum CodingKeys: String, CodingKey {
      case id, process, addresses, vote, matchIndex, nextIndex, lag, silenceMilliseconds, replication, role, term
      case commitIndex, appliedIndex, lastLogIndex, isWritable, usedBytes, allocatedBytes, freeBytes, logBytes
      case scrub, storesSetAside, problem
    }
  }

  /// How a process has verified what it stores.
  package struct Scrub: Encodable {
    package struct Pass: Encodable {
      var number: UInt64
      /// RFC 3339.
      var start: String
      var end: String?
      var verifiedBytes: UInt64
      var expectedBytes: UInt64
      var found: UInt64
      var healed: UInt64

      init(_ pass: Blocktree_V1_ClusterScrubPass) {
        self.number = pass.number
        self.start = Timestamp(clampingSeconds: Double(pass.startTime)).description
        self.end = pass.endTime == 0 ? nil : Timestamp(clampingSeconds: Double(pass.endTime)).description
        self.verifiedBytes = pass.verifiedBytes
        self.expectedBytes = pass.expectedBytes
        self.found = pass.found
        self.healed = pass.healed
      }
    }

    /// For the table.
    fileprivate var state: String
    var running: Pass?
    var last: Pass?
    /// What is damaged, and not healed.
    var damages: [String]
    var omittedDamages: UInt64

    private enum CodingKeys: String, CodingKey { case running, last, damages, omittedDamages }

    init(_ scrub: Blocktree_V1_ClusterScrub) {
      self.state = ScrubText.state(scrub)
      self.running = scrub.hasRunning ? Pass(scrub.running) : nil
      self.last = scrub.hasLast ? Pass(scrub.last) : nil
      self.damages = scrub.damages.map(ScrubText.line)
      self.omittedDamages = scrub.omittedDamages
    }
  }

  var generation: UInt64
  /// 1, and one more with each recovery.
  var incarnation: UInt64
  /// Whose view this is: the leader's, if it answers.
  var answeredBy: String
  var term: UInt64
  /// Who leads according to that view.
  var leader: String?
  var commitIndex: UInt64
  var lastLogIndex: UInt64
  var membershipIndex: UInt64
  var membershipIsChanging: Bool
  var transferTarget: String?
  var members: [Member]

  package init(_ overview: ClusterOverview) {
    let view = overview.view
    self.generation = view.generation
    self.incarnation = max(view.incarnation, 1)
    self.answeredBy = view.process
    self.term = view.term
    self.leader = view.hasLeader ? view.leader.process : nil
    self.commitIndex = view.commitIndex
    self.lastLogIndex = view.lastLogIndex
    self.membershipIndex = view.membershipIndex
    self.membershipIsChanging = view.membershipIsChanging
    self.transferTarget = view.members.first { $0.member == view.transferTarget }?.process
    self.members = overview.members.map(Member.init)
  }

  /// Nothing in the first life.
  private var incarnationText: String { self.incarnation > 1 ? "incarnation \(self.incarnation), " : "" }

  private var leaderText: String {
    guard let leader else { return "none is known; this is what \(self.answeredBy) says" }
    return leader == self.answeredBy ? leader : "\(leader), which does not say so; this is what \(self.answeredBy) says"
  }

  /// For people.
  package var lines: [String] {
    var rows = [
      ["generation:", "\(self.generation), \(self.incarnationText)term \(self.term)"],
      ["leader:", self.leaderText],
      ["log:", "committed to \(self.commitIndex), ends at \(self.lastLogIndex)"],
    ]
    if self.membershipIsChanging { rows.append(["membership:", "is changing"]) }
    if let target = self.transferTarget { rows.append(["leadership:", "is being handed over to \(target)"]) }
    let header = ["Process", "Role", "Term", "Applied", "Lag", "Heard", "Used", "Log", "Free", "Scrubbed"]
    var lines = Format.table(rows.map { $0.map(Terminal.escaped) })
    lines.append("")
    lines += Format.table([header] + self.members.map(\.cells), right: [2, 3, 4, 5, 6, 7, 8])
    let problems = self.members.filter { $0.problem != nil }
    if !problems.isEmpty { lines.append("") }
    for member in problems { lines.append(Terminal.escaped("\(member.name): \(member.problem ?? "")")) }
    let remarks = self.members.flatMap { member in member.remarks.map { "\(member.name): \($0)" } }
    if !remarks.isEmpty { lines.append("") }
    lines += remarks.map(Terminal.escaped)
    return lines
  }
}

extension ClusterReport.Member {
  init(_ member: ClusterOverview.Member) {
    let known = member.member
    self.id = Format.hex(withUnsafeBytes(of: known.member.bigEndian, Array.init))
    self.process = known.process
    self.addresses = known.addresses
    self.vote =
      switch known.vote {
      case .voter: "voter"
      case .coming: "coming"
      case .going: "going"
      case .learner: "learner"
      case .unspecified, .UNRECOGNIZED: "unknown"
      }
    if known.hasProgress {
      let progress = known.progress
      self.matchIndex = progress.matchIndex
      self.nextIndex = progress.nextIndex
      self.lag = progress.lag
      self.silenceMilliseconds = progress.silenceMs
      self.replication =
        switch progress.replication {
        case .probing: "probing"
        case .replicating: "replicating"
        case .snapshot: "snapshot"
        case .unspecified, .UNRECOGNIZED: "unknown"
        }
      self.isWritable = progress.isWritable
    }
    switch member.own {
    case .success(let own): self.note(own)
    case .failure(let error): self.problem = Self.sentence(for: error)
    }
  }

  private mutating func note(_ own: Blocktree_V1_ClusterServiceGetStatusResponse) {
    self.role =
      switch own.role {
      case .leader: "leader"
      case .candidate: "candidate"
      case .follower: "follower"
      case .unspecified, .UNRECOGNIZED: "unknown"
      }
    self.term = own.term
    self.commitIndex = own.commitIndex
    self.appliedIndex = own.appliedIndex
    self.lastLogIndex = own.lastLogIndex
    // It knows better than the leader.
    self.isWritable = own.isWritable
    self.usedBytes = own.disk.usedBytes
    self.allocatedBytes = own.disk.allocatedBytes
    self.freeBytes = own.disk.freeBytes
    self.logBytes = own.disk.logBytes
    if own.hasScrub {
      self.scrub = ClusterReport.Scrub(own.scrub)
      if own.scrub.last.found > 0 { self.remarks.append(ScrubText.summary(own.scrub.last)) }
      self.remarks += own.scrub.damages.map { "damaged: \(ScrubText.line($0))" }
      if own.scrub.omittedDamages > 0 { self.remarks.append("damaged: \(own.scrub.omittedDamages) more") }
    }
    if !own.storesSetAside.isEmpty {
      self.storesSetAside = own.storesSetAside
      self.remarks += own.storesSetAside.map { "a former store is kept as \($0); remove it when it is not needed" }
    }
    if !own.storeFailure.isEmpty {
      self.problem = "its store does not work: \(own.storeFailure)"
    } else if !own.isWritable {
      self.problem = "it can not write at present; is its disk full, or does it hang?"
    }
  }

  /// Why a member did not say how it is.
  static func sentence(for error: BlocktreeError) -> String {
    switch error.code {
    case .deadlineExceeded: "it does not answer"
    case .unimplemented: "it has no store yet, or is older than this program"
    default: error.message.hasSuffix(".") ? String(error.message.dropLast()) : error.message
    }
  }

  /// The path, or the id where that is not known.
  fileprivate var name: String { self.process.isEmpty ? self.id : self.process }

  fileprivate var cells: [String] {
    // What there is to say beside the role of an ordinary member. A learner does nothing but follow.
    let vote = self.vote == "voter" ? nil : self.vote
    let snapshot = self.replication == "snapshot" ? "snapshot" : nil
    let role = [self.role == "follower" && vote == "learner" ? nil : self.role ?? "?", vote, snapshot].compactMap { $0 }
    func size(_ bytes: UInt64?) -> String { bytes.map(Format.size) ?? "" }
    return [
      Terminal.escaped(self.name), role.joined(separator: ", "), self.term.map { "\($0)" } ?? "",
      self.appliedIndex.map { "\($0)" } ?? "", self.lag.map { "\($0)" } ?? "",
      self.silenceMilliseconds.map { Format.duration(.milliseconds(Int64(clamping: $0))) } ?? "",
      size(self.usedBytes), size(self.logBytes), size(self.freeBytes), self.scrub?.state ?? "",
    ]
  }
}
