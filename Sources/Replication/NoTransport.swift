// SPDX-License-Identifier: Apache-2.0

package import Raft
package import SectorStore

/// For a group of one member, which has nobody to talk to.
package struct NoTransport: ReplicaTransport {
  package init() {}

  package func send(_ message: Raft.Message, payloads: [LogPayload?], to member: MemberID) {}
}
