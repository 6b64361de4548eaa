// SPDX-License-Identifier: Apache-2.0

/// Names an operation of one history, in the order of recording.
package struct OperationID: Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
  package let index: Int

  package static func < (left: Self, right: Self) -> Bool { left.index < right.index }
  package var description: String { "#\(self.index)" }
}

/// What clients asked, what they were answered, and when: the evidence that `check` judges.
///
/// Ticks may be anything that all clients share and that never goes back: nanoseconds of one machine's monotonic clock,
/// or, in a simulation, a count of the recorded events. An operation comes before another if its return has a smaller
/// tick than the other's invocation. With the same tick the two overlap, so coarse ticks let faults through.
package struct History<M: Model> {
  package struct Operation {
    package let id: OperationID
    /// Who asked. For the report alone: that a client waits for its answers shows in the ticks.
    package let client: Int
    /// The object it is about. Keys are checked one by one, as a history is linearizable if that of each key is.
    package let key: String
    package let input: M.Input
    /// Nil as long as the outcome is unknown.
    package fileprivate(set) var output: M.Output?
    package let invoked: UInt64
    /// Nil as long as the outcome is unknown: it may take effect at any time after the invocation, or never.
    package fileprivate(set) var returned: UInt64?
  }

  private var records: [Operation?] = []

  package init() {}

  /// All operations that may have had an effect, in the order of recording.
  package var operations: [Operation] { self.records.compactMap { $0 } }

  /// Records that a client asks. Until `complete` or `discard` is called the outcome is unknown, and if neither is ever
  /// called (the client timed out, the connection broke, the client died) it stays so.
  package mutating func invoke(_ input: M.Input, on key: String = "", by client: Int, at tick: UInt64) -> OperationID {
    let id = OperationID(index: self.records.count)
    self.records.append(
      Operation(id: id, client: client, key: key, input: input, output: nil, invoked: tick, returned: nil))
    return id
  }

  /// Records the answer to an operation that had none yet. The tick must not be before the invocation.
  package mutating func complete(_ id: OperationID, with output: M.Output, at tick: UInt64) {
    guard let record = self.records[id.index] else { preconditionFailure("\(id) was discarded.") }
    precondition(record.returned == nil, "\(id) has returned already.")
    precondition(record.invoked <= tick, "\(id) returns before it is invoked.")
    self.records[id.index]?.output = output
    self.records[id.index]?.returned = tick
  }

  /// Takes out an operation that certainly had no effect and never will, such as a refused one.
  package mutating func discard(_ id: OperationID) {
    precondition(self.records[id.index]?.returned == nil, "\(id) has returned already.")
    self.records[id.index] = nil
  }

  /// Records an operation that is over.
  @discardableResult
  package mutating func add(
    _ input: M.Input, _ output: M.Output, on key: String = "", by client: Int, from invoked: UInt64, to returned: UInt64
  ) -> OperationID {
    let id = self.invoke(input, on: key, by: client, at: invoked)
    self.complete(id, with: output, at: returned)
    return id
  }

  /// Records an operation whose outcome nobody knows.
  @discardableResult
  package mutating func addUnknown(
    _ input: M.Input, on key: String = "", by client: Int, from invoked: UInt64
  ) -> OperationID {
    self.invoke(input, on: key, by: client, at: invoked)
  }

  /// Appends what another recorder saw, with the same clock. The other's operations get new identifiers.
  package mutating func append(_ other: Self) {
    for operation in other.operations {
      let id = self.invoke(operation.input, on: operation.key, by: operation.client, at: operation.invoked)
      guard let output = operation.output, let returned = operation.returned else { continue }
      self.complete(id, with: output, at: returned)
    }
  }
}

// A history can be kept beside a failed test, or sent by a client in another process.
extension History.Operation: Sendable where M.Input: Sendable, M.Output: Sendable {}
extension History: Sendable where M.Input: Sendable, M.Output: Sendable {}
extension History.Operation: Encodable where M.Input: Encodable, M.Output: Encodable {}
extension History.Operation: Decodable where M.Input: Decodable, M.Output: Decodable {}
extension History: Encodable where M.Input: Encodable, M.Output: Encodable {}
extension History: Decodable where M.Input: Decodable, M.Output: Decodable {}
