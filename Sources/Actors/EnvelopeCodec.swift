// SPDX-License-Identifier: Apache-2.0

/// How an actor reads what comes from other processes, and writes its answers.
package struct EnvelopeCodec<Message: Sendable>: Sendable {
  /// Makes a message of a payload; of a call's, one with a question in it, made by `IncomingCall.ask`.
  ///
  /// What it throws refuses the envelope.
  package let decode: @Sendable (Payload, IncomingCall?) throws -> Message

  package init(decode: @escaping @Sendable (Payload, IncomingCall?) throws -> Message) { self.decode = decode }
}

/// A call from another process that waits for its answer.
package final class IncomingCall: Sendable {
  private let sink: ReplySink<Payload>

  init(_ sink: ReplySink<Payload>) { self.sink = sink }

  /// The question of this call, for a message.
  ///
  /// - Parameter encode: writes the answer. What it throws makes the call undeliverable, as refused.
  package func ask<Request: Sendable, Reply: Sendable>(
    _ request: Request, encode: @escaping @Sendable (Reply) throws -> Payload
  ) -> Ask<Request, Reply> {
    Ask(request, ReplyToken(to: EncodingSink(self.sink, encode)))
  }
}

/// Writes an answer and hands it on.
private final class EncodingSink<Reply: Sendable>: ReplySink<Reply>, @unchecked Sendable {
  // Unchecked: constants.
  private let sink: ReplySink<Payload>
  private let encode: @Sendable (Reply) throws -> Payload

  init(_ sink: ReplySink<Payload>, _ encode: @escaping @Sendable (Reply) throws -> Payload) {
    self.sink = sink
    self.encode = encode
  }

  override var isSettled: Bool { self.sink.isSettled }

  override func settle(_ result: Result<Reply, AskError>) -> Bool {
    switch result {
    case .success(let reply):
      guard let payload = try? self.encode(reply) else {
        _ = self.sink.settle(.failure(.refused))
        return false
      }
      return self.sink.settle(.success(payload))
    case .failure(let error): return self.sink.settle(.failure(error))
    }
  }
}

/// Where envelopes for an actor or a service go in, whatever their messages.
struct EnvelopeInbox: Sendable {
  /// Takes a tell, or a call with its way back.
  ///
  /// - Returns: why not, if so. A call's way back is then unused.
  let take: @Sendable (Payload, ActorTime?, ReplySink<Payload>?) -> UndeliverableReason?

  init<Message: Sendable>(
    by codec: EnvelopeCodec<Message>, offer: @escaping @Sendable (TypedLetter<Message>) -> SendError?
  ) {
    self.take = { payload, deadline, sink in
      let call = sink.map(IncomingCall.init)
      guard let message = try? codec.decode(payload, call) else { return .refused }
      let letter = TypedLetter(message, deadline.map { .expiring($0) } ?? .tell)
      switch offer(letter) {
      case nil: return nil
      case .mailboxFull?: return .mailboxFull
      case .noMember?: return .noSuchService
      case .stopped?, .cancelled?: return .noSuchActor
      }
    }
  }

  init<Message: Sendable>(to ref: ActorRef<Message>, by codec: EnvelopeCodec<Message>) {
    let cell = ref.cell
    self.init(by: codec) { letter in cell.post(letter, waits: false) }
  }
}
