// SPDX-License-Identifier: Apache-2.0

package import Raft

/// What clients do: on a few registers that begin as zero.
package struct Command: Hashable, Sendable {
  package enum Action: Hashable, Sendable {
    case write(Int)
    case compareAndSet(from: Int, to: Int)
  }
  package var key: Int
  package var action: Action
  /// Unlike all others: so that two entries with the same effect are told apart.
  package var number: UInt64
}

/// The replicated registers.
package struct StateMachine: Hashable, Sendable {
  package private(set) var applied: LogIndex = .zero
  private var values: [Int] = []

  subscript(key: Int) -> Int {
    key < self.values.count ? self.values[key] : 0
  }

  /// True unless it was a comparison that failed.
  mutating func apply(_ command: Command?, at index: LogIndex) -> Bool {
    self.applied = index
    guard let command else { return true }
    while self.values.count <= command.key { self.values.append(0) }
    switch command.action {
    case .write(let value): self.values[command.key] = value
    case .compareAndSet(let from, let to):
      guard self.values[command.key] == from else { return false }
      self.values[command.key] = to
    }
    return true
  }
}
