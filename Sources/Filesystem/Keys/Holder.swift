// SPDX-License-Identifier: Apache-2.0

private import Synchronization

/// What a request to change a directory has found out, for whoever asked: it is made again after a conflict, and sets it
/// anew each time.
final class Holder<Value: Sendable>: Sendable {
  private let state = Mutex<Value?>(nil)

  var value: Value? {
    get { self.state.withLock { $0 } }
    set { self.state.withLock { $0 = newValue } }
  }
}

/// The same for a number.
final class Counter: Sendable {
  private let state = Mutex(0)

  var value: Int { self.state.withLock { $0 } }
  func add(_ count: Int = 1) { self.state.withLock { $0 += count } }
  func reset() { self.state.withLock { $0 = 0 } }
}
