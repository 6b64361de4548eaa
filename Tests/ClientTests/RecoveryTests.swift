// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import SwiftProtobuf
import Testing
import Transport
import Trust

@Suite("The lives that a client has heard of")
struct KnownLivesTests {
  private let root: RootCertificate
  private let key = SigningKey()

  init() throws { self.root = try CertificateAuthority(newRoot: self.key, at: Date()).root }

  /// What an answer says.
  private func text(
    _ incarnation: UInt64, generation: UInt64 = 1, time: UInt64 = 1, by other: (SigningKey, RootCertificate)? = nil
  ) throws -> String {
    LifeHeader.text(
      try RecoveryWarrant(
        signedBy: other?.0 ?? self.key, root: other?.1 ?? self.root, generation: generation, incarnation: incarnation,
        process: TreePath(parsing: "/node1"), member: 7, issuedAtMilliseconds: time))
  }

  private func known(of directory: String = "") -> KnownLives { KnownLives(of: directory, root: self.root) }

  @Test("grow, and earlier ones are refused from then on")
  func judge() throws {
    let known = self.known()
    #expect(known.judge(nil) == .current)
    let third = try self.text(3)
    #expect(known.judge(third) == .newer)
    #expect(known.judge(third) == .current)
    // The same, signed once more.
    #expect(try known.judge(self.text(3)) == .current)
    #expect(try known.judge(self.text(2)) == .stale(present: 3))
    #expect(known.judge(nil) == .stale(present: 3))
    // Of two with the same number, the later counts.
    #expect(try known.judge(self.text(3, time: 2)) == .newer)
    #expect(known.judge(third) == .stale(present: 3))
    #expect(known.incarnation(of: 1) == 3 && known.incarnation(of: 2) == 1)
  }

  @Test("are each directory's own: what was recovered above or beside it says nothing of a cluster")
  func directories() throws {
    let known = self.known()
    let (site, other) = (try TreePath(parsing: "/site-b"), try TreePath(parsing: "/site-c"))
    #expect(try known.judge(self.text(3)) == .newer)
    #expect(known.judge(nil, from: site) == .current)
    #expect(try known.judge(self.text(2, generation: 5), from: site) == .newer)
    #expect(try known.judge(self.text(2, generation: 5), from: site) == .current)
    // Both have gone on.
    #expect(known.judge(nil, from: site) == .stale(present: 2) && known.judge(nil) == .stale(present: 3))
    #expect(known.judge(nil, from: other) == .current)
    // The root's warrant is none for others, and theirs none for the root.
    #expect(try known.judge(self.text(3), from: site) == .stale(present: 2))
    #expect(try known.judge(self.text(9, generation: 5)) == .stale(present: 3))
    // A directory that was made again has another generation.
    #expect(try known.judge(self.text(2, generation: 8), from: site) == .newer)
    #expect(try known.judge(self.text(3, generation: 5), from: site) == .stale(present: 2))
    #expect(known.incarnation(of: 1) == 3 && known.incarnation(of: 5) == 2 && known.incarnation(of: 8) == 2)
  }

  @Test("are not claimed by a process that the root principal has not allowed it")
  func forged() throws {
    let known = self.known()
    let key = SigningKey()
    let stranger = (key, try CertificateAuthority(newRoot: key, at: Date()).root)
    let long = String(repeating: "A", count: LifeHeader.characterCountMax + 4)
    for text in ["", "1/2", "AAAA", long, try self.text(9, by: stranger)] {
      #expect(known.judge(text) == .stale(present: 1), "\(text.prefix(40))")
    }
    #expect(known.judge(nil) == .current && known.incarnation(of: 1) == 1)
  }

  @Test("are kept with the profile, and never go back")
  func file() async throws {
    try await self.withDirectory { directory in
      let (one, other) = (self.known(of: directory), self.known(of: directory))
      _ = one.judge(try self.text(5))
      await one.save()
      // It has heard of less, and does not know of the file.
      _ = other.judge(try self.text(4))
      _ = other.judge(try self.text(2, generation: 7), from: try TreePath(parsing: "/site"))
      await other.save()
      let next = self.known(of: directory)
      #expect(next.incarnation(of: 1) == 5 && next.incarnation(of: 7) == 2 && next.incarnation(of: 2) == 1)
      #expect(try next.judge(self.text(4)) == .stale(present: 5))
      #expect(try next.judge(nil, from: TreePath(parsing: "/site")) == .stale(present: 2))
      #expect(try next.judge(nil, from: TreePath(parsing: "/other")) == .current)
    }
  }

