// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Synchronization

/// Many small operations, so many in flight at any time, until the time is over or there is nothing left to do. To be
/// run on the event loop of the connection.
struct Load: Sendable {
  let inFlight: Int
  /// Nil for no limit.
  let duration: Duration?

  private var deadline: ContinuousClock.Instant? { self.duration.map { .now + $0 } }

  /// One call for each operation. `body` does one; false when there is nothing left.
  ///
  /// - Returns: operations per second.
  func calls(_ body: @escaping @Sendable () async throws -> Bool) async throws -> Double {
    let deadline = self.deadline
    let start = ContinuousClock.now
    let count = try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<self.inFlight {
        group.addTask {
          var count = 0
          while deadline.map({ $0 > .now }) ?? true, try await body() { count += 1 }
          return count
        }
      }
      return try await group.reduce(0, +)
    }
    return Self.rate(count, since: start)
  }

  /// All operations over one session stream of the sector service: as many in one message as are waiting.
  ///
  /// - Parameters:
  ///   - make: makes at most so many operations, in messages; none when there is nothing left.
  ///   - take: takes an answer.
  /// - Returns: operations per second.
  func session(
    of service: some Blocktree_V1_SectorService.ClientProtocol,
    make: @escaping @Sendable (Int) throws -> [[Blocktree_V1_SectorOperation]],
    take: @escaping @Sendable (Blocktree_V1_SectorResult) throws -> Void
  ) async throws -> Double {
    let slots = Slots(self.inFlight)
    let deadline = self.deadline
    let start = ContinuousClock.now
    let count = try await service.session { writer in
      while deadline.map({ $0 > .now }) ?? true {
        let free = await slots.take()
        guard free > 0 else { return }
        let messages = try make(free)
        guard !messages.isEmpty else { return }
        for operations in messages { try await writer.write(.with { $0.operations = operations }) }
        slots.give(free - messages.reduce(0) { $0 + $1.count })
      }
    } onResponse: { response in
      defer { slots.end() }
      var count = 0
      for try await message in response.messages {
        for result in message.results { try take(result) }
        slots.give(message.results.count)
        count += message.results.count
      }
      return count
    }
    return Self.rate(count, since: start)
  }

  static func rate(_ count: Int, since start: ContinuousClock.Instant) -> Double {
    Double(count) / ((ContinuousClock.now - start) / .seconds(1))
  }
}

/// How many more operations may be in flight. One task takes, another one gives.
private final class Slots: Sendable {
  private struct State {
    var free: Int
    var isOver = false
    var waiter: CheckedContinuation<Void, Never>?
  }

  private let state: Mutex<State>

  init(_ count: Int) { self.state = Mutex(State(free: count)) }

  /// All that are free, at least one; 0 when it is over.
  func take() async -> Int {
    await withCheckedContinuation { waiter in
      let waits = self.state.withLock { state in
        guard state.free == 0, !state.isOver else { return false }
        state.waiter = waiter
        return true
      }
      if !waits { waiter.resume() }
    }
    return self.state.withLock { state in
      defer { state.free = 0 }
      return state.isOver ? 0 : state.free
    }
  }

  func give(_ count: Int) {
    guard count > 0 else { return }
    let waiter = self.state.withLock { state in
      state.free += count
      return state.waiter.take()
    }
    waiter?.resume()
  }

  func end() {
    let waiter = self.state.withLock { state in
      state.isOver = true
      return state.waiter.take()
    }
    waiter?.resume()
  }
}
