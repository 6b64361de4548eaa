// SPDX-License-Identifier: Apache-2.0

/// How an actor is kept. Never changes, so that any number of actors can share one.
package final class ActorOptions: Sendable {
  /// How many messages wait in the mailbox at most, besides the one that is being handled. Notices of ends come on top:
  /// one for each watch.
  package let mailboxCountMax: Int
  /// How many senders wait for room in a full mailbox at most. One that was cancelled, or does not wait any longer for
  /// its answer, keeps its place until the actor comes to it.
  package let waitingSenderCountMax: Int
  /// What becomes of the actor when it fails.
  package let supervision: Supervision

  /// - Parameters: values below one count as one.
  package init(
    mailboxCountMax: Int = 1_024, waitingSenderCountMax: Int = 1_024, supervision: Supervision = .stop
  ) {
    self.mailboxCountMax = max(1, mailboxCountMax)
    self.waitingSenderCountMax = max(1, waitingSenderCountMax)
    self.supervision = supervision
  }

  /// A mailbox of 1,024 messages; an actor that fails is stopped.
  package static let standard = ActorOptions()
}
