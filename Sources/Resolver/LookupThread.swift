// SPDX-License-Identifier: Apache-2.0

private import CAres
internal import Synchronization

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// A thread outside the cooperative pool: a look-up waits in `poll`.
enum LookupThread {
  private final class Start: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }

  /// Returns false where the system has no thread left.
  static func start(_ body: @escaping @Sendable () -> Void) -> Bool {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
    defer { pthread_attr_destroy(&attributes) }
    // Released by the thread, which takes it over, or here, when there is none.
    let start = Unmanaged.passRetained(Start(body))
    var thread = pthread_t()
    let code = pthread_create(
      &thread, &attributes,
      { argument in
        guard let argument else { return nil }
        Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
        return nil
      }, start.toOpaque())
    if code != 0 { start.release() }
    return code == 0
  }
}

/// Wakes a look-up's thread from `poll`, so that it ends.
final class LookupCancellation: Sendable {
  /// An eventfd, which becomes readable.
  let descriptor: Int32
  private let wasCancelled = Atomic(false)

  init() throws(ResolverError) {
    self.descriptor = eventfd(0, CInt(EFD_CLOEXEC) | CInt(EFD_NONBLOCK))
    guard self.descriptor >= 0 else { throw .unavailable(reason: String(cString: strerror(errno))) }
  }

  // The thread, the handler of the cancellation and the waiting function all hold this object while they use the
  // descriptor, so that none of them meets another one of the same number.
  deinit { close(self.descriptor) }

  var isCancelled: Bool { self.wasCancelled.load(ordering: .acquiring) }

  func cancel() {
    self.wasCancelled.store(true, ordering: .releasing)
    // It can fail only when the count is at its end, and then it is readable.
    _ = eventfd_write(self.descriptor, 1)
  }
}
