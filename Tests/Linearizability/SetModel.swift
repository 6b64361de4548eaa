// SPDX-License-Identifier: Apache-2.0

/// A set per key, such as the names in a directory: elements are added, removed, looked for, and listed all at once.
package struct SetModel<Element: Hashable & Sendable>: Model {
  package enum Input: Hashable, Sendable {
    case add(Element)
    case remove(Element)
    case contains(Element)
    case list
  }

  package enum Output: Hashable, Sendable {
    /// To adding and removing: whether it changed the set. To `contains`: whether the element is there.
    case answer(Bool)
    case elements(Set<Element>)
  }

  package let initialState: Set<Element>

  package init(initially elements: Set<Element> = []) { self.initialState = elements }

  package func step(_ state: Set<Element>, _ input: Input, _ output: Output?) -> Set<Element>? {
    var next = state
    let truth: Output
    switch input {
    case .add(let element): truth = .answer(next.insert(element).inserted)
    case .remove(let element): truth = .answer(next.remove(element) != nil)
    case .contains(let element): truth = .answer(next.contains(element))
    case .list: truth = .elements(next)
    }
    return output == nil || output == truth ? next : nil
  }

  package func describe(_ input: Input, _ output: Output?) -> String {
    let answer =
      switch output {
      case .answer(let isTrue): "\(isTrue)"
      case .elements(let elements): self.describe(elements)
      case nil: "?"
      }
    return "\(input) → \(answer)"
  }

  /// Sorted by their text, as sets have another order in each run.
  package func describe(_ state: Set<Element>) -> String {
    "{" + state.map { "\($0)" }.sorted().joined(separator: ", ") + "}"
  }
}

extension SetModel.Input: Encodable where Element: Encodable {}
extension SetModel.Input: Decodable where Element: Decodable {}
extension SetModel.Output: Encodable where Element: Encodable {}
extension SetModel.Output: Decodable where Element: Decodable {}
