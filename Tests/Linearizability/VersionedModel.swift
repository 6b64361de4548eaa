// SPDX-License-Identifier: Apache-2.0

/// A file per key: each write that succeeds gives it the next version, and a write may be conditional on the version.
/// Version 0 is a file that does not exist; the first write makes version 1.
package struct VersionedModel<Value: Hashable & Sendable>: Model {
  package struct State: Hashable, Sendable {
    package var value: Value?
    package var version: UInt64
  }

  package enum Input: Hashable, Sendable {
    case read
    /// Writes if the file has this version; nil writes whatever the version is.
    case write(Value, ifVersion: UInt64?)
  }

  package enum Output: Hashable, Sendable {
    /// To a read: what the file held, nil and 0 if it did not exist.
    case value(Value?, version: UInt64)
    /// To a write: the version it made.
    case written(version: UInt64)
    /// To a write: the file had another version, this one if it was told, and nothing was changed.
    case conflict(current: UInt64?)
  }

  /// What a history's answers tell of its versions. Each version is made once, by one write.
  private struct Knowledge: Sendable {
    /// Made by writes that were answered.
    var taken: Set<UInt64> = []
    /// What was read of a version; more than one value if the history is wrong.
    var values: [UInt64: Set<Value?>] = [:]
    /// The latest that explains anything; nil if there is no limit.
    var last: UInt64? = 0
    /// All values that were read.
    var read: Set<Value?> = []
    /// One that was not, in place of all others.
    var unread: Value?
  }

  package let initialState: State
  private var knowledge: Knowledge?

  package init(initially value: Value? = nil, version: UInt64 = 0) {
    self.initialState = State(value: value, version: version)
  }

  package func step(_ state: State, _ input: Input, _ output: Output?) -> State? {
    switch (input, output) {
    case (.read, nil):
      return state
    case (.read, .value(let value, let version)):
      return value == state.value && version == state.version ? state : nil
    case (.write(let value, let condition), nil):
      guard condition == nil || condition == state.version else { return state }
      let next = State(value: value, version: state.version + 1)
      return self.isUseful(next) ? next : nil
    case (.write(let value, let condition), .written(let version)):
      guard condition == nil || condition == state.version, version == state.version + 1 else { return nil }
      return State(value: value, version: version)
    case (.write(_, let condition?), .conflict(let current)):
      guard condition != state.version, current == nil || current == state.version else { return nil }
      return state
    default:
      return nil  // An answer to another question.
    }
  }

  /// Whether a write of unknown outcome may have made this, as far as is known.
  private func isUseful(_ state: State) -> Bool {
    guard let knowledge = self.knowledge else { return true }
    if knowledge.taken.contains(state.version) { return false }
    if let values = knowledge.values[state.version], !values.contains(state.value) { return false }
    return knowledge.last.map { state.version <= $0 } ?? true
  }

  package func knowing(_ operations: [(input: Input, output: Output?)]) -> Self {
    var knowledge = Knowledge()
    var last: UInt64 = 0
    var isLimited = true
    for operation in operations {
      switch (operation.input, operation.output) {
      case (.write, .written(let version)?):
        knowledge.taken.insert(version)
        last = max(last, version)
      case (_, .value(let value, let version)?):
        knowledge.values[version, default: []].insert(value)
        knowledge.read.insert(value)
        last = max(last, version)
      case (_, .conflict(let current?)?):
        last = max(last, current)
      case (_, .conflict(nil)?):
        isLimited = false  // Any later version would explain it.
      default: break
      }
    }
    knowledge.last = isLimited ? last : nil
    for case (.write(let value, _), nil) in operations where !knowledge.read.contains(value) {
      knowledge.unread = value
      break
    }
    var model = self
    model.knowledge = knowledge
    return model
  }

  package func simplified(_ input: Input) -> Input {
    guard case .write(let value, let condition) = input, let knowledge = self.knowledge, let unread = knowledge.unread,
      !knowledge.read.contains(value)
    else { return input }
    return .write(unread, ifVersion: condition)
  }

  package func isSpent(_ input: Input, in state: State) -> Bool {
    // Versions only grow.
    if case .write(_, let condition?) = input { condition < state.version } else { false }
  }

  package func describe(_ input: Input, _ output: Output?) -> String {
    let question =
      switch input {
      case .read: "read"
      case .write(let value, nil): "write(\(value))"
      case .write(let value, let version?): "write(\(value)) if at version \(version)"
      }
    let answer =
      switch output {
      case .value(let value, let version): "\(text(value)) at version \(version)"
      case .written(let version): "written as version \(version)"
      case .conflict(let current): "conflict" + (current.map { " with version \($0)" } ?? "")
      case nil: "?"
      }
    return "\(question) → \(answer)"
  }

  package func describe(_ state: State) -> String { "\(text(state.value)) at version \(state.version)" }
}

extension VersionedModel.Input: Encodable where Value: Encodable {}
extension VersionedModel.Input: Decodable where Value: Decodable {}
extension VersionedModel.Output: Encodable where Value: Encodable {}
extension VersionedModel.Output: Decodable where Value: Decodable {}
