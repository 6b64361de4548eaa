// SPDX-License-Identifier: Apache-2.0

/// A register per key, empty at first, that is read, written, and swapped under a condition on its value.
package struct RegisterModel<Value: Hashable & Sendable>: Model {
  package enum Input: Hashable, Sendable {
    case read
    case write(Value)
    /// Writes if the register holds the expected value; nil expects it to be empty.
    case compareAndSet(expected: Value?, new: Value)
  }

  package enum Output: Hashable, Sendable {
    /// To a read; nil if the register is empty.
    case value(Value?)
    /// To a write.
    case written
    /// To a compare-and-set: whether the value was the expected one, and the new one is in its place.
    case swapped(Bool)
  }

  /// What a history tells of its values.
  private struct Knowledge: Sendable {
    /// Those that were read, or that a swap expected.
    var seen: Set<Value> = []
    /// One that was not, in place of all others.
    var unseen: Value?
    /// Whether others are of use, as a swap may have failed because of them.
    var areUnseenUseful = false
  }

  package let initialState: Value?
  private var knowledge: Knowledge?

  package init(initially value: Value? = nil) { self.initialState = value }

  package func step(_ state: Value?, _ input: Input, _ output: Output?) -> Value?? {
    // What is returned is an optional state, and the state is an optional value: `.some(nil)` is the empty register.
    switch (input, output) {
    case (.read, nil): .some(state)
    case (.read, .value(let value)): value == state ? .some(state) : .none
    case (.write(let value), nil): self.isUseful(value) ? .some(value) : .none
    case (.write(let value), .written): .some(value)
    case (.compareAndSet(let expected, let new), nil):
      expected == state && self.isUseful(new) ? .some(new) : .none
    case (.compareAndSet(let expected, let new), .swapped(true)): expected == state ? .some(new) : .none
    case (.compareAndSet(let expected, _), .swapped(false)): expected != state ? .some(state) : .none
    default: .none  // An answer to another question.
    }
  }

  private func isUseful(_ value: Value) -> Bool {
    guard let knowledge = self.knowledge else { return true }
    return knowledge.areUnseenUseful || knowledge.seen.contains(value)
  }

  package func knowing(_ operations: [(input: Input, output: Output?)]) -> Self {
    var knowledge = Knowledge()
    for operation in operations {
      if case .compareAndSet(let expected?, _) = operation.input { knowledge.seen.insert(expected) }
      if case .value(let value?)? = operation.output { knowledge.seen.insert(value) }
      if case .swapped(false)? = operation.output { knowledge.areUnseenUseful = true }
    }
    for operation in operations where operation.output == nil {
      switch operation.input {
      case .write(let value), .compareAndSet(_, let value):
        if knowledge.unseen == nil, !knowledge.seen.contains(value) { knowledge.unseen = value }
      case .read: break
      }
    }
    var model = self
    model.knowledge = knowledge
    return model
  }

  package func simplified(_ input: Input) -> Input {
    guard let knowledge = self.knowledge, let unseen = knowledge.unseen else { return input }
    switch input {
    case .write(let value) where !knowledge.seen.contains(value): return .write(unseen)
    case .compareAndSet(let expected, let value) where !knowledge.seen.contains(value):
      return .compareAndSet(expected: expected, new: unseen)
    default: return input
    }
  }

  package func describe(_ input: Input, _ output: Output?) -> String {
    let question =
      switch input {
      case .read: "read"
      case .write(let value): "write(\(value))"
      case .compareAndSet(let expected, let new): "compareAndSet(\(text(expected)), \(new))"
      }
    let answer =
      switch output {
      case .value(let value): text(value)
      case .written: "written"
      case .swapped(let isSwapped): isSwapped ? "swapped" : "not swapped"
      case nil: "?"
      }
    return "\(question) → \(answer)"
  }

  package func describe(_ state: Value?) -> String { text(state) }
}

extension RegisterModel.Input: Encodable where Value: Encodable {}
extension RegisterModel.Input: Decodable where Value: Decodable {}
extension RegisterModel.Output: Encodable where Value: Encodable {}
extension RegisterModel.Output: Decodable where Value: Decodable {}

/// An optional value as reports have it.
func text<Value>(_ value: Value?) -> String { value.map { "\($0)" } ?? "empty" }
