// SPDX-License-Identifier: Apache-2.0

/// A message in a mailbox, with what the runtime must know of it.
///
/// A mailbox is a list through these objects, so that one that is empty takes no memory.
class Letter: @unchecked Sendable {
  // Unchecked: `message` and these never change. `next` and `isVoid` are changed by whoever holds the letter alone: its
  // sender, then the lock of the cell that it waits in, then who handles it.
  let kind: Kind
  fileprivate(set) var next: Letter?
  /// Its sender has gone before there was room for it.
  var isVoid = false

  enum Kind: Sendable {
    case tell
    /// A tell that nobody wants any more after that moment.
    case expiring(ActorTime)
    /// A tell whose sender waits for room.
    case waiting(SendWaiter)
    case ask(AnyReplyToken)
    case notice(Watch)
  }

  init(_ kind: Kind) { self.kind = kind }

  /// For dead letters.
  var typeName: String { "" }
}

final class TypedLetter<Message: Sendable>: Letter, @unchecked Sendable {
  let message: Message

  init(_ message: Message, _ kind: Kind) {
    self.message = message
    super.init(kind)
  }

  override var typeName: String { String(reflecting: Message.self) }
}

/// Letters in order. Must be emptied letter by letter: a long list that is dropped at once would use up the stack.
struct LetterQueue {
  private var head: Letter?
  private unowned(unsafe) var tail: Letter?
  private(set) var count = 0

  var isEmpty: Bool { self.head == nil }

  mutating func append(_ letter: Letter) {
    if let tail = self.tail { tail.next = letter } else { self.head = letter }
    self.tail = letter
    self.count += 1
  }

  mutating func popFirst() -> Letter? {
    guard let first = self.head else { return nil }
    self.head = first.next
    first.next = nil
    if self.head == nil { self.tail = nil }
    self.count -= 1
    return first
  }
}
