// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
package import Raft
package import SectorStore
internal import SwiftProtobuf
private import Synchronization
package import Transport
package import Trust

/// The streams of a member to all others of its group.
///
/// To each there are two, on connections of their own: one for what is urgent, one for bulk data. All that waits for a
/// stream goes out as one message. When a stream breaks, what waits for it is dropped, the receiver hears that the
/// member is unreachable, and the stream is opened again after a short and random while, for as long as the member is
/// one of the group. While it can not be opened, messages are dropped at once: `Raft` sends what is still of use anew.
///
/// Everything runs in ``run()``, and the work of a stream on the event loop of its connection. Sending wakes that event
/// loop, unless the sender runs on it.
package final class MemberConnections: MemberLinks {
  /// How one of the streams is.
  package struct LinkStatus: Sendable {
    package let member: MemberID
    package let lane: MemberLane
    package let isOpen: Bool
    /// Messages that were dropped since the member was connected.
    package let droppedCount: UInt64
    /// Why the stream could not be opened or broke last.
    package let failure: StatusDetails?
  }

  private struct Pair {
    let urgent: MemberLink
    let bulk: MemberLink

    var links: [MemberLink] { [self.urgent, self.bulk] }
    func link(_ lane: MemberLane) -> MemberLink { lane == .urgent ? self.urgent : self.bulk }
  }

  private struct State {
    var pairs: [MemberID: Pair] = [:]
    var isStopped = false
  }

  private let member: MemberID
  private let lives: LifeGuard
  private let dialer: Dialer
  private let receiver: MemberReceiver
  private let state = Mutex(State())
  /// Bounded by the number of members that ``connect(to:)`` was ever called with.
  private let starts: AsyncStream<MemberLink>
  private let start: AsyncStream<MemberLink>.Continuation

  /// - Parameters:
  ///   - member: This member.
  ///   - lives: Says which life of the group it belongs to, and hears when others say that this one is over.
  ///   - dialer: Best with the limits that ``MemberLimits/transport(_:)`` gives, and with one event loop.
  ///   - receiver: Hears who is unreachable. What arrives, it hears from the ``MemberServiceHandler``.
  package init(member: MemberID, lives: LifeGuard, dialer: Dialer, receiver: MemberReceiver) {
    self.member = member
    self.lives = lives
    self.dialer = dialer
    self.receiver = receiver
    (self.starts, self.start) = AsyncStream.makeStream(of: MemberLink.self)
  }

  /// Keeps all streams open, until it is cancelled; they close at once then. Call it once.
  package func run() async {
    await withTaskCancellationHandler {
      await withDiscardingTaskGroup { tasks in
        for await link in self.starts {
          tasks.addTask { await link.run() }
        }
      }
    } onCancel: {
      self.stop()
    }
    self.stop()
  }

  /// Sends a message, now or never. Does not wait, and may drop it: when there is no stream to that member at present,
  /// or when too much waits for it already.
  ///
  /// - Parameter payloads: One for each entry of an append; for other messages none. A command needs its change.
  package func send(_ message: Raft.Message, payloads: [LogPayload?], to member: MemberID) {
    let pair = self.state.withLock { $0.pairs[member] }
    pair?.link(message.isUrgent ? .urgent : .bulk).send(MemberMessage(message: message, payloads: payloads))
  }

  package func connect(to peers: [MemberPeer]) {
    let (old, new) = self.state.withLock { state -> ([MemberLink], [MemberLink]) in
      guard !state.isStopped else { return ([], []) }
      let former = state.pairs
      state.pairs = [:]
      var new: [MemberLink] = []
      for peer in peers where peer.id != self.member && state.pairs[peer.id] == nil {
        if let pair = former[peer.id], pair.urgent.peer == peer {
          state.pairs[peer.id] = pair
        } else {
          let pair = Pair(urgent: self.link(.urgent, to: peer), bulk: self.link(.bulk, to: peer))
          state.pairs[peer.id] = pair
          new += pair.links
        }
      }
      let old = former.filter { id, pair in state.pairs[id]?.urgent !== pair.urgent }
      return (old.values.flatMap(\.links), new)
    }
    for link in old { link.close() }
    for link in new { self.start.yield(link) }
  }

  /// All streams, in the order of the members' ids.
  package var status: [LinkStatus] {
    let pairs = self.state.withLock { $0.pairs }
    return pairs.sorted { $0.key < $1.key }.flatMap { member, pair in
      MemberLane.allCases.map { lane in
        let status = pair.link(lane).status
        return LinkStatus(
          member: member, lane: lane, isOpen: status.isOpen, droppedCount: status.droppedCount,
          failure: status.failure)
      }
    }
  }

  /// Closes every open connection that `condition` holds for; returns how many. For revoked keys.
  @discardableResult
  package func closeConnections(where condition: (NodeConnection) -> Bool) -> Int {
    let links = self.state.withLock { $0.pairs.values.flatMap(\.links) }
    let doomed = links.compactMap(\.connection).filter(condition)
    for connection in doomed { connection.close() }
    return doomed.count
  }

  /// Asks a process who it is, over a connection of its own.
  ///
  /// - Parameters:
  ///   - identity: This process.
  ///   - path: The process that has to answer.
  ///   - addresses: Tried in turn.
  /// - Throws: what the last attempt threw; `MemberError.invalid` when the answer is malformed.
  package func introduce(
    _ identity: MemberIdentity, to path: TreePath, at addresses: [NetworkAddress]
  ) async throws -> MemberIdentity {
    var failure: any Error = TransportError.closed
    for address in addresses {
      do {
        return try await self.dialer.withConnection(to: address, expecting: path) { connection in
          let client = Blocktree_V1_MemberService.Client(wrapping: connection.client)
          var options = CallOptions.defaults
          options.timeout = MemberLimits.introductionTimeout
          let request = Blocktree_V1_IntroduceRequest.with { $0.caller = .init(identity) }
          let response = try await client.introduce(request, options: options)
          guard response.hasMember else { throw MemberError.invalid(field: "member") }
          return try MemberIdentity(response.member)
        }
      } catch {
        try Task.checkCancellation()
        failure = error
      }
    }
    throw failure
  }

  private func link(_ lane: MemberLane, to peer: MemberPeer) -> MemberLink {
    MemberLink(
      lane, to: peer, from: self.member, lives: self.lives, dialer: self.dialer,
      unreachable: self.receiver.unreachable)
  }

  private func stop() {
    let links = self.state.withLock { state in
      state.isStopped = true
      defer { state.pairs = [:] }
      return state.pairs.values.flatMap(\.links)
    }
    self.start.finish()
    for link in links { link.close() }
  }
}