  @Test("are read from a file of a former version, which knew the root's cluster only")
  func formerFile() async throws {
    try await self.withDirectory { directory in
      let text = "{\"1\": \"\(try self.text(4))\"}"
      try text.write(toFile: directory + "/lives.json", atomically: true, encoding: .utf8)
      chmod(directory + "/lives.json", 0o600)
      chmod(directory, 0o700)
      #expect(self.known(of: directory).judge(nil) == .stale(present: 4))
    }
  }

  @Test("do without a file that is damaged")
  func damaged() async throws {
    try await self.withDirectory { directory in
      for text in ["", "{", "{\"1\": -2}", "[]", "{\"1\": \"AAAA\"}"] {
        try text.write(toFile: directory + "/lives.json", atomically: true, encoding: .utf8)
        #expect(self.known(of: directory).incarnation(of: 1) == 1, "\(text)")
      }
    }
  }

  private func withDirectory(_ body: (String) async throws -> Void) async throws {
    let directory = FileManager.default.temporaryDirectory.path + "/lives-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try await body(directory)
  }
}

@Suite("A survey before a recovery")
struct RecoverySurveyTests {
  private typealias Status = Blocktree_V1_ClusterServiceGetStatusResponse

  /// What a member says, in term and at index; nil does not answer.
  private struct Log {
    var term: UInt64 = 3
    var index: UInt64 = 10
    var incarnation: UInt64 = 1
    var leader = ""
  }

  /// The first one would survive.
  private func survey(_ logs: [Log?], learners: Set<Int> = [], known: UInt64 = 1) -> RecoverySurvey {
    let members: [ClusterOverview.Member] = logs.enumerated().map { number, log in
      let member = Blocktree_V1_ClusterMember.with {
        $0.member = UInt64(number + 1)
        $0.process = "/node\(number + 1)"
        $0.vote = learners.contains(number) ? .learner : .voter
      }
      guard let log else { return .init(member, own: .failure(BlocktreeError(code: .unavailable, message: ""))) }
      return .init(member, own: .success(self.status(number, log)))
    }
    return RecoverySurvey(survivor: self.status(0, logs[0] ?? Log()), members: members, known: known)
  }

  private func status(_ number: Int, _ log: Log) -> Status {
    .with {
      $0.member = UInt64(number + 1)
      $0.process = "/node\(number + 1)"
      $0.lastLogTerm = log.term
      $0.lastLogIndex = log.index
      $0.incarnation = log.incarnation
      if !log.leader.isEmpty { $0.leader.process = log.leader }
    }
  }

  @Test("has nothing against the only one of three that is left, and counts on from what is known")
  func alone() {
    let survey = self.survey([Log(), nil, nil])
    #expect(survey.objections == [] && survey.best == "/node1" && survey.incarnation == 1)
    #expect(self.survey([Log(incarnation: 2), nil, nil], known: 7).incarnation == 7)
    #expect(self.survey([Log(incarnation: 0), nil, nil], known: 0).incarnation == 1)
  }

  @Test("names the process that has more: by the term of its last entry, then by the index")
  func longer() {
    let five: [Log?] = [Log(term: 3, index: 10), Log(term: 3, index: 11), nil, nil, nil]
    #expect(self.survey(five).objections == [.longerLog("/node2")])
    #expect(self.survey(five).best == "/node2")
    let later = self.survey([Log(term: 3, index: 99), Log(term: 4, index: 2), nil, nil, nil])
    #expect(later.objections == [.longerLog("/node2")] && later.best == "/node2")
    let same = self.survey([Log(), Log(), nil, nil, nil])
    #expect(same.objections == [] && same.best == "/node1")
    let shorter = self.survey([Log(term: 4, index: 2), Log(term: 3, index: 99), nil, nil, nil])
    #expect(shorter.objections == [] && shorter.best == "/node1")
  }

  @Test("objects where a majority of voters answers, somebody knows a leader, or it was done already")
  func others() {
    #expect(self.survey([Log(), Log(), nil]).objections == [.majorityAnswers(2, of: 3)])
    // Learners decide nothing.
    #expect(self.survey([Log(), nil, nil, Log(), Log()], learners: [3, 4]).objections == [])
    let led = self.survey([Log(), Log(leader: "/node3"), nil, nil, nil])
    #expect(led.objections == [.leaderKnown(by: "/node2", leader: "/node3")])
    let done = self.survey([Log(), Log(incarnation: 2), nil])
    #expect(done.objections == [.laterLife("/node2", incarnation: 2)])
    #expect(done.best == "/node2" && done.incarnation == 2)
  }
}
