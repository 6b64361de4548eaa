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
    #expect(try Btrpc.parseAsRoot(["cluster", "scrub", "--wait"]) is ClusterScrub)
    #expect(
      try Btrpc.parseAsRoot(["cluster", "scrub", "--rate", "100", "--address", "192.0.2.7:7777"]) is ClusterScrub)
  }

  @Test("has a row for each member, and says what is wrong with whom")
  func led() throws {
    var view = Self.answer(1, .leader)
    view.leader = .with {
      $0.member = 1
      $0.process = "/node1"
    }
    view.membershipIsChanging = true
    view.scrub = .with {
      $0.running = .with {
        $0.number = 8
        $0.verifiedBytes = 250
        $0.expectedBytes = 1_000
      }
      $0.last = .with {
        $0.number = 7
        $0.startTime = 1_700_000_000
        $0.endTime = 1_700_000_075
        $0.verifiedBytes = 3 << 20
        $0.found = 3
        $0.healed = 2
      }
      $0.damages = [
        .with {
          $0.file = "1:24"
          $0.part = "sector"
          $0.index = 5
          $0.cause = .lost
        }
      ]
      $0.omittedDamages = 2
    }
    view.storesSetAside = ["generation-1.damaged-20261124T010203Z"]
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
        "Process  Role               Term  Applied  Lag  Heard  Used  Log  Free  Scrubbed",
        "/node1   leader                7      998    0   0.0s  2.0K  512  1.0G  25 %",
        "/node2   ?, going                           12   1.2s                   ",
        "/node3   learner, snapshot     7      998  900   1.2s  2.0K  512  1.0G  ",
        "",
        "/node2: it does not answer",
        "/node3: its store does not work: it is broken",
        "",
        "/node1: verified 3.0MB in 1m 15s, 3 damaged, 2 healed",
        "/node1: damaged: sector 5 of 1:24: no process has it",
        "/node1: damaged: 2 more",
        "/node1: a former store is kept as generation-1.damaged-20261124T010203Z; remove it when it is not needed",
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
    let scrub = try #require(members[0]["scrub"] as? [String: Any])
    let last = try #require(scrub["last"] as? [String: Any])
    #expect(last["number"] as? Int == 7 && last["found"] as? Int == 3 && last["healed"] as? Int == 2)
    #expect(last["end"] as? String == "2023-11-14T22:14:35.000000000Z")
    #expect(scrub["damages"] as? [String] == ["sector 5 of 1:24: no process has it"])
    #expect(members[1]["scrub"] == nil)
  }

  @Test("says of what is damaged where it is, and why it is not healed")
  func damage() {
    func line(_ change: (inout Blocktree_V1_ClusterDamage) -> Void) -> String {
      var damage = Blocktree_V1_ClusterDamage()
      change(&damage)
      return ScrubText.line(damage)
    }
    #expect(
      line {
        $0.file = "1:7"
        $0.part = "tree node"
        $0.level = 2
        $0.index = 9
        $0.cause = .unreachable
      } == "tree node 9 of level 2 of 1:7: not all of the other processes could be asked")
    #expect(
      line {
        $0.part = "index"
        $0.cause = .needsNewStore
        $0.detail = "there is no other member"
      } == "index: it takes a new store (there is no other member)")
    #expect(ScrubText.found(0, healed: 0) == "nothing damaged")
    #expect(ScrubText.found(2, healed: 2) == "2 damaged, all healed")
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
