// SPDX-License-Identifier: Apache-2.0

internal import Actors
package import Trust

/// Bytes and what they are.
package struct MessagePayload: Hashable, Sendable {
  package let typeName: String
  package let bytes: [UInt8]

  package init(typeName: String = "", bytes: [UInt8]) {
    self.typeName = typeName
    self.bytes = bytes
  }
}

/// What somebody says to a service.
package struct IncomingMessage: Sendable {
  package let service: Service
  /// As the connection has proved it.
  package let sender: TreePath
  package let payload: MessagePayload
  /// When it is of no use any more; nil for never.
  package let deadline: ContinuousClock.Instant?

  package init(service: Service, sender: TreePath, payload: MessagePayload, deadline: ContinuousClock.Instant?) {
    self.service = service
    self.sender = sender
    self.payload = payload
    self.deadline = deadline
  }

  var isExpired: Bool { self.deadline.map { $0 <= .now } ?? false }
}

/// How a program answers a call.
package enum ProgramReply: Hashable, Sendable {
  case payload(MessagePayload)
  /// It does not, and says why.
  case refusal(String)
}

/// What the actor of an attached program is sent.
enum ProgramMessage: Sendable {
  case tell(IncomingMessage)
  case call(Ask<IncomingMessage, ProgramReply>)
}
