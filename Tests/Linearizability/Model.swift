// SPDX-License-Identifier: Apache-2.0

/// What one object (a file, a register, a list) does when its operations come one after another.
///
/// A history is linearizable if each operation can be given one moment between its invocation and its return, so that
/// the operations in the order of these moments are what the model would have done.
package protocol Model: Sendable {
  /// Everything that later outputs depend on. Equal states must have equal futures, and small ones are quicker.
  associatedtype State: Hashable
  associatedtype Input: Hashable
  associatedtype Output

  var initialState: State { get }

  /// The state after the operation, or nil if in this state it could not have had this output.
  ///
  /// An output of nil stands for an unknown one: the state is then the one after the operation took effect. That it
  /// never takes effect need not be modelled, nor that it does so in another state: the search tries this anyway.
  func step(_ state: State, _ input: Input, _ output: Output?) -> State?

  /// This model, knowing all operations that a history has of one key, unknown outcomes among them as nil.
  ///
  /// It may refuse more steps than `step` has to: those after which something that was seen can no longer be explained,
  /// and those of unknown outcome that are of no use. It must not refuse any without which a linearizable history would
  /// not be. This saves much time where states are many. The default knows nothing more, which is always right.
  func knowing(_ operations: [(input: Input, output: Output?)]) -> Self

  /// The same for all inputs that can not be told apart if their outcome is unknown, as nothing that was seen depends on
  /// which of them took effect. Asked of a model that knows a history; the default tells all apart.
  func simplified(_ input: Input) -> Input

  /// Whether an operation of unknown outcome can change nothing any more, in this state and in all that can follow.
  /// False, the default, is always right.
  func isSpent(_ input: Input, in state: State) -> Bool

  /// Words for a report, such as `write(5) → written`.
  func describe(_ input: Input, _ output: Output?) -> String
  func describe(_ state: State) -> String
}

extension Model {
  package func knowing(_ operations: [(input: Input, output: Output?)]) -> Self { self }
  package func simplified(_ input: Input) -> Input { input }
  package func isSpent(_ input: Input, in state: State) -> Bool { false }

  package func describe(_ input: Input, _ output: Output?) -> String {
    "\(input) → \(output.map { "\($0)" } ?? "?")"
  }

  package func describe(_ state: State) -> String { "\(state)" }
}
