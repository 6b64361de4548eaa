// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("An envelope")
struct DeliveryTests {
  let world = World()
  let sender: ActorAddress

  init() throws { self.sender = try ActorAddress(process: "/node2", incarnation: 9, number: 4) }

  /// Numbers as text.
  static let codec = EnvelopeCodec<Counter.Message> { payload, call in
    guard payload.typeName == "test.Number", let number = Int(String(decoding: payload.bytes, as: UTF8.self)) else {
      throw Failure("no number")
    }
    guard let call else { return number < 0 ? .fail : .add(number) }
    let ask = call.ask(number) { (reply: Int) in try Self.payload("\(reply)") }
    return switch number {
    case -1: .failAt(ask)
    case -2: .keep(ask)
    default: .sum(ask)
    }
  }

  static func payload(_ text: String, type: String = "test.Number") throws -> Payload {
    guard let payload = Payload(typeName: type, bytes: Array(text.utf8)) else { throw Failure("too long") }
    return payload
  }

  func envelope(
    _ kind: Envelope.Kind, to: Envelope.Destination, _ text: String = "1", type: String = "test.Number",
    timeLeft: Duration? = nil
  ) throws -> Envelope {
    Envelope(
      id: 77, from: self.sender, to: to, kind: kind, timeLeft: timeLeft,
      trace: TraceContext(traceHigh: 1, traceLow: 2, span: 3, flags: 1), payload: try Self.payload(text, type: type))
  }

  /// Delivers and returns what goes back.
  func deliver(_ envelope: Envelope) -> Envelope? {
    let runtime = self.world.runtime
    let begun = self.world.start { await runtime.deliver(envelope, id: 5) }
    return begun.value ?? nil
  }

  func reason(_ envelope: Envelope) -> UndeliverableReason? {
    guard let back = self.deliver(envelope), case .undeliverable(let id, let reason) = back.kind else { return nil }
    #expect(id == envelope.id && back.id == 5 && back.to == .actor(self.sender))
    #expect(back.payload == .empty && back.trace == envelope.trace)
    return reason
  }

