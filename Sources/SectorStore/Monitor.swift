// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// State that threads share and wait on: a mutex with a condition. Only the store's own threads ever block in `wait`.
///
/// `@unchecked Sendable`: `state` is touched only between lock and unlock of `mutex`.
package final class Monitor<State: Sendable>: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private var state: State

  package init(_ state: State) {
    self.state = state
    self.mutex = .allocate(capacity: 1)
    self.condition = .allocate(capacity: 1)
    pthread_mutex_init(self.mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    // Not the wall clock, which may be set.
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(self.condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(self.condition)
    pthread_mutex_destroy(self.mutex)
    self.condition.deallocate()
    self.mutex.deallocate()
  }

  package func withLock<Result, Failure: Error>(_ body: (inout State) throws(Failure) -> Result) throws(Failure)
    -> Result
  {
    pthread_mutex_lock(self.mutex)
    defer { pthread_mutex_unlock(self.mutex) }
    return try body(&self.state)
  }

  /// Tries `body` now and after each `wakeAll` until it returns something.
  package func wait<Result>(_ body: (inout State) -> Result?) -> Result {
    pthread_mutex_lock(self.mutex)
    defer { pthread_mutex_unlock(self.mutex) }
    while true {
      if let result = body(&self.state) { return result }
      pthread_cond_wait(self.condition, self.mutex)
    }
  }

  /// Waits for a `wakeAll`, at most for so many nanoseconds; it may also return for no reason.
  package func wait(nanoseconds: UInt64, unless isOver: (State) -> Bool) {
    var end = timespec()
    clock_gettime(CLOCK_MONOTONIC, &end)
    let total = UInt64(end.tv_nsec) + nanoseconds % 1_000_000_000
    // Far enough in any case, and nothing overflows.
    end.tv_sec += Int(min(nanoseconds / 1_000_000_000, 1 << 32) + total / 1_000_000_000)
    end.tv_nsec = Int(total % 1_000_000_000)
    pthread_mutex_lock(self.mutex)
    defer { pthread_mutex_unlock(self.mutex) }
    if isOver(self.state) { return }
    pthread_cond_timedwait(self.condition, self.mutex, &end)
  }

  package func wakeOne() { pthread_cond_signal(self.condition) }
  package func wakeAll() { pthread_cond_broadcast(self.condition) }
}

/// A thread outside the cooperative pool, for work that blocks.
package enum WorkerThread {
  private final class Start: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Returns false where the system has no thread left.
  package static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
    defer { pthread_attr_destroy(&attributes) }
    let start = Unmanaged.passRetained(Start(body))
    var thread = pthread_t()
    let code = pthread_create(
      &thread, &attributes,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    if code != 0 {
      start.release()
      return false
    }
    return true
  }
}
