// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// A message that nobody got, and whose sender was not told.
package struct DeadLetter: Hashable, Sendable {
  /// Counts all dead letters of a runtime, from 1.
  package let sequence: UInt64
  package let to: ActorAddress
  /// The message's type. The message itself is gone: if it was kept here, who waits for an answer to a question in it
  /// would never hear that there will be none.
  package let typeName: String
  package let reason: UndeliverableReason
}

/// The last dead letters.
package final class DeadLetters: Sendable {
  private struct Ring {
    var letters: [DeadLetter] = []
    var count: UInt64 = 0
  }

  private let ring = Mutex(Ring())
  private let countMax: Int

  init(countMax: Int) { self.countMax = max(1, countMax) }

  /// How many there have been in all.
  package var count: UInt64 { self.ring.withLock { $0.count } }

  /// Those that are kept, the oldest first.
  package var all: [DeadLetter] {
    self.ring.withLock { ring in
      guard ring.letters.count == self.countMax else { return ring.letters }
      let start = Int(ring.count % UInt64(self.countMax))
      return Array(ring.letters[start...] + ring.letters[..<start])
    }
  }

  func add(to: ActorAddress, typeName: String, reason: UndeliverableReason) {
    self.ring.withLock { ring in
      let letter = DeadLetter(sequence: ring.count + 1, to: to, typeName: typeName, reason: reason)
      if ring.letters.count < self.countMax {
        ring.letters.append(letter)
      } else {
        ring.letters[Int(ring.count % UInt64(self.countMax))] = letter
      }
      ring.count += 1
    }
  }
}
