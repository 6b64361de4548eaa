// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials
private import Synchronization
package import Trust

/// Finds a credential file wherever in the domain it is stored.
package protocol CredentialSource: Sendable {
  /// The credential file at a path, as the cluster that stores it has it now, and for how long that may be believed;
  /// nil when there is none.
  ///
  /// - Throws: when no process that knows could be reached.
  func readCredential(_ path: TreePath) async throws -> (file: [UInt8], lifetime: Duration)?
}

/// Where confirmed principals from elsewhere are written down, for all that judge by it.
package protocol GuestRegister: Sendable {
  /// Somebody is confirmed, for as long as this.
  func note(_ file: VerifiedCredentialFile, for lifetime: Duration)
  /// Somebody is not confirmed any more.
  func remove(_ path: TreePath)
}

/// Confirms callers whose credential files other clusters store: asks for the file, verifies it, compares the key, and
/// writes down who is confirmed, until when.
///
/// Questions are asked in ``run()``. Rules and bounds are those of ``ConfirmationMachine``.
package final class CredentialLookup: Sendable {
  package typealias Waiter = CheckedContinuation<Standing, Never>

  private struct State {
    var machine: ConfirmationMachine<Waiter>
    var lastWaiter: UInt64 = 0
    var isStopped = false
  }

  private let source: any CredentialSource
  private let guests: any GuestRegister
  private let verifier: ChainVerifier
  private let timeout: Duration
  private let lifetimeMax: Int64
  private let now: @Sendable () -> Int64
  private let date: @Sendable () -> Date
  private let state: Mutex<State>
  /// Bounded by the machine: about each path there is one question at a time.
  private let questions: AsyncStream<TreePath>
  private let question: AsyncStream<TreePath>.Continuation

  /// For one question, with all redirects. Longer than it takes to find out that one process does not answer.
  package static let timeout = Duration.seconds(8)

  /// - Parameters:
  ///   - source: where to ask.
  ///   - guests: where to write down who is confirmed.
  ///   - home: the directory that this process's cluster serves.
  ///   - now: nanoseconds on a clock that never goes back.
  ///   - date: the present time, by which certificates hold.
  package init(
    source: any CredentialSource, guests: any GuestRegister, verifier: ChainVerifier,
    home: TreePath = .root, limits: ConfirmationLimits = .init(), timeout: Duration = CredentialLookup.timeout,
    now: @escaping @Sendable () -> Int64, date: @escaping @Sendable () -> Date
  ) {
    self.source = source
    self.guests = guests
    self.verifier = verifier
    self.timeout = timeout
    self.lifetimeMax = limits.lifetime
    self.now = now
    self.date = date
    self.state = Mutex(State(machine: ConfirmationMachine(limits, home: home)))
    (self.questions, self.question) = AsyncStream.makeStream(of: TreePath.self)
  }

  /// Asks questions until it is cancelled; whoever waits then hears that nobody can be reached. Call it once.
  package func run() async {
    await withTaskCancellationHandler {
      await withDiscardingTaskGroup { group in
        for await path in self.questions {
          group.addTask { await self.ask(path) }
        }
      }
    } onCancel: {
      self.stop()
    }
    self.stop()
  }

  /// Whether somebody with a verified chain stands in the tree with this key. Waits while that is asked; needs
  /// ``run()``.
  package func confirm(_ credential: Credential) async -> Standing {
    let id = self.state.withLock { state in
      state.lastWaiter += 1
      return state.lastWaiter
    }
    let path = credential.path
    return await withTaskCancellationHandler {
      await withCheckedContinuation { waiter in
        let answer = self.state.withLock { state in
          state.isStopped
            ? .now(.unreachable) : state.machine.request(path, credential.keyID, id, waiter, now: self.now())
        }
        switch answer {
        case .now(let standing): waiter.resume(returning: standing)
        case .wait(let asks): if asks { self.question.yield(path) }
        case .refresh:
          self.question.yield(path)
          waiter.resume(returning: .confirmed)
        }
        // Cancelled before it was waiting: the handler below has found nothing then.
        if Task.isCancelled { self.cancel(path, id) }
      }
    } onCancel: {
      self.cancel(path, id)
    }
  }

  /// Keeps what is known of somebody fresh, who may not call at present but has a connection open.
  ///
  /// - Returns: whether the connection is to be closed, since the confirmation has ended or somebody was refused.
  package func hasLapsed(_ credential: Credential) -> Bool {
    let now = self.now()
    let (asks, hasLapsed) = self.state.withLock { state in
      guard !state.isStopped else { return (false, false) }
      return (
        state.machine.touch(credential.path, credential.keyID, now: now),
        state.machine.hasLapsed(credential.path, credential.keyID, now: now)
      )
    }
    if asks { self.question.yield(credential.path) }
    return hasLapsed
  }

  /// Questions under way.
  package var questionCount: Int { self.state.withLock { $0.machine.questionCount } }

  private func ask(_ path: TreePath) async {
    let found = await self.find(path)
    // Once for both: whoever is confirmed here is so there.
    let now = self.now()
    let outcome: ConfirmationOutcome
    switch found {
    case .success(let (file, lifetime)?):
      outcome = .found(keyID: file.marks.keyID, lifetime: lifetime.nanoseconds)
      // Before anybody goes on who judges by it.
      self.guests.note(file, for: lifetime)
    case .success(nil):
      outcome = .absent
      self.guests.remove(path)
    case .failure:
      outcome = .unreachable
    }
    let told = self.state.withLock { $0.machine.settle(path, outcome, now: now) }
    for (waiter, standing) in told { waiter.resume(returning: standing) }
  }

  private typealias Found = (file: VerifiedCredentialFile, lifetime: Duration)

  /// The verified credential file; nil when there is none, or none that verifies.
  private func find(_ path: TreePath) async -> Result<Found?, any Error> {
    let answer: (file: [UInt8], lifetime: Duration)?
    do {
      answer = try await withTimeout(self.timeout) { try await self.source.readCredential(path) }
    } catch {
      return .failure(error)
    }
    guard let answer, let file = try? CredentialFile(bytes: answer.file),
      let verified = try? file.verify(with: self.verifier, at: self.date()), verified.credential.path == path
    else { return .success(nil) }
    let lifetime = min(answer.lifetime, .nanoseconds(self.lifetimeMax))
    return .success((verified, lifetime))
  }

  private func cancel(_ path: TreePath, _ id: UInt64) {
    let waiter = self.state.withLock { $0.machine.cancel(path, id) }
    // Whoever was cancelled does not look at it.
    waiter?.resume(returning: .unreachable)
  }

  private func stop() {
    let waiters = self.state.withLock { state in
      state.isStopped = true
      return state.machine.stop()
    }
    self.question.finish()
    for waiter in waiters { waiter.resume(returning: .unreachable) }
  }
}

/// Says that something took too long.
package struct TimeoutError: Error, Hashable, Sendable {}

/// Runs a body, and cancels it when it takes longer than this.
package func withTimeout<Result: Sendable>(
  _ duration: Duration, _ body: @Sendable () async throws -> Result
) async throws -> Result {
  try await withoutActuallyEscaping(body) { body in
    try await withThrowingTaskGroup(of: Result.self) { group in
      group.addTask { try await body() }
      group.addTask {
        try await Task.sleep(for: duration)
        throw TimeoutError()
      }
      defer { group.cancelAll() }
      guard let result = try await group.next() else { throw TimeoutError() }
      return result
    }
  }
}

extension Duration {
  /// Rounded towards zero. Only for durations of at most some years.
  package var nanoseconds: Int64 {
    let (seconds, attoseconds) = self.components
    return seconds * 1_000_000_000 + attoseconds / 1_000_000_000
  }
}
