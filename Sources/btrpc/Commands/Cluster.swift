// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema

/// `btrpc cluster`
package struct ClusterCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "cluster", abstract: "Look after a cluster: the processes that store the same directory together.",
    subcommands: [
      ClusterStatusCommand.self,
      ClusterTransfer.self,
      ClusterScrub.self,
      ClusterRecover.self,
      ClusterBackup.self,
      ClusterVerifyBackup.self,
    ])

  package init() {}
}

/// `btrpc cluster transfer`
package struct ClusterTransfer: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "transfer",
    abstract: "Hand leadership over to another process.",
    discussion: """
      Clients notice a short delay and nothing else. Before a process is stopped this need not be done: it hands over by \
      itself. It takes the owner of the directory that the cluster serves.

      EXAMPLES:
        btrpc cluster transfer
        btrpc cluster transfer --to /node2
        btrpc cluster transfer --path /site-b
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var scope: ClusterScope

  @Option(
    help: ArgumentHelp(
      "The process that is to lead; without it, the one that is furthest.", valueName: "process"),
    completion: RemotePath.completion, transform: RemotePath.parse)
  var to: RemotePath?

  package init() {}

  private struct Leader: Encodable {
    var leader: String
    var term: UInt64
  }

  package func run(_ client: Client) async throws {
    let answer: Blocktree_V1_TransferLeadershipResponse
    do {
      answer = try await self.scope.cluster(client).transferLeadership(to: self.to?.text)
    } catch let error as BlocktreeError {
      throw self.explained(error)
    }
    if self.options.json {
      return try JSONOutput.print(Leader(leader: answer.leader.process, term: answer.term))
    }
    try Standard.line(Terminal.escaped("\(answer.leader.process) leads in term \(answer.term)"))
  }

  private func explained(_ error: BlocktreeError) -> any Error {
    let target = self.to?.inDomain ?? "another process"
    switch (error.reason, error.metadata["cause"]) {
    case (.notFound?, _): return CommandFailure("\(target): no member of the cluster is there")
    case (.transferFailed?, "UNDER_WAY"?):
      return CommandFailure("leadership is being handed over already; look with 'btrpc cluster status'")
    case (.transferFailed?, "UNFIT"?):
      return CommandFailure(
        (self.to.map { "\($0.inDomain) can not lead: it has no vote, or can not write" }
          ?? "nobody else can lead: no other process has a vote, is heard and can write")
          + "; look with 'btrpc cluster status'")
    case (.transferFailed?, "TIMEOUT"?):
      return CommandFailure("\(target) did not take over in time; the former leader leads on")
    case (.transferFailed?, _):
      return CommandFailure("the former leader does not lead any more, and nobody else is known to; try again")
    default: return error
    }
  }
}
