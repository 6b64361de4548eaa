// SPDX-License-Identifier: Apache-2.0

import Synchronization
import Testing
import Trust

@testable import Relay

@Suite("Services that programs host at a process")
struct HubTests {
  private static let ann = try? TreePath(parsing: "/ann")
  private static let site = try? TreePath(parsing: "/site")

  private let sender: TreePath
  private let scope: TreePath
  private let echo: Service

  init() throws {
    self.sender = try #require(Self.ann)
    self.scope = try #require(Self.site)
    self.echo = try Service("echo")
  }

  private static func payload(_ text: String) -> MessagePayload { MessagePayload(bytes: Array(text.utf8)) }

  private func withHub(_ body: (MessageHub) async throws -> Void) async throws {
    let hub = MessageHub(process: try TreePath(parsing: "/site/nas1"))
    do { try await body(hub) } catch {
      await hub.end()
      throw error
    }
    await hub.end()
  }

  /// A program whose calls the test answers.
  private final class Calls: Sendable {
    let stream: AsyncStream<(IncomingMessage, UInt64)>
    private let continuation: AsyncStream<(IncomingMessage, UInt64)>.Continuation

    init() { (self.stream, self.continuation) = AsyncStream.makeStream() }

    func hand(_ message: IncomingMessage, _ call: UInt64) { self.continuation.yield((message, call)) }
  }

  private func call(
    _ hub: MessageHub, _ text: String = "x", within patience: Duration = .seconds(10)
  ) async throws -> MessagePayload {
    try await hub.call(self.echo, in: self.scope, from: self.sender, Self.payload(text), within: patience)
  }

  @Test("answer calls, and are told who asks")
  func answers() async throws {
    try await self.withHub { hub in
      let calls = Calls()
      try await hub.attaching([self.echo], of: self.sender, concurrency: 4, hand: { calls.hand($0, $1) }) { program in
        async let answer = self.call(hub, "hello")
        var iterator = calls.stream.makeAsyncIterator()
        let (message, number) = try #require(await iterator.next())
        #expect(message.sender == self.sender && message.service == self.echo && number != 0)
        #expect(message.payload == Self.payload("hello") && message.deadline != nil)
        program.reply(.payload(Self.payload("HELLO")), to: number)
        // The first answer counts, and one that nobody waits for does no harm.
        program.reply(.payload(Self.payload("again")), to: number)
        program.reply(.payload(Self.payload("nobody")), to: 99)
        #expect(try await answer == Self.payload("HELLO"))
      }
    }
  }

