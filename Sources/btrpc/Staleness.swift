// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
private import Synchronization

extension Standard {
  /// Says on standard error that what was printed of a path may be old.
  static func noteStale(_ path: String) {
    self.flushQuietly()
    self.complain(
      Terminal.escaped("btrpc: \(path): this may be old: the processes of the directory above can not be reached"))
  }
}

/// Something that has happened, at least once, or not.
final class OneTime: Sendable {
  private let value = Atomic(false)

  var isSet: Bool { self.value.load(ordering: .acquiring) }

  func set() { self.value.store(true, ordering: .releasing) }
}
