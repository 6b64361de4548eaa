// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlocktreeClient
import BlocktreeSchema
import Foundation
import SwiftProtobuf
import Testing
import btrpc

@Suite("The report of a cluster")
struct ClusterReportTests {
  private static func member(_ number: UInt64, _ vote: Blocktree_V1_ClusterVote, lag: UInt64?)
    -> Blocktree_V1_ClusterMember
  {
    .with {
      $0.member = number
      $0.process = "/node\(number)"
      $0.addresses = ["10.0.0.\(number):7777"]
      $0.vote = vote
      guard let lag else { return }
      $0.progress = .with {
        $0.matchIndex = 1_000 - lag
        $0.nextIndex = 1_001 - lag
        $0.lag = lag
        $0.silenceMs = number == 1 ? 0 : 1_234
        $0.replication = number == 3 ? .snapshot : .replicating
        $0.isWritable = true
      }
    }
  }

  private static func answer(
    _ number: UInt64, _ role: Blocktree_V1_ClusterRole, failure: String = ""
  ) -> Blocktree_V1_ClusterServiceGetStatusResponse {
    .with {
      $0.generation = 1
      $0.member = number
      $0.process = "/node\(number)"
      $0.role = role
      $0.term = 7
      $0.commitIndex = 999
      $0.appliedIndex = 998
      $0.lastLogIndex = 1_000
      $0.disk = .with {
        $0.usedBytes = 2_048
        $0.allocatedBytes = 4_096
        $0.freeBytes = 1 << 30
        $0.logBytes = 512
      }
      $0.isWritable = failure.isEmpty
      $0.storeFailure = failure
    }
  }

  @Test("is asked for as the manual shows")
  func examples() throws {
    #expect(try Btrpc.parseAsRoot(["--json", "cluster", "status"]) is ClusterStatusCommand)
    #expect(try Btrpc.parseAsRoot(["cluster", "transfer"]) is ClusterTransfer)
    #expect(try Btrpc.parseAsRoot(["cluster", "transfer", "--to", "/node2"]) is ClusterTransfer)
    #expect(throws: (any Error).self) { try Btrpc.parseAsRoot(["cluster", "transfer", "--to", "node2"]) }
  }

  @Test("has a row for each member, and says what is wrong with whom")
  func led() throws {
    var view = Self.answer(1, .leader)
    view.leader = .with {
      $0.member = 1
      $0.process = "/node1"
    }
    view.membershipIsChanging = true
    let silent = BlocktreeError(code: .deadlineExceeded, message: "late")
    let report = ClusterReport(
      ClusterOverview(
        view: view,
        members: [
          .init(Self.member(1, .voter, lag: 0), own: .success(view)),
          .init(Self.member(2, .going, lag: 12), own: .failure(silent)),
          .init(Self.member(3, .learner, lag: 900), own: .success(Self.answer(3, .follower, failure: "it is broken"))),
        ]))
    #expect(
      report.lines == [
        "generation:  1, term 7",
        "leader:      /node1",
        "log:         committed to 999, ends at 1000",
        "membership:  is changing",
        "",
        "Process  Role               Term  Applied  Lag  Heard  Used  Log  Free",
        "/node1   leader                7      998    0   0.0s  2.0K  512  1.0G",
        "/node2   ?, going                           12   1.2s                 ",
        "/node3   learner, snapshot     7      998  900   1.2s  2.0K  512  1.0G",
        "",
        "/node2: it does not answer",
        "/node3: its store does not work: it is broken",
      ])
    let json = try #require(
      try JSONSerialization.jsonObject(with: JSONEncoder().encode(report)) as? [String: Any])
    #expect(json["leader"] as? String == "/node1" && json["generation"] as? Int == 1)
    let members = try #require(json["members"] as? [[String: Any]])
    #expect(members.map { $0["id"] as? String } == (1...3).map { "000000000000000\($0)" })
    #expect(members.map { $0["lag"] as? Int } == [0, 12, 900])
    #expect(members.map { $0["replication"] as? String } == ["replicating", "replicating", "snapshot"])
    #expect(members.map { $0["freeBytes"] as? Int } == [1 << 30, nil, 1 << 30])
    #expect(members.map { $0["isWritable"] as? Bool } == [true, true, false])
  }

  @Test("says whose view it is when nobody leads, and shows no name that plays tricks with a terminal")
  func leaderless() {
    var former = Self.answer(2, .follower)
    former.leader.process = "/node1"
    let stale = ClusterReport(ClusterOverview(view: former, members: []))
    #expect(stale.lines[1] == "leader:      /node1, which does not say so; this is what /node2 says")

    var member = Self.member(2, .voter, lag: nil)
    member.process = "/node\u{1B}[2J"
    let report = ClusterReport(
      ClusterOverview(
        view: Self.answer(2, .candidate), members: [.init(member, own: .success(Self.answer(2, .candidate)))]))
    #expect(report.lines[1] == "leader:      none is known; this is what /node2 says")
    #expect(report.lines.last?.hasPrefix("/node\\u{1b}[2J  candidate") == true)
    #expect(report.lines.allSatisfy { !$0.contains("\u{1B}") })
  }
}
