// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
package import BlocktreeSchema

/// `btrpc cluster scrub`
package struct ClusterScrub: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "scrub",
    abstract: "Verify now what each process of a cluster stores, and heal what is damaged.",
    discussion: """
      Each process verifies its own copy by itself from time to time, slowly. This begins a pass at once, at all \
      processes, or with --address at the one that answers there. What is damaged is healed from the other processes. \
      'btrpc cluster status' shows how far it is, and what can not be healed. It takes the owner of the directory that \
      the cluster serves.

      With --wait, the command ends when all are done, and with status 1 when something is left that is damaged.

      EXAMPLES:
        btrpc cluster scrub --wait
        btrpc cluster scrub --path /site-b
        btrpc cluster scrub --rate 100 --address 192.0.2.7:7777
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var scope: ClusterScope

  @Flag(help: "Wait until all are done, and say what was found.")
  var wait = false

  @Option(help: ArgumentHelp("How fast, in MiB a second (default: as each process is set).", valueName: "rate"))
  var rate: UInt64 = 0

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  /// For a process that has stopped answering: it may be getting a new store.
  private static let patience = Duration.seconds(300)

  package init() {}

  package func validate() throws {
    guard self.rate <= 1 << 20 else { throw ValidationError("The rate is a number of MiB, at most 1048576.") }
  }

  package func run(_ client: Client) async throws {
    let cluster = try await self.scope.cluster(client)
    let members = try await self.members(cluster)
    var results = await withTaskGroup(of: (Int, ScrubResult).self) { tasks in
      for (number, member) in members.enumerated() {
        tasks.addTask { (number, await self.begin(member, cluster)) }
      }
      return await tasks.reduce(into: [Int: ScrubResult]()) { $0[$1.0] = $1.1 }
    }
    if self.wait { await self.await(members, &results, cluster) }
    let sorted = members.indices.compactMap { results[$0] }
    if self.options.json {
      try JSONOutput.print(sorted)
    } else {
      for line in sorted.flatMap(\.lines) { try Standard.line(line) }
    }
    if sorted.contains(where: \.hasProblem) { throw ExitCode.failure }
  }

  /// Those to verify: all, or the one that an address was given of.
  private func members(_ cluster: ClusterClient) async throws -> [Blocktree_V1_ClusterMember] {
    if self.options.address.isEmpty { return try await cluster.overview().members.map(\.member) }
    let status = try await cluster.status()
    guard let member = status.members.first(where: { $0.member == status.member }) else {
      throw CommandFailure("\(status.process) is no member of the cluster at present")
    }
    return [member]
  }

  private func begin(_ member: Blocktree_V1_ClusterMember, _ cluster: ClusterClient) async -> ScrubResult {
    do {
      let pass = try await cluster.beginScrub(of: member, rate: self.rate << 20)
      return ScrubResult(process: member.process, pass: pass)
    } catch {
      return ScrubResult(process: member.process, problem: (error as? BlocktreeError)?.message ?? "\(error)")
    }
  }

  /// Asks all that have begun, again and again, until all are done.
  private func await(
    _ members: [Blocktree_V1_ClusterMember], _ results: inout [Int: ScrubResult], _ cluster: ClusterClient
  ) async {
    let progress = Progress("verifying", total: nil, isQuiet: self.quiet || self.options.json)
    defer { progress.finish() }
    let notes = members.map { _ in progress.forFile() }
    var waiting = Set(members.indices.filter { results[$0]?.pass != nil })
    var lastHeard = members.map { _ in ContinuousClock.now }
    while !waiting.isEmpty, !Task.isCancelled {
      for number in waiting.sorted() {
        // One whose store is being replaced does not answer for a while.
        guard let status = try? await cluster.status(of: members[number]), status.hasScrub else {
          if lastHeard[number] + Self.patience < .now {
            results[number]?.problem = "it does not answer any more"
            waiting.remove(number)
          }
          continue
        }
        lastHeard[number] = .now
        let scrub = status.scrub
        notes[number](scrub.hasRunning ? scrub.running.verifiedBytes : scrub.last.verifiedBytes)
        results[number]?.note(status, is: members[number])
        if scrub.hasLast, scrub.last.number >= results[number]?.pass ?? 0 { waiting.remove(number) }
      }
      if !waiting.isEmpty { try? await Task.sleep(for: .milliseconds(300)) }
    }
  }
}

/// What came of it at one process.
package struct ScrubResult: Encodable, Sendable {
  package var process: String
  package var pass: UInt64?
  /// Nil until the pass is done.
  package var isDone: Bool?
  package var verifiedBytes: UInt64?
  package var found: UInt64?
  package var healed: UInt64?
  /// Whether its store was given up for a new one.
  package var hasNewStore: Bool?
  package var damages: [String]?
  package var omittedDamages: UInt64?
  package var problem: String?

  package init(process: String, pass: UInt64? = nil, problem: String? = nil) {
    self.process = process
    self.pass = pass
    self.problem = problem
  }

  mutating func note(_ status: Blocktree_V1_ClusterServiceGetStatusResponse, is member: Blocktree_V1_ClusterMember) {
    let last = status.scrub.last
    self.hasNewStore = status.member != member.member ? true : nil
    guard status.scrub.hasLast, last.number >= self.pass ?? 0 else { return }
    self.isDone = true
    self.verifiedBytes = last.verifiedBytes
    self.found = last.found
    self.healed = last.healed
    self.damages = status.scrub.damages.map(ScrubText.line)
    self.omittedDamages = status.scrub.omittedDamages == 0 ? nil : status.scrub.omittedDamages
  }

  package var hasProblem: Bool {
    self.problem != nil || !(self.damages ?? []).isEmpty || (self.omittedDamages ?? 0) > 0
  }

  package var lines: [String] {
    if let problem { return [Terminal.escaped("\(self.process): \(problem)")] }
    guard self.isDone == true else {
      return [Terminal.escaped("\(self.process): verifying, pass \(self.pass ?? 0)")]
    }
    let bytes = "\(Format.size(self.verifiedBytes ?? 0))B verified"
    var result = ScrubText.found(self.found ?? 0, healed: self.healed ?? 0)
    if self.hasNewStore == true { result += "; it has a new store, as the old one was damaged" }
    let more = self.omittedDamages.map { ["  and \($0) more"] } ?? []
    return (["\(self.process): \(bytes), \(result)"] + (self.damages ?? []).map { "  \($0)" } + more)
      .map(Terminal.escaped)
  }
}

/// What there is to say of what is damaged.
package enum ScrubText {
  package static func found(_ found: UInt64, healed: UInt64) -> String {
    switch (found, healed) {
    case (0, _): "nothing damaged"
    case (_, found): "\(found) damaged, all healed"
    default: "\(found) damaged, \(healed) healed"
    }
  }

  /// One place.
  package static func line(_ damage: Blocktree_V1_ClusterDamage) -> String {
    let place =
      switch damage.part {
      case "sector": "sector \(damage.index) of \(damage.file)"
      case "tree node": "tree node \(damage.index) of level \(damage.level) of \(damage.file)"
      case "block map": "the places of blocks from \(damage.index) of level \(damage.level) of \(damage.file)"
      case "record": "the record of \(damage.file)"
      default: damage.part
      }
    let cause =
      switch damage.cause {
      case .lost: "no process has it"
      case .unreachable: "not all of the other processes could be asked"
      case .waits: "it is healed as soon as that can be done"
      case .failed: "the disk does not take it"
      case .needsNewStore: "it takes a new store"
      case .unspecified, .UNRECOGNIZED: "not healed"
      }
    return "\(place): \(cause)" + (damage.detail.isEmpty ? "" : " (\(damage.detail))")
  }

  /// How far a process is: for a column.
  static func state(_ scrub: Blocktree_V1_ClusterScrub) -> String {
    if scrub.hasRunning {
      let part = Double(scrub.running.verifiedBytes) / Double(max(1, scrub.running.expectedBytes))
      return "\(Int(min(part, 1) * 100)) %"
    }
    return scrub.hasLast ? Format.time(Timestamp(clampingSeconds: Double(scrub.last.endTime))) : "never"
  }

  /// What a process says of its last pass.
  static func summary(_ last: Blocktree_V1_ClusterScrubPass) -> String {
    let seconds = min(max(0, last.endTime.subtractingReportingOverflow(last.startTime).partialValue), 1 << 32)
    return "verified \(Format.size(last.verifiedBytes))B in \(Format.duration(.seconds(seconds))), "
      + Self.found(last.found, healed: last.healed)
  }
}
