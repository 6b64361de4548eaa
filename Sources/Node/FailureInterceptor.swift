// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
internal import GRPCProtobuf
package import Logging
internal import NIOCore
internal import Transport
internal import Trust

/// Logs what goes wrong in calls. A fault of ours becomes `INTERNAL` with an incident number, under which the log says
/// more. Damage is an error of the log, too; what the caller got wrong is of interest only when debugging.
package struct FailureInterceptor: ServerInterceptor {
  private let logger: Logger

  package init(logger: Logger) {
    self.logger = logger
  }

  package func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @concurrent @Sendable (StreamingServerRequest<Input>, ServerContext) async throws
      -> StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    var response: StreamingServerResponse<Output>
    do {
      response = try await next(request, context)
    } catch {
      throw self.report(error, context)
    }
    switch response.accepted {
    case .success(var contents):
      let producer = contents.producer
      contents.producer = { writer in
        do {
          return try await producer(writer)
        } catch {
          throw self.report(error, context)
        }
      }
      response.accepted = .success(contents)
    case .failure(let error):
      response.accepted = .failure(self.report(error, context))
    }
    return response
  }

  /// The status that the caller gets for an error.
  private func report(_ error: any Error, _ context: ServerContext) -> RPCError {
    let failure: RPCError =
      switch error {
      case let error as RPCError: error
      case let error as any RPCErrorConvertible: RPCError(error)
      // The client has gone, or the call was ended: nobody waits for what comes of it.
      case is ChannelError: RPCError(code: .cancelled, message: "The connection is closed.")
      case is CancellationError: RPCError(code: .cancelled, message: "The call was cancelled.")
      default: RPCError(code: .unknown, message: "")
      }
    var metadata: Logger.Metadata = [
      "call": "\(context.descriptor.fullyQualifiedMethod)", "code": "\(failure.code)", "error": "\(error)",
    ]
    if let peer = context.connection?.remoteAddress { metadata["peer"] = "\(peer)" }
    if let caller = context.caller.credential { metadata["caller"] = "\(caller.path)" }
    switch failure.code {
    case .internalError, .unknown: break
    case .dataLoss:
      // The caller may be a program that nobody watches.
      self.logger.error("damage was found", metadata: metadata)
      return failure
    default:
      self.logger.debug("call failed", metadata: metadata)
      return failure
    }
    let incident = Self.incident()
    metadata["incident"] = "\(incident)"
    self.logger.error("fault in a call", metadata: metadata)
    return RPCError(
      GoogleRPCStatus(
        .internalError, "A fault of this process; its log says more.", reason: "INTERNAL", ["incident": incident]))
  }

  /// 16 hexadecimal digits.
  private static func incident() -> String {
    let digits = String(UInt64.random(in: .min ... .max), radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
