// SPDX-License-Identifier: Apache-2.0

/// A question in a message: what is asked, and the way back.
///
/// Can be answered at once or later, by whoever it was handed on to, and from any thread. The first answer counts. When
/// the last copy is gone without one, the asker hears `AskError.unanswered`, or `failed` if the actor threw at it.
@usableFromInline package struct Ask<Request: Sendable, Reply: Sendable>: Sendable {
  @usableFromInline package let request: Request
  @usableFromInline let token: ReplyToken<Reply>

  @inlinable init(_ request: Request, _ token: ReplyToken<Reply>) {
    self.request = request
    self.token = token
  }

  /// Answers.
  ///
  /// - Returns: false if nobody waits any more, or there was an answer already.
  @inlinable
  @discardableResult
  package func reply(_ reply: Reply) -> Bool { self.token.answer(.success(reply)) }

  /// Says that there will be no answer.
  @discardableResult
  package func refuse() -> Bool { self.token.answer(.failure(.refused)) }

  /// Nobody waits any more: the time is over, the asker's task was cancelled, or there was an answer.
  package var isAbandoned: Bool { self.token.isAbandoned }
}
