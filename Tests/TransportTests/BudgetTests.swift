// SPDX-License-Identifier: Apache-2.0

import Synchronization
import Testing
import Trust

@testable import Transport

@Suite("The gate of a stream")
struct BudgetTests {
  @Test("finds the ends of messages wherever the frames are cut")
  func framing() {
    let messages = [0, 1, 5, 300, 0, 70_000]
    var bytes: [UInt8] = []
    for count in messages {
      bytes += [0] + (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) }
      bytes += [UInt8](repeating: 0xFF, count: count)
    }
    for cut in [1, 2, 3, 4, 5, 6, 7, 1000, 16_384, bytes.count] {
      var framing = MessageFraming()
      var completed = 0
      for start in stride(from: 0, to: bytes.count, by: cut) {
        let progress = bytes[start..<min(start + cut, bytes.count)].withUnsafeBytes {
          framing.advance(over: $0, limit: 70_000)
        }
        guard case .messages(let count) = progress else { return #expect(Bool(false)) }
        completed += count
      }
      #expect(completed == messages.count)
    }
  }

  @Test("sees that a message is too large before it has come")
  func tooLarge() {
    var framing = MessageFraming()
    let prefix: [UInt8] = [0, 0xFF, 0xFF, 0xFF, 0xFF]
    #expect(prefix.withUnsafeBytes { framing.advance(over: $0, limit: 1 << 20) } == .tooLarge(byteCount: 0xFFFF_FFFF))
  }

  @Test("stops reading with a whole message and too many bytes, and goes on when some are taken")
  func budget() {
    let connection = ReceiveBudget(limit: 1000)
    let budget = StreamBudget(limit: 100, connection: connection)
    let resumes = Mutex(0)
    budget.onResume { resumes.withLock { $0 += 1 } }
    var resumed: Int { resumes.withLock { $0 } }
    #expect(budget.mayRead())
    #expect(budget.received(byteCount: 500, wholeMessageCount: 0))
    #expect(budget.mayRead(), "The handler could never take what is not whole.")
    #expect(budget.received(byteCount: 10, wholeMessageCount: 2))
    #expect(!budget.mayRead())
    budget.taken(byteCount: 300)
    #expect(resumed == 0)
    budget.taken(byteCount: 200)
    #expect(resumed == 1)
    #expect(budget.mayRead())
    budget.taken(byteCount: 10)
    #expect(resumed == 1)

    let other = StreamBudget(limit: 100, connection: connection)
    #expect(budget.received(byteCount: 600, wholeMessageCount: 0))
    #expect(!other.received(byteCount: 401, wholeMessageCount: 0), "Together, they have too much.")
    other.close()
    #expect(budget.received(byteCount: 400, wholeMessageCount: 1))
    budget.close()
    budget.taken(byteCount: 1000)
    #expect(connection.received(1000), "What a closed stream held is not released twice.")
    #expect(!connection.received(1))
  }

  @Test("counts for its connection and for all connections together")
  func totals() {
    let total = ReceiveBudget(limit: 1000)
    let connections = [0, 1].map { _ in ReceiveBudget(limit: 600, within: total) }
    let streams = connections.map { StreamBudget(limit: 100, connection: $0) }
    #expect(streams[0].received(byteCount: 600, wholeMessageCount: 1))
    #expect(!streams[1].received(byteCount: 401, wholeMessageCount: 1), "Together, they have too much.")
    streams[1].close()
    #expect(streams[1].received(byteCount: 0, wholeMessageCount: 0), "Closed, it is released above, too.")
    #expect(!streams[0].received(byteCount: 1, wholeMessageCount: 0), "The connection has too much.")
    streams[0].taken(byteCount: 600)
    #expect(total.received(999))
    #expect(!total.received(1))
  }
}

@Suite("Something that tasks wait for")
struct EventualTests {
  @Test("is settled once, for all")
  func settled() async throws {
    let eventual = Eventual<Int>()
    async let first = eventual.value
    eventual.settle(.success(1))
    eventual.settle(.success(2))
    #expect(try await first == 1)
    #expect(try await eventual.value == 1)
  }

  @Test("lets go of a task that is cancelled, before it waits or while it does")
  func cancelled() async throws {
    let eventual = Eventual<Int>()
    for _ in 0..<100 {
      let task = Task { try await eventual.value }
      await Task.yield()
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
    }
    eventual.settle(.success(1))
    #expect(try await eventual.value == 1)
  }
}

@Suite("An address to listen on")
struct ListenAddressTests {
  @Test("may leave the port open", arguments: ["127.0.0.1:0", "[::1]:0", "node.example:8080"])
  func texts(_ text: String) throws {
    #expect("\(try ListenAddress(parsing: text))" == text)
  }

  @Test("has to be an address", arguments: ["", ":0", "host", "host:", "::1:0", "ho st:0", "host:65536", "host:00"])
  func malformed(_ text: String) {
    #expect(throws: TrustError.self) { try ListenAddress(parsing: text) }
  }
}
