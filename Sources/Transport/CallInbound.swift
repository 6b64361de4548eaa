// SPDX-License-Identifier: Apache-2.0

internal import GRPCCore
internal import GRPCNIOTransportHTTP2Posix
internal import Synchronization

/// What a handler reads: the metadata, which the transport has already taken from the stream, and then the rest. Tells
/// the stream's budget about each message that the handler takes.
///
/// It can be read once. A second iterator finds nothing.
struct CallInbound: AsyncSequence, Sendable {
  typealias Element = RPCRequestPart<GRPCNIOTransportBytes>
  typealias Base = RPCAsyncSequence<Element, any Error>.AsyncIterator

  private let source: Source

  init(_ first: Element, then rest: Base, budget: StreamBudget?) {
    self.source = Source(AsyncIterator(first: first, rest: rest, budget: budget))
  }

  func makeAsyncIterator() -> AsyncIterator {
    self.source.take() ?? AsyncIterator(first: nil, rest: nil, budget: nil)
  }

  struct AsyncIterator: AsyncIteratorProtocol {
    fileprivate var first: Element?
    fileprivate var rest: Base?
    fileprivate let budget: StreamBudget?

    mutating func next() async throws -> Element? {
      try await self.next(isolation: nil)
    }

    mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> Element? {
      if let first = self.first.take() { return first }
      let part = try await self.rest?.next(isolation: actor)
      if case .message(let bytes)? = part, let budget = self.budget {
        budget.taken(byteCount: MessageFraming.prefixByteCount + bytes.count)
      }
      return part
    }
  }

  /// Holds the iterator until somebody takes it.
  ///
  /// `@unchecked Sendable`: the iterator is only touched under the lock, and whoever takes it is its only owner from
  /// then on, as nothing else has kept it.
  private final class Source: @unchecked Sendable {
    private let isTaken = Mutex(false)
    private var iterator: AsyncIterator?

    init(_ iterator: AsyncIterator) {
      self.iterator = iterator
    }

    func take() -> AsyncIterator? {
      self.isTaken.withLock { isTaken in
        defer { isTaken = true }
        return self.iterator.take()
      }
    }
  }
}
