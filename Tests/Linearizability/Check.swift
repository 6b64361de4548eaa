// SPDX-License-Identifier: Apache-2.0

/// Steps of the model that the search may take for each key, unless told otherwise: a few seconds, and some hundred bytes
/// for each step that leads to something new.
package let defaultStepsMax = 2_000_000

/// Says whether the history is linearizable, key by key.
///
/// The same history always gets the same verdict. A violated key decides, whatever the others are; the keys are taken
/// in the order of their first operation. `stepsMax` is the budget of each key.
///
/// What costs time is not length, but overlap and unknown outcomes, which stay possible to the end. Tests help by writing
/// each value once, so that an answer tells which write it saw, and by spreading operations over several keys.
package func check<M: Model>(
  _ history: History<M>, against model: M, stepsMax: Int = defaultStepsMax
) -> Verdict {
  var keys: [String] = []
  var operations: [String: [History<M>.Operation]] = [:]
  for operation in history.operations {
    if operations[operation.key] == nil { keys.append(operation.key) }
    operations[operation.key, default: []].append(operation)
  }
  var undecided: Explanation?
  for key in keys {
    var judge = Judge(model, key: key, operations[key] ?? [])
    switch judge.verdict(stepsMax: stepsMax) {
    case .linearizable: continue
    case .violated(let explanation): return .violated(explanation)
    case .undecided(let explanation): undecided = undecided ?? explanation
    }
  }
  return undecided.map { .undecided($0) } ?? .linearizable
}

/// Stands between the search, which knows numbers only, and the model of one key.
struct Judge<M: Model> {
  private let model: M
  private let knowingModel: M
  private let key: String
  /// Those that returned, by invocation; after them those of unknown outcome, by invocation.
  private let operations: [History<M>.Operation]
  private let completedCount: Int
  /// What the search takes each of them to have asked.
  private let inputs: [M.Input]
  /// Each state that was met, once: the search compares and hashes indices into this.
  private var states: [M.State]
  private var numbers: [M.State: Int]

  init(_ model: M, key: String, _ operations: [History<M>.Operation]) {
    self.model = model
    self.knowingModel = model.knowing(operations.map { ($0.input, $0.output) })
    self.key = key
    let completed = operations.filter { $0.returned != nil }
    let unknown = operations.filter { $0.returned == nil }
    // Identifiers break ties, so that the order never depends on the sort.
    self.operations =
      completed.sorted { ($0.invoked, $0.returned ?? 0, $0.id) < ($1.invoked, $1.returned ?? 0, $1.id) }
      + unknown.sorted { ($0.invoked, $0.id) < ($1.invoked, $1.id) }
    self.completedCount = completed.count
    let knowingModel = self.knowingModel
    self.inputs = self.operations.map { $0.returned == nil ? knowingModel.simplified($0.input) : $0.input }
    self.states = [model.initialState]
    self.numbers = [model.initialState: 0]
  }

  mutating func verdict(stepsMax: Int) -> Verdict {
    let (outcome, stepsTaken) = self.search(stepsMax: stepsMax, refusesEarly: true)
    switch outcome {
    case .placedAll: return .linearizable
    case .outOfSteps(let place): return .undecided(self.explain(place, stepsTaken: stepsTaken))
    case .stuck(let place):
      // Knowing the rest of the history, the model refuses what leads nowhere before that shows. People better see the
      // place where it shows, if it can be found soon.
      guard case .stuck(let plain) = self.search(stepsMax: stepsMax / 10, refusesEarly: false).outcome else {
        return .violated(self.explain(place))
      }
      return .violated(self.explain(plain))
    }
  }

  private mutating func search(stepsMax: Int, refusesEarly: Bool) -> (outcome: Search.Outcome, stepsTaken: Int) {
    var latest: [M.Input: Int] = [:]
    let intervals = self.operations.indices.map { index in
      let twin = index < self.completedCount ? nil : latest.updateValue(index, forKey: self.inputs[index])
      let operation = self.operations[index]
      return Search.Interval(invoked: operation.invoked, returned: operation.returned, twin: twin)
    }
    var search = Search(intervals, stepsMax: stepsMax)
    let outcome = search.run(
      step: { self.step($0, $1, refusesEarly: refusesEarly) },
      isSpent: { self.knowingModel.isSpent(self.inputs[$1], in: self.states[$0]) })
    return (outcome, search.stepsTaken)
  }

