// SPDX-License-Identifier: Apache-2.0

internal import Routes
private import Synchronization
internal import Trust

/// What a client remembers of what it has found, and the finds that are under way, so that equal ones are asked once.
///
/// Remembers by the rules of `RouteBook`: for no longer than an answer says, nor than `AnswerLifetime`; within
/// ``byteCountMax``. What names a process that could not be reached is forgotten.
final class FindAnswers: Sendable {
  /// Of memory, for all that is remembered.
  static let byteCountMax = 1 << 20
  /// Different finds under way that others can wait for, and all who wait together. Who comes then asks himself.
  static let queryCountMax = 256
  static let waiterCountMax = 4096

  /// An answer with what it says of how far it can be remembered.
  struct Answer: Sendable {
    let result: FindResult
    /// Nil when nothing of it is to be remembered.
    let learned: (found: Found, top: TreePath)?
  }

  /// Finds whose answers are good for each other.
  private struct Key: Hashable, Sendable {
    let query: FindQuery
    /// Nobody waits for somebody with another one.
    let timeout: Duration?
    /// Who asks anew is not to be told what was asked before there was a reason to.
    let isRefresh: Bool
  }

  private enum Turn: Sendable {
    case remembered(Found)
    case ask
    /// The same, for nobody else: too much is under way.
    case askAlone
    case answered(FindResult)
    /// Who has asked was cancelled.
    case again
  }

  private typealias Waiter = (id: UInt64, continuation: CheckedContinuation<Turn, any Error>)

  private struct State {
    var book: RouteBook
    var table = QueryTable<Key, Waiter>(
      queryCountMax: FindAnswers.queryCountMax, waiterCountMax: FindAnswers.waiterCountMax)
    var lastWaiter: UInt64 = 0
  }

  private let now: @Sendable () -> RouteTime
  private let state: Mutex<State>

  /// - Parameter now: the present time, on a clock that never goes back.
  init(now: @escaping @Sendable () -> RouteTime) {
    self.now = now
    let limits = RouteLimits(byteCountMax: Self.byteCountMax, lifetimeMax: AnswerLifetime.positive)
    self.state = Mutex(State(book: RouteBook(limits: limits, seed: .random(in: .min ... .max))))
  }

  /// Answers from memory, or waits for somebody who asks the same already, or asks.
  ///
  /// - Parameters:
  ///   - timeout: of `ask`.
  ///   - refresh: whether what is remembered does not count.
  func find(
    _ query: FindQuery, timeout: Duration?, refresh: Bool, _ ask: () async throws -> Answer
  ) async throws -> FindResult {
    let key = Key(query: query, timeout: timeout, isRefresh: refresh)
    while true {
      switch try await self.turn(key) {
      case .remembered(let found):
        let step = FindStep(
          directory: "\(found.directory ?? query.scope)", process: nil, event: .remembered(lifetime: found.lifetime))
        return FindResult(found: FoundProcesses(found), steps: [step])
      case .answered(let result): return result
      case .again: try Task.checkCancellation()
      case .askAlone:
        let answer = try await ask()
        self.state.withLock { self.learn(answer, of: query, &$0.book) }
        return answer.result
      case .ask:
        do {
          let answer = try await ask()
          self.finish(key, .success(.answered(answer.result)), answer)
          return answer.result
        } catch {
          self.finish(key, Task.isCancelled ? .success(.again) : .failure(error), nil)
          throw error
        }
      }
    }
  }

  /// A process could not be reached: all that is known of its directory is to be asked for anew.
  func drop(process: TreePath) {
    guard let directory = process.parent else { return }
    self.state.withLock { $0.book.trie.dropAll(at: directory) }
  }

  // MARK: Turns

  private func turn(_ key: Key) async throws -> Turn {
    let id = self.state.withLock { state in
      state.lastWaiter += 1
      return state.lastWaiter
    }
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let turn = self.state.withLock { state -> Turn? in
          // With the same lock as below: what somebody has just heard is not asked for again.
          if !key.isRefresh, let found = state.book.recall(key.query, now: self.now()) { return .remembered(found) }
          switch state.table.join(key, as: (id, continuation)) {
          case .lead: return .ask
          case .full: return .askAlone
          case .wait: return nil
          }
        }
        if let turn { continuation.resume(returning: turn) }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if turn == nil, Task.isCancelled { self.leave(key, id) }
      }
    } onCancel: {
      self.leave(key, id)
    }
  }

  private func leave(_ key: Key, _ id: UInt64) {
    let waiter = self.state.withLock { $0.table.leave(key) { $0.id == id } }
    waiter?.continuation.resume(throwing: CancellationError())
  }

  private func finish(_ key: Key, _ turn: Result<Turn, any Error>, _ answer: Answer?) {
    let waiters = self.state.withLock { state in
      if let answer { self.learn(answer, of: key.query, &state.book) }
      return state.table.finish(key)
    }
    for waiter in waiters { waiter.continuation.resume(with: turn) }
  }

  private func learn(_ answer: Answer, of query: FindQuery, _ book: inout RouteBook) {
    guard let (found, top) = answer.learned else { return }
    book.learn(found, of: query, upTo: top, now: self.now())
  }
}

// MARK: Conversions

extension FoundProcesses {
  fileprivate init(_ found: Found) {
    self.init(
      directory: found.directory?.description,
      processes: found.processes.map {
        FoundProcess(path: "\($0.path)", services: $0.services.map(\.name), addresses: $0.addresses.map(\.description))
      }, lifetime: found.lifetime, isStale: found.isStale)
  }
}

extension Found {
  /// Nil when something of it can not be remembered as it is.
  ///
  /// - Parameter lifetime: what it may be remembered for at most, beside its own lifetime.
  init?(_ found: FoundProcesses, within lifetime: Duration?) {
    var processes: [RouteProcess] = []
    for process in found.processes {
      guard let path = try? TreePath(parsing: process.path),
        let services = try? process.services.map({ try Service($0) }),
        let addresses = try? process.addresses.map({ try NetworkAddress(parsing: $0) })
      else { return nil }
      processes.append(RouteProcess(path: path, services: services, addresses: addresses))
    }
    let own = found.processes.isEmpty ? min(found.lifetime, AnswerLifetime.negative) : found.lifetime
    self.init(
      directory: found.directory.flatMap { try? TreePath(parsing: $0) }, processes: processes,
      lifetime: min(own, lifetime ?? own), isStale: found.isStale)
  }
}
