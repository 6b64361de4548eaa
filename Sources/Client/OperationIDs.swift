// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import FoundationEssentials
internal import SwiftProtobuf
private import Synchronization

/// Numbers the mutating operations of a client, in a session that is opened when the first one comes.
///
/// A request that carries such an id is applied once, however often it is sent: so it can be repeated when its answer
/// was lost.
package final class OperationIDs: Sendable {
  private struct State {
    var session: Data?
    var sequence: UInt64 = 0
    var isOpening = false
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private enum Step {
    case take(Blocktree_V1_OperationId)
    case open
    case wait
  }

  private let state = Mutex(State())

  package init() {}

  /// The next id. Those who ask while a session is being opened wait for it.
  ///
  /// - Parameter open: Opens a session, and answers its 16 bytes.
  package func next(opening open: () async throws -> Data) async throws -> Blocktree_V1_OperationId {
    while true {
      let step = self.state.withLock { state -> Step in
        if let session = state.session {
          state.sequence += 1
          return .take(
            .with {
              $0.session = session
              $0.sequence = state.sequence
            })
        }
        if state.isOpening { return .wait }
        state.isOpening = true
        return .open
      }
      switch step {
      case .take(let id): return id
      case .wait: await self.waitForSession()
      case .open:
        do {
          self.opened(try await open())
        } catch {
          self.opened(nil)
          throw error
        }
      }
    }
  }

  /// The session is not known any more: the next id comes from a new one.
  package func forget(_ id: Blocktree_V1_OperationId) {
    self.state.withLock { state in
      if state.session == id.session { state.session = nil }
    }
  }

  private func waitForSession() async {
    await withCheckedContinuation { continuation in
      let isOpening = self.state.withLock { state in
        if state.isOpening { state.waiters.append(continuation) }
        return state.isOpening
      }
      if !isOpening { continuation.resume() }
    }
  }

  private func opened(_ session: Data?) {
    let waiters = self.state.withLock { state in
      state.session = session
      state.sequence = 0
      state.isOpening = false
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume() }
  }
}
