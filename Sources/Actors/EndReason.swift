// SPDX-License-Identifier: Apache-2.0

/// Why an actor has ended.
package enum EndReason: Hashable, Sendable {
  /// It ended itself.
  case finished
  /// Somebody stopped it.
  case stopped
  /// Its parent ended or began again.
  case parentEnded
  /// It failed, and was not to begin again, or not once more.
  case failed(ActorFailure)
  /// The runtime was shut down.
  case shutDown
  /// There is no actor at the address that is watched: it has ended, or never was.
  case noSuchActor
}

/// What an actor threw, in words: other actors should not depend on its error types.
package struct ActorFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// The longest description, in characters.
  package static let characterCountMax = 256

  package let description: String

  package init(_ error: any Error) {
    if let failure = error as? ActorFailure {
      self = failure
    } else {
      self.description = String(String(describing: error).prefix(Self.characterCountMax))
    }
  }
}

/// The end of an actor, as its watchers hear of it.
package struct ActorEnd: Hashable, Sendable {
  package let address: ActorAddress
  package let reason: EndReason
}
