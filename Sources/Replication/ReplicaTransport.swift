// SPDX-License-Identifier: Apache-2.0

package import Raft
package import SectorStore

/// How messages get to other members.
package protocol ReplicaTransport: Sendable {
  /// Sends a message, now or never: it does not wait, and may drop it. Called with the driver's lock held, so it must
  /// call nothing of the driver.
  ///
  /// - Parameter payloads: one for each entry of an append, none for other messages.
  func send(_ message: Raft.Message, payloads: [LogPayload?], to member: MemberID)
}
