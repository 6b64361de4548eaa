// SPDX-License-Identifier: Apache-2.0

import Linearizability

/// The definition, word by word: tries all orders of all operations, with every choice of the unknown ones that take
/// effect. Takes time that grows with the factorial of their number.
func isLinearizableByBruteForce<M: Model>(_ history: History<M>, _ model: M) -> Bool {
  func canFinish(_ state: M.State, _ left: [History<M>.Operation]) -> Bool {
    if left.allSatisfy({ $0.returned == nil }) { return true }
    for (index, operation) in left.enumerated() {
      let mustWait = left.contains { $0.returned.map { $0 < operation.invoked } ?? false }
      if mustWait { continue }
      guard let next = model.step(state, operation.input, operation.output) else { continue }
      var others = left
      others.remove(at: index)
      if canFinish(next, others) { return true }
    }
    return false
  }
  // Keys are independent objects: the whole is linearizable if each of them is (Herlihy and Wing, 1990, theorem 1).
  let keys = Set(history.operations.map(\.key))
  return keys.allSatisfy { key in canFinish(model.initialState, history.operations.filter { $0.key == key }) }
}

/// Whether these operations in this order are possible and leave out none that returned before one of them began.
func explains<M: Model>(_ prefix: [History<M>.Operation], of all: [History<M>.Operation], _ model: M) -> M.State? {
  var state = model.initialState
  var left = all
  for operation in prefix {
    guard let index = left.firstIndex(where: { $0.id == operation.id }) else { return nil }
    left.remove(at: index)
    if left.contains(where: { $0.returned.map { $0 < operation.invoked } ?? false }) { return nil }
    guard let next = model.step(state, operation.input, operation.output) else { return nil }
    state = next
  }
  return state
}
