// SPDX-License-Identifier: Apache-2.0

/// What `check` found.
package enum Verdict: Sendable, CustomStringConvertible {
  case linearizable
  /// No order of the operations explains what was observed.
  case violated(Explanation)
  /// The budget was used up before an answer was found. This is not a success: shorten the history or raise the budget.
  case undecided(Explanation)

  package var isLinearizable: Bool { if case .linearizable = self { true } else { false } }
  package var isViolated: Bool { if case .violated = self { true } else { false } }

  package var description: String {
    switch self {
    case .linearizable: "linearizable"
    case .violated(let explanation), .undecided(let explanation): explanation.text
    }
  }
}

/// How far the search came, and where it was stuck.
package struct Explanation: Sendable {
  package let key: String
  /// The operations that could be placed, in an order that explains them: of all orders, one that gets to the latest
  /// return, and among these one with the most operations.
  package let prefix: [OperationID]
  /// The operations that had to come next, one of them, and that the model does not allow there. The first is the one
  /// that can not be placed at all: it returned before any of the others did.
  package let unplaced: [OperationID]
  /// All of the above for people.
  package let text: String
}
