// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
package import GRPCProtobuf

/// What a service does with a session stream: a long-lived stream on which a client has many operations in flight, and
/// many in one message.
package protocol SessionService: Sendable {
  /// A message of the client.
  associatedtype Request: Sendable
  associatedtype Operation: Sendable
  associatedtype Answer: Sendable
  /// A message to the client.
  associatedtype Response: Sendable

  /// Takes a message apart. What it throws ends the stream, once the operations before it are answered.
  func operations(in request: Request) throws -> [Operation]

  /// What an operation holds until its answer is written: the bytes of its request and those that its answer may have.
  func byteCount(of operation: Operation) -> Int

  /// Performs operations that came together. Each is answered once; the order is free. It may take as long as it
  /// likes: meanwhile, it is called with the operations that come next.
  func perform(_ operations: [Operation], _ answers: SessionAnswers<Answer>) async

  /// How large an answer is.
  func byteCount(of answer: Answer) -> Int

  /// Makes one message of the answers that go out together. What it throws ends the stream.
  func response(_ answers: [Answer]) throws -> Response
}

/// Takes the answers to the operations that `SessionService.perform` was called with.
package struct SessionAnswers<Answer: Sendable>: Sendable {
  fileprivate let take: @Sendable (Answer, Int) -> Void

  /// Answers an operation. Never waits.
  ///
  /// - Parameter index: the place of the operation among those that came together.
  package func send(_ answer: Answer, for index: Int) { self.take(answer, index) }
}

/// What a session stream may hold at once.
package struct SessionLimits: Hashable, Sendable {
  /// Operations in flight; more wait to be read.
  package var operationCountMax = 256
  /// Bytes that operations in flight hold. A single operation that holds more is performed alone.
  package var byteCountMax = 4 << 20
  /// Answers go out in messages of up to this many bytes. A larger answer has a message of its own.
  package var messageByteCount = 128 << 10

  package init() {}
}

/// Runs a session stream: reads as many operations as there is room for, performs them concurrently, and sends all
/// answers that wait as one message, as a log does with a sync.
///
/// All of it runs where its caller runs, which is the event loop of the connection: no task here waits for another
/// thread. Operations are never cancelled. When the client has ended the stream, or sent something that ends it, all
/// that was begun is answered first.
package struct SessionStream<Service: SessionService>: Sendable {
  private let service: Service
  private let limits: SessionLimits

  package init(_ service: Service, limits: SessionLimits = SessionLimits()) {
    self.service = service
    self.limits = limits
  }

  private typealias Flow = SessionFlow<Service.Operation, Service.Answer>

  private enum Part {
    case reader
    case writer
  }

  /// Returns when the client has ended the stream and everything is answered.
  ///
  /// - Throws: what the service threw at a message, what the stream threw, and `SessionStopped` when the server shuts
  ///   down.
  package func run(
    _ requests: RPCAsyncSequence<Service.Request, any Error>, _ writer: RPCWriter<Service.Response>
  ) async throws {
    let flow = Flow(self.limits)
    try await withRPCCancellationHandler {
      try await withThrowingTaskGroup(of: Part.self) { tasks in
        tasks.addTask {
          await self.read(requests, flow)
          return .reader
        }
        tasks.addTask {
          await self.write(flow, writer)
          return .writer
        }
        await withDiscardingTaskGroup { operations in
          while let taken = await flow.take() {
            operations.addTask { await self.perform(taken, flow) }
          }
        }
        flow.endAnswers()
        while let part = try await tasks.next() {
          // The reader may still wait for a message that nobody wants any more.
          if part == .writer { tasks.cancelAll() }
        }
      }
    } onCancelRPC: {
      flow.stop(SessionStopped())
    }
    if let failure = flow.failure { throw failure }
  }

  private func read(_ requests: RPCAsyncSequence<Service.Request, any Error>, _ flow: Flow) async {
    do {
      for try await request in requests {
        let operations = try self.service.operations(in: request)
        let items = operations.map { Flow.Item(operation: $0, byteCount: self.service.byteCount(of: $0)) }
        guard await flow.offer(items) else { return }
      }
      flow.endRequests(nil)
    } catch {
      flow.endRequests(error)
    }
  }

  private func perform(_ items: [Flow.Item], _ flow: Flow) async {
    let service = self.service
    let byteCounts = items.map(\.byteCount)
    let answers = SessionAnswers<Service.Answer> { answer, index in
      flow.answer(answer, byteCount: service.byteCount(of: answer), holding: byteCounts[index])
    }
    await service.perform(items.map(\.operation), answers)
  }

  private func write(_ flow: Flow, _ writer: RPCWriter<Service.Response>) async {
    do {
      while let batch = await flow.answers() {
        try await writer.write(self.service.response(batch.answers))
        flow.wrote(batch)
      }
    } catch {
      flow.stop(error)
    }
  }
}

/// The server is shutting down: whatever was not answered on the stream was not begun.
package struct SessionStopped: Error, StatusConvertible {
  package var status: GoogleRPCStatus {
    .init(.unavailable, "This process does not serve now.", reason: "NOT_SERVING")
  }
}
