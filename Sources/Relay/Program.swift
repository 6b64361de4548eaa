// SPDX-License-Identifier: Apache-2.0

internal import Actors
private import Synchronization

/// A program that is attached: the calls that it works on. Messages are handed to it one after the other by its actor;
/// replies come from its stream.
final class Program: Sendable {
  /// Hands one message on; returns when it is on its way. The number of a call, or 0.
  typealias Hand = @Sendable (IncomingMessage, UInt64) async throws -> Void

  struct Ended: Error {}

  private struct State {
    /// By number. Whoever waits hears that there will be no answer when the last of these is gone.
    var calls: [UInt64: Ask<IncomingMessage, ProgramReply>] = [:]
    var lastCall: UInt64 = 0
    var hasEnded = false
    /// Of the actor, while as many calls are worked on as may be. There is one at most.
    var waiter: CheckedContinuation<Void, Never>?
  }

  private let concurrency: Int
  private let hand: Hand
  private let state = Mutex(State())

  /// How long it is waited for a reply before it is looked whether anybody waits for one.
  private static let interval = Duration.milliseconds(250)

  init(concurrency: Int, hand: @escaping Hand) {
    self.concurrency = concurrency
    self.hand = hand
  }

  /// Hands a message over, when the program may be given one more.
  ///
  /// - Throws: `Ended`, and what `hand` throws: then it is given no more.
  func receive(_ message: ProgramMessage) async throws {
    switch message {
    case .tell(let message):
      // As it was said when it was sent.
      if !message.isExpired { try await self.hand(message, 0) }
    case .call(let ask):
      while !ask.isAbandoned {
        guard let number = try self.begin(ask) else {
          await self.waitForReply()
          continue
        }
        return try await self.hand(ask.request, number)
      }
    }
  }

  /// Nil when as many calls are worked on as may be. Those that nobody waits for any more do not count.
  private func begin(_ ask: Ask<IncomingMessage, ProgramReply>) throws -> UInt64? {
    let (number, gone) = try self.state.withLock { state throws -> (UInt64?, [Ask<IncomingMessage, ProgramReply>]) in
      guard !state.hasEnded else { throw Ended() }
      var gone: [Ask<IncomingMessage, ProgramReply>] = []
      if state.calls.count >= self.concurrency {
        for (number, call) in state.calls where call.isAbandoned {
          state.calls[number] = nil
          gone.append(call)
        }
      }
      guard state.calls.count < self.concurrency else { return (nil, gone) }
      state.lastCall += 1
      state.calls[state.lastCall] = ask
      return (state.lastCall, gone)
    }
    // What their end sets off is not done under the lock.
    withExtendedLifetime(gone) {}
    return number
  }

  private func waitForReply() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask {
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let former = self.state.withLock { state -> CheckedContinuation<Void, Never>? in
              if state.hasEnded || Task.isCancelled { return continuation }
              defer { state.waiter = continuation }
              return state.waiter
            }
            former?.resume()
          }
        } onCancel: {
          self.wake()
        }
      }
      group.addTask { try? await Task.sleep(for: Self.interval) }
      await group.next()
      group.cancelAll()
    }
  }

  private func wake() {
    let waiter = self.state.withLock { state in
      defer { state.waiter = nil }
      return state.waiter
    }
    waiter?.resume()
  }

  /// Takes a reply. One that nobody waits for is ignored.
  func reply(_ reply: ProgramReply, to number: UInt64) {
    let call = self.state.withLock { $0.calls.removeValue(forKey: number) }
    call?.reply(reply)
    self.wake()
  }

  /// Takes no more messages and replies, and lets go of all calls.
  func end() {
    let calls = self.state.withLock { state in
      state.hasEnded = true
      defer { state.calls = [:] }
      return state.calls
    }
    // What their end sets off is not done under the lock.
    withExtendedLifetime(calls) {}
    self.wake()
  }
}

/// The actor of a program, whose mailbox is where messages wait for it.
struct ProgramActor: AsyncActorBehaviour {
  let program: Program

  mutating func receive(_ message: ProgramMessage, in _: ActorContext<ProgramMessage>) async throws {
    try await self.program.receive(message)
  }

  mutating func end(_: EndReason) { self.program.end() }
}
