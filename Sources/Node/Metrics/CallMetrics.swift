// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics
internal import GRPCCore
private import Synchronization
internal import Telemetry

/// Counts calls by method and by how they ended, and measures how long they took. Methods are those that are served, so
/// labels come from a closed set, and nothing that a caller sends gets into one.
///
/// It stands before what makes statuses of errors, and so sees what the caller gets.
struct CallMetrics: ServerInterceptor {
  static let calls = "blocktree_calls_total"
  static let seconds = "blocktree_call_seconds"
  static let current = "blocktree_calls_in_progress"

  static let descriptions: [String: MetricsRegistry.Description] = [
    calls: .init("Calls that have ended, by method and gRPC status."),
    seconds: .init("How long calls took, from their beginning to the last byte of the answer."),
    current: .init("Calls that have begun and not ended. Streams and sessions count for as long as they are open."),
  ]

  private let registry: MetricsRegistry
  private let current: Meter

  init(_ registry: MetricsRegistry) {
    self.registry = registry
    self.current = Meter(label: Self.current, factory: registry)
  }

  func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @concurrent @Sendable (StreamingServerRequest<Input>, ServerContext) async throws
      -> StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    let call = Call(self.registry, self.current, method: context.descriptor.fullyQualifiedMethod)
    var response: StreamingServerResponse<Output>
    do {
      response = try await next(request, context)
    } catch {
      call.end(error)
      throw error
    }
    switch response.accepted {
    case .success(var contents):
      let producer = contents.producer
      contents.producer = { writer in
        do {
          let metadata = try await producer(writer)
          call.end(nil)
          return metadata
        } catch {
          call.end(error)
          throw error
        }
      }
      response.accepted = .success(contents)
    case .failure(let error):
      call.end(error)
    }
    return response
  }

  /// One call, from its beginning to its end. One whose answer nobody fetches, as its connection has gone, ends with
  /// the last reference to it.
  private final class Call: Sendable {
    private let registry: MetricsRegistry
    private let current: Meter
    private let method: String
    private let start = ContinuousClock.now
    private let hasEnded = Atomic(false)

    init(_ registry: MetricsRegistry, _ current: Meter, method: String) {
      self.registry = registry
      self.current = current
      self.method = method
      current.increment()
    }

    deinit { self.end(CancellationError()) }

    func end(_ error: (any Error)?) {
      guard !self.hasEnded.exchange(true, ordering: .relaxed) else { return }
      self.current.decrement()
      Counter(
        label: CallMetrics.calls, dimensions: [("method", self.method), ("status", Self.status(error))],
        factory: self.registry
      ).increment()
      let (seconds, attoseconds) = (ContinuousClock.now - self.start).components
      Timer(label: CallMetrics.seconds, dimensions: [("method", self.method)], factory: self.registry)
        .recordNanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }

    /// In capital letters, as the protocol's own names are.
    private static func status(_ error: (any Error)?) -> String {
      switch error {
      case nil: "OK"
      case let error as RPCError: Self.name(error.code)
      case let error as any RPCErrorConvertible: Self.name(error.rpcErrorCode)
      case is CancellationError: Self.name(.cancelled)
      default: Self.name(.unknown)
      }
    }

    private static func name(_ code: RPCError.Code) -> String {
      switch code {
      case .cancelled: "CANCELLED"
      case .invalidArgument: "INVALID_ARGUMENT"
      case .deadlineExceeded: "DEADLINE_EXCEEDED"
      case .notFound: "NOT_FOUND"
      case .alreadyExists: "ALREADY_EXISTS"
      case .permissionDenied: "PERMISSION_DENIED"
      case .resourceExhausted: "RESOURCE_EXHAUSTED"
      case .failedPrecondition: "FAILED_PRECONDITION"
      case .aborted: "ABORTED"
      case .outOfRange: "OUT_OF_RANGE"
      case .unimplemented: "UNIMPLEMENTED"
      case .internalError: "INTERNAL"
      case .unavailable: "UNAVAILABLE"
      case .dataLoss: "DATA_LOSS"
      case .unauthenticated: "UNAUTHENTICATED"
      default: "UNKNOWN"
      }
    }
  }
}
