// SPDX-License-Identifier: Apache-2.0

/// Why a message was not sent. It was not, and will not be, handled.
package enum SendError: Error, Hashable, Sendable {
  /// The actor has ended, or did before there was room.
  case stopped
  /// The mailbox is full, and too many wait for room already.
  case mailboxFull
  /// The sender's task was cancelled while it waited for room.
  case cancelled
  /// The group has no members.
  case noMember
}

/// Why a question has no answer. Unless it says otherwise, the question may have been handled or not.
@usableFromInline package enum AskError: Error, Hashable, Sendable {
  /// The actor ended before it came to the question. It was not handled.
  case stopped
  /// The time was over.
  case expired
  /// The asker's task was cancelled.
  case cancelled
  /// The mailbox is full, and too many wait for room already. It was not handled.
  case mailboxFull
  /// The actor failed at this question.
  case failed
  /// The actor dropped the question, with its state or without.
  case unanswered
  /// The group has no members. It was not handled.
  case noMember
  /// Whoever was asked does not want to answer.
  case refused

  init(_ error: SendError) {
    switch error {
    case .stopped: self = .stopped
    case .mailboxFull: self = .mailboxFull
    case .cancelled: self = .cancelled
    case .noMember: self = .noMember
    }
  }
}

/// Why there is no new actor.
package enum SpawnError: Error, Hashable, Sendable {
  /// A living actor has this name.
  case nameTaken
  /// A name has 1 to 255 bytes and neither `/` nor NUL.
  case nameInvalid
  /// `ActorLimits.actorCountMax`.
  case tooManyActors
  /// The parent ends, has ended, or is about to begin again.
  case parentEnded
  /// The runtime is shut down, or about to be.
  case shutDown
  /// Its first state could not be made.
  case failed(ActorFailure)
}

/// Why an actor is not watched.
package enum WatchError: Error, Hashable, Sendable {
  /// `ActorLimits.watchCountMax`.
  case tooManyWatches
  /// Who would watch ends, has ended, or is about to begin again.
  case watcherEnded
}

/// Why a group or a service was not changed.
package enum GroupError: Error, Hashable, Sendable {
  /// `ActorLimits.memberCountMax`.
  case tooManyMembers
  /// `ActorLimits.serviceCountMax`.
  case tooManyServices
  /// Another group is registered there.
  case serviceTaken
}

/// What became of an offered message.
package enum Offer: Hashable, Sendable {
  /// It stands in the mailbox. It is handled unless the actor ends before.
  case accepted
  /// The mailbox is full.
  case full
  /// The actor has ended.
  case stopped
}