  @Test("are not there for another directory or name, or any more when the program is gone")
  func missing() async throws {
    try await self.withHub { hub in
      await #expect(throws: MessageError.noSuchService) { try await self.call(hub) }
      try await hub.attaching([self.echo], of: self.sender, concurrency: 4, hand: { _, _ in }) { _ in
        #expect(hub.services == [self.echo])
        await #expect(throws: MessageError.noSuchService) {
          try await hub.call(self.echo, in: .root, from: self.sender, Self.payload("x"), within: .seconds(1))
        }
        await #expect(throws: MessageError.noSuchService) {
          try await hub.call(
            try Service("other"), in: self.scope, from: self.sender, Self.payload("x"), within: .seconds(1))
        }
      }
      #expect(hub.services.isEmpty)
      await #expect(throws: MessageError.noSuchService) { try await self.call(hub) }
      #expect(throws: MessageError.noSuchService) {
        try hub.send(self.echo, in: self.scope, from: self.sender, Self.payload("x"), lifetime: nil)
      }
    }
  }

  @Test("that end in the middle of calls have these undeliverable at once")
  func stopped() async throws {
    try await self.withHub { hub in
      let calls = Calls()
      try await withThrowingTaskGroup(of: Void.self) { group in
        try await hub.attaching([self.echo], of: self.sender, concurrency: 2, hand: { calls.hand($0, $1) }) { _ in
          // Two are worked on, one waits.
          for _ in 0..<3 {
            group.addTask {
              await #expect(throws: MessageError.stopped) { try await self.call(hub, within: .seconds(60)) }
            }
          }
          var iterator = calls.stream.makeAsyncIterator()
          for _ in 0..<2 { _ = await iterator.next() }
        }
        try await group.waitForAll()
      }
    }
  }

  @Test("refuse calls with their own words, and say when the time is over")
  func refusals() async throws {
    try await self.withHub { hub in
      let calls = Calls()
      try await hub.attaching([self.echo], of: self.sender, concurrency: 1, hand: { calls.hand($0, $1) }) { program in
        var iterator = calls.stream.makeAsyncIterator()
        let refused = Task { try await self.call(hub) }
        program.reply(.refusal("not today"), to: try #require(await iterator.next()).1)
        await #expect(throws: MessageError.refused("not today")) { try await refused.value }
        await #expect(throws: MessageError.expired) { try await self.call(hub, within: .milliseconds(50)) }
        _ = await iterator.next()
        // The program has not answered that one, and may not for ever: nobody waits for it, so it keeps no one waiting.
        async let next = self.call(hub, "next")
        let (message, number) = try #require(await iterator.next())
        #expect(message.payload == Self.payload("next"))
        program.reply(.payload(Self.payload("done")), to: number)
        #expect(try await next == Self.payload("done"))
      }
    }
  }

  @Test("are given no more calls at a time than they work on, and what waits keeps its order")
  func concurrency() async throws {
    try await self.withHub { hub in
      let calls = Calls()
      try await hub.attaching([self.echo], of: self.sender, concurrency: 2, hand: { calls.hand($0, $1) }) { program in
        for number in 0..<10 {
          try hub.send(self.echo, in: self.scope, from: self.sender, Self.payload("\(number)"), lifetime: nil)
        }
        var iterator = calls.stream.makeAsyncIterator()
        // What is only told is handed over at once.
        for number in 0..<10 {
          let (message, call) = try #require(await iterator.next())
          #expect(message.payload == Self.payload("\(number)") && call == 0)
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
          for _ in 0..<6 { group.addTask { _ = try await self.call(hub) } }
          var open: [UInt64] = []
          for _ in 0..<6 {
            open.append(try #require(await iterator.next()).1)
            #expect(open.count <= 2)
            if open.count == 2 { program.reply(.payload(Self.payload("")), to: open.removeFirst()) }
          }
          for call in open { program.reply(.payload(Self.payload("")), to: call) }
          try await group.waitForAll()
        }
      }
    }
  }

  @Test("say when no more messages may wait")
  func full() async throws {
    try await self.withHub { hub in
      let gate = Mutex<CheckedContinuation<Void, Never>?>(nil)
      let isOpen = Atomic(false)
      try await hub.attaching(
        [self.echo], of: self.sender, concurrency: 1,
        hand: { _, _ in
          // The stream takes nothing for the time being.
          await withCheckedContinuation { continuation in
            gate.withLock { $0 = continuation }
            if isOpen.load(ordering: .acquiring) { gate.withLock { $0.take() }?.resume() }
          }
        }
      ) { _ in
        var count = 0
        do throws(MessageError) {
          while true {
            try hub.send(self.echo, in: self.scope, from: self.sender, Self.payload("x"), lifetime: nil)
            count += 1
          }
        } catch {
          #expect(error == .mailboxFull)
        }
        // One may be on its way.
        #expect((MessageLimits.waitingCountMax...MessageLimits.waitingCountMax + 1).contains(count))
        isOpen.store(true, ordering: .releasing)
        gate.withLock { $0.take() }?.resume()
      }
    }
  }

  @Test("are bounded for each principal, and end with the process")
  func bounds() async throws {
    try await self.withHub { hub in
      func attach(_ count: Int) async throws {
        guard count > 0 else {
          await #expect(throws: MessageError.self) {
            try await hub.attaching([self.echo], of: self.sender, concurrency: 1, hand: { _, _ in }) { _ in }
          }
          await hub.end()
          await hub.ended()
          await #expect(throws: MessageError.stopped) {
            try await hub.attaching([self.echo], of: .root, concurrency: 1, hand: { _, _ in }) { _ in }
          }
          return
        }
        try await hub.attaching([self.echo], of: self.sender, concurrency: 1, hand: { _, _ in }) { _ in
          try await attach(count - 1)
        }
      }
      try await attach(MessageLimits.programsOfPrincipalMax)
    }
  }
}
