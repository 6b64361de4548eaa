// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema

/// `btrpc cluster recover`
package struct ClusterRecover: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "recover",
    abstract: "Make one process the only one of its cluster, after most were lost for good.",
    discussion: """
      Without a majority a cluster does not go on, and that is well so while the others may come back. When they are \
      lost for good, this makes the process at --address go on alone, with all that it has. It takes the root \
      principal's key, the file that 'btnode init' made. Without --root-key this only shows what there is: choose the \
      process whose log has most.

      What was acknowledged is on a majority. So what is on none of the processes that are left is lost, and nothing \
      else is, if the right one is chosen.

      Former members that come back give up what they had as soon as one of them meets the recovered process, and get \
      all of it from there. They keep the old store beside the new one, named generation-1.superseded-... Those that are \
      gone stay on the list until 'btrpc process remove'.

      EXAMPLES:
        btrpc --address 10.0.0.3:7001 cluster recover
        btrpc --address 10.0.0.3:7001 cluster recover --root-key /media/safe/root-key.pem
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: ArgumentHelp("The root principal's key.", valueName: "file"), completion: .file())
  var rootKey: String?

  @Flag(help: "Go on although something speaks against it. What others have and this one lacks is lost.")
  var acceptLoss = false

  package init() {}

  private struct Survey: Encodable {
    var survivor: String
    var best: String
    var members: [RecoveryTable.Row]
    var objections: [String]
  }

  private struct Recovered: Encodable {
    var process: String
    var incarnation: UInt64
    var term: UInt64
    var lastLogIndex: UInt64
  }

  package func run(_ client: Client) async throws {
    let survey = try await client.cluster.recoverySurvey()
    let table = RecoveryTable(survey)
    guard let rootKey else {
      if self.options.json {
        return try JSONOutput.print(
          Survey(
            survivor: survey.survivor.process, best: survey.best, members: table.rows, objections: table.objections))
      }
      for line in table.lines { try Standard.line(line) }
      return try Standard.line(
        Terminal.escaped(
          "to make \(survey.survivor.process) the only process of the cluster, add --root-key; nothing was done"))
    }
    if !self.options.json { for line in table.lines { try Standard.line(line) } }
    guard table.objections.isEmpty || self.acceptLoss else {
      throw CommandFailure(
        "nothing was done: \(table.objections.joined(separator: "; ")). If that is to be so, use --accept-loss")
    }
    let status: Blocktree_V1_ClusterServiceGetStatusResponse
    do {
      status = try await client.cluster.recover(survey, rootKey: rootKey)
    } catch let error as BlocktreeError {
      throw Self.explained(error, survey.survivor.process)
    }
    if self.options.json {
      return try JSONOutput.print(
        Recovered(
          process: status.process, incarnation: status.incarnation, term: status.term,
          lastLogIndex: status.lastLogIndex))
    }
    try Standard.line(
      Terminal.escaped(
        "\(status.process) is the only process of its cluster now, in incarnation \(status.incarnation)"))
  }

  private static func explained(_ error: BlocktreeError, _ process: String) -> any Error {
    switch (error.reason, error.metadata["cause"]) {
    case (.recoveryRefused?, "LEADER_KNOWN"?):
      CommandFailure("nothing was done: \(process) knows who leads; look with 'btrpc cluster status'")
    case (.recoveryRefused?, _):
      CommandFailure("nothing was done: \(process) is not what it was a moment ago; try again")
    default: error
    }
  }
}

/// Shows which process a cluster is to be recovered with.
package struct RecoveryTable {
  package struct Row: Encodable {
    package var process: String
    package var vote: Bool
    /// These are absent when it does not answer.
    package var incarnation: UInt64?
    package var lastLogTerm: UInt64?
    package var lastLogIndex: UInt64?
    package var problem: String?
  }

  package let rows: [Row]
  package let objections: [String]
  private let survey: RecoverySurvey

  package init(_ survey: RecoverySurvey) {
    self.survey = survey
    self.rows = survey.members.map { member in
      var row = Row(process: member.member.process, vote: member.member.vote != .learner)
      switch member.own {
      case .success(let own):
        (row.incarnation, row.lastLogTerm, row.lastLogIndex) = (own.incarnation, own.lastLogTerm, own.lastLogIndex)
        if !own.storeFailure.isEmpty { row.problem = "its store does not work: \(own.storeFailure)" }
      case .failure(let error): row.problem = ClusterReport.Member.sentence(for: error)
      }
      return row
    }
    self.objections = survey.objections.map(Self.sentence)
  }

  private static func sentence(_ objection: RecoverySurvey.Objection) -> String {
    switch objection {
    case .leaderKnown(let process, let leader) where leader == process: "\(process) leads"
    case .leaderKnown(let process, let leader): "\(process) says that \(leader) leads"
    case .majorityAnswers(let count, let all):
      "\(count) of \(all) processes answer, which is a majority: they go on by themselves when they reach each other"
    case .longerLog(let process): "\(process) has more than this one"
    case .laterLife(let process, let incarnation):
      "\(process) belongs to incarnation \(incarnation): the cluster was recovered already"
    }
  }

  private static func cells(_ row: Row) -> [String] {
    func text(_ number: UInt64?, otherwise: String = "") -> String { number.map { "\($0)" } ?? otherwise }
    let name = Terminal.escaped(row.process.isEmpty ? "?" : row.process)
    return [
      row.vote ? name : name + " (learner)", text(row.incarnation, otherwise: "?"), text(row.lastLogTerm),
      text(row.lastLogIndex),
    ]
  }

  /// For people.
  package var lines: [String] {
    let header = ["Process", "Incarnation", "Log ends in term", "and at"]
    var lines = Format.table([header] + self.rows.map(Self.cells), right: [1, 2, 3])
    lines.append("")
    for row in self.rows {
      if let problem = row.problem { lines.append(Terminal.escaped("\(row.process): \(problem)")) }
    }
    lines.append(Terminal.escaped("of those that answer, \(self.survey.best) has most"))
    for objection in self.objections { lines.append(Terminal.escaped("beware: \(objection)")) }
    return lines
  }
}
