// SPDX-License-Identifier: Apache-2.0

package import GRPCCore
internal import GRPCProtobuf
package import SwiftProtobuf
private import Synchronization
internal import Transport

extension Client {
  /// Makes any call. It is never repeated once it has been sent, except when the process answers that another one leads,
  /// and only one request was there to send: then it goes to that one.
  ///
  /// - Parameters:
  ///   - next: gives the requests; nil after the last one.
  ///   - answered: takes the answers.
  package func call<Request: SwiftProtobuf.Message, Response: SwiftProtobuf.Message>(
    _ method: MethodDescriptor, _: Request.Type, _: Response.Type,
    next: @Sendable @escaping () async throws -> Request?,
    answered: @Sendable @escaping (Response) async throws -> Void
  ) async throws {
    // Streams last as long as they last.
    let timeout = method.type == .unary ? self.timeout : nil
    // What the caller's own code threw says more than what became of the call.
    let thrown = Mutex<(any Error)?>(nil)
    let hasAnswered = Flag()
    let isOne = method.type == .unary || method.type == .serverStreaming
    let only = isOne ? try await next() : nil
    do {
      try await self.core.call(
        timeout: timeout, isRepeatable: { false }, isReplayable: { isOne && !hasAnswered.isSet }
      ) { connection, options in
        let request = StreamingClientRequest<Request> { writer in
          if isOne {
            if let only { try await writer.write(only) }
            return
          }
          while let message = try await Self.noting(thrown, next) { try await writer.write(message) }
        }
        try await connection.client.bidirectionalStreaming(
          request: request, descriptor: method, serializer: ProtobufSerializer<Request>(),
          deserializer: ProtobufDeserializer<Response>(), options: options
        ) { response in
          for try await message in response.messages {
            hasAnswered.set()
            try await Self.noting(thrown) { try await answered(message) }
          }
        }
      }
    } catch {
      throw thrown.withLock { $0 } ?? error
    }
  }

  private static func noting<Result>(
    _ thrown: borrowing Mutex<(any Error)?>, _ body: () async throws -> Result
  ) async throws -> Result {
    do {
      return try await body()
    } catch {
      if !(error is CancellationError) { thrown.withLock { $0 = error } }
      throw error
    }
  }
}