  @Test("that tells is handled, and nothing comes back; one that calls is answered")
  func handled() throws {
    let actor = try self.world.runtime.spawn(codec: Self.codec) { _ in Counter() }
    #expect(self.deliver(try self.envelope(.tell, to: .actor(actor.address), "40")) == nil)
    let call = try self.envelope(.call, to: .actor(actor.address), "2")
    #expect(
      self.deliver(call)
        == Envelope(
          id: 5, from: actor.address, to: .actor(self.sender), kind: .reply(to: 77), trace: call.trace,
          payload: try Self.payload("42")))
    #expect(self.world.shutdown())
  }

  @Test("to nobody comes back", arguments: [Envelope.Kind.tell, .call])
  func noSuchActor(kind: Envelope.Kind) throws {
    let actor = try self.world.runtime.spawn(codec: Self.codec) { _ in Counter() }
    let address = actor.address
    let earlier = try ActorAddress(process: "/node1", incarnation: 6, number: address.number)
    #expect(self.reason(try self.envelope(kind, to: .actor(earlier))) == .noSuchActor)
    let elsewhere = try ActorAddress(process: "/node3", incarnation: 7, number: address.number)
    #expect(self.reason(try self.envelope(kind, to: .actor(elsewhere))) == .noRoute)
    let service = try ServiceAddress(scope: "/", service: "counter", reach: .nearest)
    #expect(self.reason(try self.envelope(kind, to: .service(service))) == .noSuchService)
    actor.stop()
    self.world.settle()
    #expect(self.reason(try self.envelope(kind, to: .actor(address))) == .noSuchActor)
    #expect(self.world.shutdown())
  }

  @Test("that nobody takes is refused", arguments: [Envelope.Kind.tell, .call])
  func refused(kind: Envelope.Kind) throws {
    let closed = try self.world.runtime.spawn { _ in Counter() }
    #expect(self.reason(try self.envelope(kind, to: .actor(closed.address))) == .refused)
    let open = try self.world.runtime.spawn(codec: Self.codec) { _ in Counter() }
    #expect(self.reason(try self.envelope(kind, to: .actor(open.address), "x")) == .refused)
    #expect(self.reason(try self.envelope(kind, to: .actor(open.address), type: "test.Other")) == .refused)
    #expect(self.world.shutdown())
  }

  @Test("at which the actor fails comes back if it was a call")
  func failed() throws {
    let actor = try self.world.runtime.spawn(restarting(.zero), codec: Self.codec) { _ in Counter() }
    #expect(self.reason(try self.envelope(.call, to: .actor(actor.address), "-1")) == .stopped)
    #expect(self.world.runtime.actorCount == 1)
    #expect(self.world.shutdown())
  }

  @Test("for a full mailbox comes back at once")
  func full() throws {
    let gate = Gate()
    let codec = EnvelopeCodec<Int> { _, _ in 1 }
    let actor = try self.world.runtime.spawn(ActorOptions(mailboxCountMax: 1), codec: codec) { _ in
      AsyncScript<Int> { _, _ in await gate.pass() }
    }
    for _ in 0..<2 { #expect(self.deliver(try self.envelope(.tell, to: .actor(actor.address))) == nil) }
    #expect(self.reason(try self.envelope(.tell, to: .actor(actor.address))) == .mailboxFull)
    #expect(self.reason(try self.envelope(.call, to: .actor(actor.address))) == .mailboxFull)
    gate.open(9)
    self.world.settle()
    #expect(self.world.shutdown())
  }

  @Test("whose time is over is not handled")
  func expired() throws {
    let (gate, log) = (Gate(), Log<Int>())
    let codec = EnvelopeCodec<Int> { payload, _ in payload.bytes.count }
    let actor = try self.world.runtime.spawn(codec: codec) { _ in
      AsyncScript<Int> { number, _ in
        await gate.pass()
        log.add(number)
      }
    }
    #expect(self.reason(try self.envelope(.tell, to: .actor(actor.address), timeLeft: .zero)) == .expired)
    #expect(self.deliver(try self.envelope(.tell, to: .actor(actor.address), "1")) == nil)
    #expect(self.deliver(try self.envelope(.tell, to: .actor(actor.address), "22", timeLeft: .seconds(1))) == nil)
    #expect(self.deliver(try self.envelope(.tell, to: .actor(actor.address), "333", timeLeft: .seconds(3))) == nil)
    self.world.advance(by: .seconds(2))
    gate.open(9)
    self.world.settle()
    #expect(log.entries == [1, 3])
    #expect(self.world.runtime.deadLetters.all.map(\.reason) == [.expired])
    #expect(self.world.shutdown())
  }

  @Test("that calls is undeliverable when its time is over, or the actor ends without an answer")
  func unanswered() throws {
    let actor = try self.world.runtime.spawn(codec: Self.codec) { _ in Counter() }
    let runtime = self.world.runtime
    let call = try self.envelope(.call, to: .actor(actor.address), "-2", timeLeft: .seconds(1))
    let late = self.world.start { await runtime.deliver(call, id: 5) }
    let second = try self.envelope(.call, to: .actor(actor.address), "-2")
    let stopped = self.world.start { await runtime.deliver(second, id: 5) }
    #expect(late.result == nil)
    self.world.advance(by: .milliseconds(1_010))
    #expect((late.value ?? nil)?.kind == .undeliverable(id: 77, .expired))
    #expect(stopped.result == nil)
    actor.stop()
    self.world.settle()
    #expect((stopped.value ?? nil)?.kind == .undeliverable(id: 77, .stopped))
    #expect(self.world.shutdown())
  }

  @Test("for a service goes to a member of the group that is registered there")
  func service() throws {
    let runtime = self.world.runtime
    let group = ActorGroup<Counter.Message>(in: runtime)
    let member = try runtime.spawn { _ in Counter() }
    try group.join(member)
    try runtime.register(group, scope: "/site-b", service: "counter", codec: Self.codec)
    #expect(throws: GroupError.serviceTaken) {
      try runtime.register(group, scope: "/site-b", service: "counter", codec: Self.codec)
    }
    let address = try ServiceAddress(scope: "/site-b", service: "counter", reach: .contained)
    #expect(self.deliver(try self.envelope(.call, to: .service(address), "3"))?.payload == (try Self.payload("3")))
    member.stop()
    self.world.settle()
    #expect(self.reason(try self.envelope(.call, to: .service(address))) == .noSuchService)
    runtime.unregister(scope: "/site-b", service: "counter")
    #expect(self.reason(try self.envelope(.tell, to: .service(address))) == .noSuchService)
    #expect(self.world.shutdown())
  }

  @Test("that says that another one was undeliverable is never answered itself")
  func noLoops() throws {
    let actor = try self.world.runtime.spawn(codec: Self.codec) { _ in Counter() }
    let nowhere = try ActorAddress(process: "/node3", incarnation: 1, number: 1)
    for kind in [Envelope.Kind.reply(to: 1), .undeliverable(id: 1, .expired)] {
      #expect(self.deliver(try self.envelope(kind, to: .actor(nowhere))) == nil)
      #expect(self.deliver(try self.envelope(kind, to: .actor(actor.address))) == nil)
    }
    #expect(self.world.shutdown())
  }

  @Test("has a bounded payload and a bounded number of hops")
  func bounds() throws {
    let long = [UInt8](repeating: 0, count: ActorLimits.payloadByteCountMax)
    #expect(Payload(typeName: "t", bytes: long) != nil)
    #expect(Payload(typeName: "t", bytes: long + [0]) == nil)
    #expect(Payload(typeName: String(repeating: "t", count: 256), bytes: []) == nil)
    let to = Envelope.Destination.actor(self.sender)
    #expect(Envelope(id: 1, from: self.sender, to: to, kind: .tell, hopLimit: 255).hopLimit == ActorLimits.hopCountMax)
  }
}
