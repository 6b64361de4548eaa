// SPDX-License-Identifier: Apache-2.0

import Raft
import Sectors
import Testing
import Trust

@Suite("Members that were revoked")
struct RevokedMembersTests {
  private func paths(_ names: String...) throws -> Set<TreePath> { Set(try names.map { try path($0) }) }

  private func keys(_ names: String...) throws -> [TreePath: Digest32] {
    var keys: [TreePath: Digest32] = [:]
    for name in names {
      let (place, key) =
        name.split(separator: "#").count == 2
        ? (name.split(separator: "#")[0], name.split(separator: "#")[1]) : (name[...], "1")
      keys[try path(String(place))] = Digest32(sha256: Array(key.utf8))
    }
    return keys
  }

  @Test("are those that the cluster above does not name twice in a row")
  func twice() throws {
    var revoked = RevokedMembers()
    let members = try self.keys("/s/1", "/s/2", "/s/3")
    revoked.compare(members, with: try self.keys("/s/1", "/s/2"))
    #expect(revoked.paths.isEmpty)
    revoked.compare(members, with: try self.keys("/s/1"))
    #expect(try revoked.paths == self.paths("/s/3"))
    revoked.compare(members, with: try self.keys("/s/1"))
    #expect(try revoked.paths == self.paths("/s/2", "/s/3"))
    // What is named again, or is no member any more, is not.
    revoked.compare(try self.keys("/s/1", "/s/2"), with: try self.keys("/s/1", "/s/2", "/s/3"))
    #expect(revoked.paths.isEmpty)
  }

  @Test("are those with another key there, too, and processes that are not members yet are not")
  func otherKey() throws {
    var revoked = RevokedMembers()
    for _ in 0..<2 {
      revoked.compare(try self.keys("/s/1", "/s/2"), with: try self.keys("/s/1", "/s/2#other", "/s/4"))
    }
    #expect(try revoked.paths == self.paths("/s/2"))
  }

  @Test("still answer, but ask for nothing")
  func messages() {
    let position = LogPosition(index: LogIndex(1), term: Term(1))
    let asking: [Message.Body] = [
      .preVoteRequest(last: position), .voteRequest(last: position, isTransfer: true), .timeoutNow, .termNotice,
      .heartbeat(round: HeartbeatRound(1), commit: LogIndex(1)), .append(after: position, entries: [], commit: .zero),
      .readReply(ReadNonce(1), index: nil),
    ]
    let answering: [Message.Body] = [
      .preVoteReply(for: Term(1), granted: true), .voteReply(granted: true), .readRequest(ReadNonce(1)),
      .heartbeatReply(round: HeartbeatRound(1), isWritable: true), .appendReply(.unwritable),
    ]
    for body in asking {
      #expect(Message(incarnation: GroupIncarnation(1), term: Term(1), body: body).asksToBeFollowed, "\(body)")
    }
    for body in answering {
      #expect(!Message(incarnation: GroupIncarnation(1), term: Term(1), body: body).asksToBeFollowed, "\(body)")
    }
  }
}
