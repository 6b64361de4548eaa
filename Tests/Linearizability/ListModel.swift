// SPDX-License-Identifier: Apache-2.0

/// A list per key, to which values are appended and which is read as a whole. One read shows the order of all appends
/// before it, so histories of lists find more faults than those of registers do.
package struct ListModel<Value: Hashable & Sendable>: Model {
  package enum Input: Hashable, Sendable {
    case append(Value)
    case read
  }

  package enum Output: Hashable, Sendable {
    case appended
    case values([Value])
  }

  package let initialState: [Value]
  /// The longest list that was read, if that is known.
  private var longestRead: [Value]?

  package init(initially values: [Value] = []) { self.initialState = values }

  package func step(_ state: [Value], _ input: Input, _ output: Output?) -> [Value]? {
    switch (input, output) {
    case (.append(let value), let output) where output == nil || output == .appended:
      guard let longest = self.longestRead else { return state + [value] }
      // The longest list that was read must come from this one, unless it has been read before. If it has, then no
      // longer one is read after it, and an append of unknown outcome explains nothing more.
      guard state.count < longest.count else { return output == nil ? nil : state + [value] }
      return value == longest[state.count] ? state + [value] : nil
    case (.read, nil): return state
    case (.read, .values(let values)): return values == state ? state : nil
    default: return nil  // An answer to another question.
    }
  }

  package func knowing(_ operations: [(input: Input, output: Output?)]) -> Self {
    var model = self
    var longest: [Value] = []
    for case (_, .values(let values)?) in operations where values.count > longest.count { longest = values }
    model.longestRead = longest
    return model
  }

  package func describe(_ input: Input, _ output: Output?) -> String {
    let question =
      switch input {
      case .append(let value): "append(\(value))"
      case .read: "read"
      }
    let answer =
      switch output {
      case .appended: "appended"
      case .values(let values): "\(values)"
      case nil: "?"
      }
    return "\(question) → \(answer)"
  }
}

extension ListModel.Input: Encodable where Value: Encodable {}
extension ListModel.Input: Decodable where Value: Decodable {}
extension ListModel.Output: Encodable where Value: Encodable {}
extension ListModel.Output: Decodable where Value: Decodable {}
