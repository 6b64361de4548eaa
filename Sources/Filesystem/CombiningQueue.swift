// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
private import Synchronization

/// Lets one task at a time work on a thing, on behalf of those that wait: whoever's turn it is takes the requests of
/// the others along, does all of them at once, and hands each its result. So a directory that many write to at the
/// same time costs one commit for many of them, and no task of its own.
///
/// Turns come in the order of arrival. A task that waits is not cancelled while it does: its request is short.
final class CombiningQueue<Request: Sendable, Response: Sendable>: Sendable {
  /// What a task that waited has to do.
  private enum Turn: Sendable {
    /// It is this task's turn: to work on its own request and those it takes along.
    case lead
    /// Another task has done it.
    case done(Response)
  }

  private struct Waiting: Sendable {
    /// Nil for a task that wants the thing to itself.
    let request: Request?
    let continuation: CheckedContinuation<Turn, Never>
  }

  private struct State {
    var isBusy = false
    var waiting: Deque<Waiting> = []
  }

  private let state = Mutex(State())
  private let batchCountMax: Int

  /// - Parameter batchCountMax: how many requests are done at once.
  init(batchCountMax: Int) { self.batchCountMax = batchCountMax }

  /// Has a request done, by this task or another.
  ///
  /// - Parameter work: does several requests at once and answers each, in their order.
  func submit(_ request: Request, work: ([Request]) async -> [Response]) async -> Response {
    switch await self.wait(request) {
    case .done(let response): return response
    case .lead: break
    }
    let others = self.takeAlong()
    let responses = await work([request] + others.compactMap(\.request))
    assert(responses.count == others.count + 1)
    for (waiting, response) in zip(others, responses.dropFirst()) {
      waiting.continuation.resume(returning: .done(response))
    }
    self.passOn()
    return responses[0]
  }

  /// Works alone: nobody else's requests are done meanwhile.
  func alone<Result>(_ work: () async throws -> Result) async rethrows -> Result {
    _ = await self.wait(nil)
    defer { self.passOn() }
    return try await work()
  }

  private func wait(_ request: Request?) async -> Turn {
    let leadsAtOnce = self.state.withLock { state in
      if state.isBusy { return false }
      state.isBusy = true
      return true
    }
    if leadsAtOnce { return .lead }
    return await withCheckedContinuation { continuation in
      let leads = self.state.withLock { state in
        if !state.isBusy {
          state.isBusy = true
          return true
        }
        state.waiting.append(Waiting(request: request, continuation: continuation))
        return false
      }
      if leads { continuation.resume(returning: .lead) }
    }
  }

  private func takeAlong() -> [Waiting] {
    self.state.withLock { state in
      var taken: [Waiting] = []
      while taken.count < self.batchCountMax - 1, let next = state.waiting.first, next.request != nil {
        taken.append(next)
        state.waiting.removeFirst()
      }
      return taken
    }
  }

  private func passOn() {
    let next = self.state.withLock { state -> Waiting? in
      guard let next = state.waiting.popFirst() else {
        state.isBusy = false
        return nil
      }
      return next
    }
    next?.continuation.resume(returning: .lead)
  }
}
