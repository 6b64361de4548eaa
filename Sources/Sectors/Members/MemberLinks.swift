// SPDX-License-Identifier: Apache-2.0

package import Raft
package import Replication
package import SectorStore
package import Trust

/// How a member reaches the others of its group: what the driver of consensus sees of the network.
///
/// As `Raft` expects, messages may be lost at any time. Those of one kind, urgent or not, arrive in the order in which
/// they were sent as long as the connection holds.
package protocol MemberLinks: ReplicaTransport {
  /// From now on these are the others. Those that stay as they are keep their connections.
  func connect(to peers: [MemberPeer])
}

/// Another member, and where it is.
package struct MemberPeer: Hashable, Sendable {
  package var id: MemberID
  /// The process that has to answer there.
  package var path: TreePath
  /// Tried in turn. With none, the member is never reached.
  package var addresses: [NetworkAddress]

  package init(id: MemberID, path: TreePath, addresses: [NetworkAddress]) {
    self.id = id
    self.path = path
    self.addresses = addresses
  }
}

/// Who hears what other members say. All functions are called from event loops and must not block.
package struct MemberReceiver: Sendable {
  /// A message has arrived. In order for each stream; from any thread.
  ///
  /// Payloads: one for each entry of an append; a change for a command, `.noop` for a noop, and nil for a membership, of
  /// which the header says all.
  package var received: @Sendable (_ message: Raft.Message, _ payloads: [LogPayload?], _ from: MemberID) -> Void

  /// A stream to the member broke, or could not be opened; what was on its way may be lost. Called each time.
  package var unreachable: @Sendable (MemberID) -> Void

  package init(
    received: @escaping @Sendable (_ message: Raft.Message, _ payloads: [LogPayload?], _ from: MemberID) -> Void,
    unreachable: @escaping @Sendable (MemberID) -> Void
  ) {
    self.received = received
    self.unreachable = unreachable
  }
}

/// Who a process is within a sector cluster.
package struct MemberIdentity: Hashable, Sendable {
  package var generation: UInt64
  /// Nil while it has no store.
  package var member: MemberID?
  /// 0 while it has no store.
  package var incarnation: GroupIncarnation
  /// What allowed the incarnation, as the process says; empty for the first.
  package var warrant: [UInt8]
  /// The last entry that is on its disk.
  package var lastLogIndex: Raft.LogIndex

  package init(
    generation: UInt64, member: MemberID?, incarnation: GroupIncarnation, warrant: [UInt8] = [],
    lastLogIndex: Raft.LogIndex
  ) {
    self.generation = generation
    self.member = member
    self.incarnation = incarnation
    self.warrant = warrant
    self.lastLogIndex = lastLogIndex
  }
}
