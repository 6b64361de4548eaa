// SPDX-License-Identifier: Apache-2.0

internal import Foundation
package import GRPCCore
package import Trust

/// What a process says with each answer about the life of its sector cluster, once there was more than one: the warrant
/// that began it. It is metadata, so that clients of all services can tell answers of a life that is over; and it is the
/// warrant itself, so that nobody can claim a life that there is not. Nothing is said in the first life, so there it
/// costs nothing. Later, HTTP/2 sends it once for each connection.
package enum LifeHeader {
  /// Its value is the warrant's bytes in base64.
  package static let name = "blocktree-life"
  /// Of the value.
  package static let characterCountMax = (RecoveryWarrant.byteCountMax + 2) / 3 * 4

  package static func text(_ warrant: RecoveryWarrant) -> String { Data(warrant.bytes).base64EncodedString() }

  /// What stands in metadata; nil for nothing.
  package static func text(in metadata: Metadata) -> String? {
    for text in metadata[stringValues: self.name] { return text }
    return nil
  }

  /// - Throws: whatever is wrong with it.
  package static func warrant(_ text: String, root: RootCertificate) throws(TrustError) -> RecoveryWarrant {
    guard text.utf8.count <= self.characterCountMax else { throw .tooLong }
    guard let bytes = Data(base64Encoded: text) else { throw .malformed }
    return try RecoveryWarrant(verifying: Array(bytes), root: root)
  }
}

/// Adds a ``LifeHeader`` to all answers, errors included. Stands before what makes statuses of errors.
package struct LifeInterceptor: ServerInterceptor {
  private let text: String

  package init(_ warrant: RecoveryWarrant) { self.text = LifeHeader.text(warrant) }

  package func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingServerRequest<Input>, context: ServerContext,
    next:
      @concurrent @Sendable (StreamingServerRequest<Input>, ServerContext) async throws
      -> StreamingServerResponse<Output>
  ) async throws -> StreamingServerResponse<Output> {
    var response: StreamingServerResponse<Output>
    do { response = try await next(request, context) } catch { throw self.marked(error) }
    switch response.accepted {
    case .success(var contents):
      contents.metadata.addString(self.text, forKey: LifeHeader.name)
      response.accepted = .success(contents)
    case .failure(let error): response.accepted = .failure(self.marked(error))
    }
    return response
  }

  private func marked(_ error: any Error) -> RPCError {
    var failure: RPCError =
      switch error {
      case let error as RPCError: error
      case let error as any RPCErrorConvertible: RPCError(error)
      default: RPCError(code: .unknown, message: "")
      }
    failure.metadata.addString(self.text, forKey: LifeHeader.name)
    return failure
  }
}