  private mutating func step(_ state: Int, _ operation: Int, refusesEarly: Bool) -> Int? {
    let model = refusesEarly || operation >= self.completedCount ? self.knowingModel : self.model
    let next = model.step(self.states[state], self.inputs[operation], self.operations[operation].output)
    guard let next else { return nil }
    if let number = self.numbers[next] { return number }
    let number = self.states.count
    self.states.append(next)
    self.numbers[next] = number
    return number
  }
}

extension Judge {
  /// Operations of each kind that a report lists; more would hide what matters.
  private static var listedMax: Int { 16 }

  /// The steps are those after which the search gave up, nil if it did not.
  private func explain(_ place: Search.Place, stepsTaken: Int? = nil) -> Explanation {
    let prefix = place.path.map { self.operations[$0.operation] }
    let placed = Set(place.path.map(\.operation))
    let completedPlaced = placed.count { $0 < self.completedCount }
    let unplaced = place.candidates.map { self.operations[$0] }
    let name = self.key.isEmpty ? "" : " for key \"\(self.key)\""

    var lines: [String] = []
    if let stepsTaken {
      lines.append("Undecided\(name): no answer after \(stepsTaken) steps. This is how far the search came.")
    } else {
      lines.append("Not linearizable\(name).")
    }
    lines.append("\(completedPlaced) of \(self.completedCount) operations with a known outcome can be put in order:")
    if prefix.count > Self.listedMax { lines.append("  ... \(prefix.count - Self.listedMax) before these") }
    // Once more, with what was really asked.
    var state = self.model.initialState
    for (index, (operation, move)) in zip(prefix, place.path).enumerated() {
      state = self.model.step(state, operation.input, operation.output) ?? self.states[move.state]
      guard index + Self.listedMax >= prefix.count else { continue }
      lines.append("  \(self.line(operation))  then: \(self.model.describe(state))")
    }
    if prefix.isEmpty { lines.append("  (none)") }

    if let blocker = unplaced.first {
      let finding = stepsTaken == nil ? "fits neither here nor anywhere earlier" : "does not fit here"
      lines.append("The state is then \(self.model.describe(state)), and this operation \(finding):")
      lines.append("  \(self.line(blocker))")
    }
    if unplaced.count > 1 {
      lines.append("Nor can one of these come before it, which overlap with it:")
      for operation in unplaced.dropFirst().prefix(Self.listedMax) { lines.append("  \(self.line(operation))") }
      if unplaced.count - 1 > Self.listedMax { lines.append("  ... and \(unplaced.count - 1 - Self.listedMax) more") }
    }

    let limit = unplaced.first?.returned ?? .max
    let unknown = (self.completedCount..<self.operations.count)
      .filter { !placed.contains($0) && self.operations[$0].invoked <= limit }
      .filter { self.model.step(state, self.operations[$0].input, nil).map { $0 != state } ?? false }
    if !unknown.isEmpty {
      lines.append("Of unknown outcome, and of no help if they take effect here:")
      for index in unknown.suffix(Self.listedMax) { lines.append("  \(self.line(self.operations[index]))") }
      if unknown.count > Self.listedMax { lines.append("  ... and \(unknown.count - Self.listedMax) earlier ones") }
    }
    return Explanation(
      key: self.key, prefix: prefix.map(\.id), unplaced: unplaced.map(\.id), text: lines.joined(separator: "\n"))
  }

  private func line(_ operation: History<M>.Operation) -> String {
    let returned = operation.returned.map { "\($0)]" } ?? "?)"
    let what = self.model.describe(operation.input, operation.output)
    return "\(operation.id) client \(operation.client) [\(operation.invoked), \(returned) \(what)"
  }
}
