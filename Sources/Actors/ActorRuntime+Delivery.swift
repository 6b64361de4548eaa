// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Envelopes from other processes.
extension ActorRuntime {
  /// Offers groups of this process to callers elsewhere: those of one scope and name.
  ///
  /// - Throws: `GroupError`.
  package func register<Message: Sendable>(
    _ group: ActorGroup<Message>, scope: String, service: String, codec: EnvelopeCodec<Message>
  ) throws(GroupError) {
    let inbox = EnvelopeInbox(by: codec) { letter in group.offer(letter) }
    let refusal = self.registry.withLock { registry -> GroupError? in
      do throws(GroupError) {
        try registry.add(
          inbox, for: .init(scope: scope, service: service), countMax: self.limits.serviceCountMax)
        return nil
      } catch {
        return error
      }
    }
    if let refusal { throw refusal }
  }

  package func unregister(scope: String, service: String) {
    self.registry.withLock { $0.removeService(.init(scope: scope, service: service)) }
  }

  /// Delivers a tell or a call that has arrived in this process, and waits for a call's answer.
  ///
  /// A full mailbox is an answer: nobody waits for room. What is for other processes is `noRoute`, and so is a service
  /// in a scope that is not registered here: who is nearest is decided by who sends.
  ///
  /// - Parameters:
  ///   - envelope: a reply or an undeliverable one is nothing for an actor, and is dropped.
  ///   - id: of what is sent back.
  /// - Returns: what goes back to the sender: to a call always, to a tell if it was not delivered.
  package func deliver(_ envelope: Envelope, id: UInt64) async -> Envelope? {
    let reporter: ActorAddress
    let inbox: EnvelopeInbox?
    let otherwise: UndeliverableReason
    switch envelope.to {
    case .actor(let address):
      reporter = address
      if address.process != self.process {
        (inbox, otherwise) = (nil, .noRoute)
      } else {
        let (found, isThere) = self.registry.withLock { registry in
          (registry.inbox(address.number), registry.cell(address.number) != nil)
        }
        let isPresent = address.incarnation == self.incarnation
        // One without a codec takes no envelopes.
        (inbox, otherwise) = isPresent ? (found, isThere ? .refused : .noSuchActor) : (nil, .noSuchActor)
      }
    case .service(let address):
      reporter = self.address(of: Self.ownNumber)
      inbox = self.registry.withLock { $0.service(.init(scope: address.scope, service: address.service)) }
      otherwise = .noSuchService
    }
    guard let inbox else { return envelope.undeliverable(otherwise, id: id, by: reporter) }
    if let timeLeft = envelope.timeLeft, timeLeft <= .zero {
      return envelope.undeliverable(.expired, id: id, by: reporter)
    }
    switch envelope.kind {
    case .tell:
      let deadline = envelope.timeLeft.map { self.clock.now.advanced(by: $0) }
      let reason = inbox.take(envelope.payload, deadline, nil)
      return reason.flatMap { envelope.undeliverable($0, id: id, by: reporter) }
    case .call:
      let deadline = self.clock.now.advanced(by: envelope.timeLeft ?? ActorLimits.patience)
      let waiter = ReplyWaiter<Payload>(runtime: self)
      if let reason = inbox.take(envelope.payload, deadline, waiter) {
        return envelope.undeliverable(reason, id: id, by: reporter)
      }
      do throws(AskError) {
        let payload = try await waiter.reply(until: deadline)
        return Envelope(
          id: id, from: reporter, to: .actor(envelope.from), kind: .reply(to: envelope.id), trace: envelope.trace,
          payload: payload)
      } catch {
        return envelope.undeliverable(UndeliverableReason(error), id: id, by: reporter)
      }
    case .reply, .undeliverable: return nil
    }
  }

  /// In addresses: the runtime itself, which is no actor.
  static let ownNumber = UInt64.max
}

extension UndeliverableReason {
  init(_ error: AskError) {
    switch error {
    case .stopped, .unanswered, .failed: self = .stopped
    // The link is gone, and nobody hears this.
    case .cancelled, .expired: self = .expired
    case .mailboxFull: self = .mailboxFull
    case .refused: self = .refused
    case .noMember: self = .noSuchService
    }
  }
}
