// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// Remembers of another cluster that calls to it have waited in vain, so that not everybody waits: for some seconds all are
/// told at once that it can not be reached; after that one call finds out whether it can.
final class ClusterSilence: Sendable {
  /// A call that may be made. What becomes of it has to be told.
  struct Call: Sendable {
    fileprivate let begin: ContinuousClock.Instant
    fileprivate let isProbe: Bool
  }

  private struct State {
    /// Until when nobody tries; nil while the cluster answers.
    var until: ContinuousClock.Instant?
    /// Whether somebody finds out.
    var isProbing = false
    /// When a process of the cluster has said something, the last time.
    var life: ContinuousClock.Instant?
  }

  /// For how long nobody tries.
  private static let pause = Duration.seconds(3)
  /// Waits that are shorter cost nobody much.
  private static let patience = Duration.seconds(1)

  private let state = Mutex(State())

  /// Nil when it is better not to call.
  func begin(_ now: ContinuousClock.Instant = .now) -> Call? {
    self.state.withLock { state in
      guard let until = state.until else { return Call(begin: now, isProbe: false) }
      guard now >= until, !state.isProbing else { return nil }
      state.isProbing = true
      return Call(begin: now, isProbe: true)
    }
  }

  /// A process of the cluster has said something, if only that it lives.
  func noteLife(_ now: ContinuousClock.Instant = .now) { self.state.withLock { $0.life = now } }

  /// - Parameters:
  ///   - hasAnswered: nil when nobody waited for the answer any more.
  ///   - waited: how long it has waited for one process without hearing anything, at most.
  func end(_ call: Call, hasAnswered: Bool?, waited: Duration, _ now: ContinuousClock.Instant = .now) {
    self.state.withLock { state in
      if call.isProbe { state.isProbing = false }
      switch hasAnswered {
      case true?: state.until = nil
      case false?:
        // This call may have waited for something else.
        if let life = state.life, life > call.begin {
          state.until = nil
        } else if call.isProbe || waited >= Self.patience {
          state.until = now + Self.pause
        }
      case nil: break
      }
    }
  }
}
