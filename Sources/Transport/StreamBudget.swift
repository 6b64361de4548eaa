// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What some streams have received, together, and their handlers have not taken yet: those of one connection, and above
/// that those of all connections.
final class ReceiveBudget: Sendable {
  private let limit: Int
  private let parent: ReceiveBudget?
  private let byteCount = Atomic(0)

  /// - Parameter parent: What is counted here is counted there, too.
  init(limit: Int, within parent: ReceiveBudget? = nil) {
    self.limit = limit
    self.parent = parent
  }

  /// False, when that is more than there may be, here or above; it counts all the same, until it is released.
  func received(_ byteCount: Int) -> Bool {
    let fits = self.byteCount.add(byteCount, ordering: .relaxed).newValue <= self.limit
    return self.parent.map { $0.received(byteCount) && fits } ?? fits
  }

  func release(_ byteCount: Int) {
    self.byteCount.subtract(byteCount, ordering: .relaxed)
    self.parent?.release(byteCount)
  }
}

/// What one stream has received and its handler has not taken yet.
///
/// The runtime stops reading from a stream only after ten messages, of whatever size. This counts bytes: the stream's
/// gate adds what arrives, the handler's side subtracts what it takes, and while too much lies between the two nothing
/// more is read. HTTP/2 flow control then stops the sender.
final class StreamBudget: Sendable {
  private struct State {
    var byteCount = 0
    var wholeMessageCount = 0
    var isHeld = false
    var isClosed = false
    var resume: (@Sendable () -> Void)?

    /// A message that is incomplete has to go on: its handler can not take it before it is whole. What that may cost
    /// is bounded by the largest message.
    func isFull(_ limit: Int) -> Bool { self.wholeMessageCount > 0 && self.byteCount >= limit }
  }

  private let limit: Int
  private let connection: ReceiveBudget
  private let state = Mutex(State())

  init(limit: Int, connection: ReceiveBudget) {
    self.limit = limit
    self.connection = connection
  }

  /// - Parameter resume: Called from any thread, when reading may go on after ``mayRead()`` has said no.
  func onResume(_ resume: @escaping @Sendable () -> Void) {
    self.state.withLock { $0.resume = resume }
  }

  /// False, when that is more than the connection may have, or all of them.
  func received(byteCount: Int, wholeMessageCount: Int) -> Bool {
    self.state.withLock {
      $0.byteCount += byteCount
      $0.wholeMessageCount += wholeMessageCount
    }
    return self.connection.received(byteCount)
  }

  /// The stream has ended. What it still holds is no longer counted. Idempotent.
  func close() {
    let byteCount = self.state.withLock { state in
      state.resume = nil
      state.isClosed = true
      defer { state.byteCount = 0 }
      return state.byteCount
    }
    self.connection.release(byteCount)
  }

  func mayRead() -> Bool {
    self.state.withLock {
      $0.isHeld = $0.isFull(self.limit)
      return !$0.isHeld
    }
  }

  func taken(byteCount: Int) {
    let resume: (@Sendable () -> Void)? = self.state.withLock { state in
      guard !state.isClosed else { return nil }
      state.byteCount -= byteCount
      state.wholeMessageCount -= 1
      self.connection.release(byteCount)
      guard state.isHeld, !state.isFull(self.limit) else { return nil }
      state.isHeld = false
      return state.resume
    }
    resume?()
  }
}

/// Follows the messages in a stream by their prefixes: a byte of flags, four of length (gRPC over HTTP/2,
/// "Length-Prefixed-Message").
struct MessageFraming {
  static let prefixByteCount = 5

  /// How much of the prefix has been read, and the length so far.
  private var prefix = (count: 0, length: 0)
  private var missing = 0

  /// Whether a message has begun that is not complete.
  var isInsideMessage: Bool { self.missing > 0 || self.prefix.count > 0 }

  enum Progress: Hashable {
    /// So many messages have become complete.
    case messages(Int)
    /// One begins that is larger than the limit.
    case tooLarge(byteCount: Int)
  }

  mutating func advance(over bytes: UnsafeRawBufferPointer, limit: Int) -> Progress {
    var index = 0
    var completed = 0
    while index < bytes.count {
      if self.missing > 0 {
        let step = min(self.missing, bytes.count - index)
        index += step
        self.missing -= step
        if self.missing == 0 { completed += 1 }
        continue
      }
      if self.prefix.count > 0 { self.prefix.length = self.prefix.length << 8 | Int(bytes[index]) }
      self.prefix.count += 1
      index += 1
      guard self.prefix.count == Self.prefixByteCount else { continue }
      let length = self.prefix.length
      guard length <= limit else { return .tooLarge(byteCount: length) }
      self.prefix = (0, 0)
      self.missing = length
      if length == 0 { completed += 1 }
    }
    return .messages(completed)
  }
}
