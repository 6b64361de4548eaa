// SPDX-License-Identifier: Apache-2.0

import DNSFixture
import Foundation
import Resolver
import Testing

@Suite(
  "A look-up at a real server",
  .enabled(if: DNSServer.program != nil, "It needs dnsmasq, from the package dnsmasq-base."))
struct ResolverTests {
  private func addresses(_ text: String, at server: DNSServer) async throws -> [String] {
    var random = SystemRandomNumberGenerator()
    return try await server.resolver().addresses(of: name(text), using: &random).map { "\($0.host) \($0.port)" }
  }

  @Test("gives the targets' addresses in the order of their priorities")
  func services() async throws {
    let server = try await DNSServer([
      "--srv-host=_blocktree._tcp.example.test,c.example.test,7003,30,0",
      "--srv-host=_blocktree._tcp.example.test,a.example.test,7001,10,5",
      "--srv-host=_blocktree._tcp.example.test,b.example.test,7002,20,5",
      "--host-record=a.example.test,192.0.2.1", "--host-record=b.example.test,192.0.2.2",
      "--host-record=c.example.test,192.0.2.3", "--host-record=example.test,192.0.2.9",
    ])
    #expect(
      try await self.addresses("example.test", at: server) == ["192.0.2.1 7001", "192.0.2.2 7002", "192.0.2.3 7003"])
    // Names do not tell upper and lower case apart.
    #expect(try await self.addresses("EXAMPLE.test.", at: server).count == 3)
  }

  @Test("chooses among equal priorities by weight")
  func weights() async throws {
    let server = try await DNSServer([
      "--srv-host=_blocktree._tcp.example.test,a.example.test,7001,10,1",
      "--srv-host=_blocktree._tcp.example.test,b.example.test,7002,10,60000",
      "--host-record=a.example.test,192.0.2.1", "--host-record=b.example.test,192.0.2.2",
    ])
    var random = SeededGenerator.forTest()
    let resolver = try server.resolver()
    var firsts: [UInt16: Int] = [:]
    for _ in 0..<20 {
      let addresses = try await resolver.addresses(of: name("example.test"), using: &random)
      #expect(Set(addresses.map(\.port)) == [7001, 7002])
      firsts[addresses.first?.port ?? 0, default: 0] += 1
    }
    // Ten of the other order have a chance of one in 10 ^ 42.
    #expect(firsts[7002, default: 0] > 10, "\(firsts)")
  }

  @Test("gives all addresses of a target, of both families, each once")
  func families() async throws {
    let server = try await DNSServer([
      "--srv-host=_blocktree._tcp.example.test,a.example.test,7001,10,0",
      "--srv-host=_blocktree._tcp.example.test,b.example.test,7001,20,0",
      "--host-record=a.example.test,192.0.2.1,2001:db8::1", "--host-record=a.example.test,192.0.2.2",
      // The same machine by another name.
      "--host-record=b.example.test,192.0.2.1",
    ])
    let addresses = try await self.addresses("example.test", at: server)
    #expect(addresses.count == 3)
    #expect(Set(addresses) == ["192.0.2.1 7001", "192.0.2.2 7001", "2001:db8::1 7001"])
  }

  @Test("gives the name's own addresses where there are no services")
  func withoutServices() async throws {
    let server = try await DNSServer([
      "--host-record=example.test,192.0.2.1", "--cname=alias.example.test,example.test",
    ])
    #expect(try await self.addresses("example.test", at: server) == ["192.0.2.1 7777"])
    #expect(try await self.addresses("alias.example.test", at: server) == ["192.0.2.1 7777"])
  }

  @Test("passes over targets that have no address")
  func targetsWithoutAddress() async throws {
    let server = try await DNSServer([
      "--srv-host=_blocktree._tcp.example.test,gone.example.test,7001,10,0",
      "--srv-host=_blocktree._tcp.example.test,b.example.test,7002,20,0", "--host-record=b.example.test,192.0.2.2",
      "--srv-host=_blocktree._tcp.lost.example.test,gone.example.test,7001,10,0",
    ])
    #expect(try await self.addresses("example.test", at: server) == ["192.0.2.2 7002"])
    let lost = try name("lost.example.test")
    await #expect(throws: ResolverError.notFound(lost)) { try await self.addresses("lost.example.test", at: server) }
  }

  @Test("says that there is nothing by a name")
  func nothing() async throws {
    let server = try await DNSServer([
      // Something else than addresses is here.
      "--txt-record=text.example.test,hello", "--srv-host=_blocktree._tcp.none.example.test",
      "--host-record=none.example.test,192.0.2.1",
    ])
    for text in ["nowhere.example.test", "text.example.test"] {
      let name = try name(text)
      await #expect(throws: ResolverError.notFound(name)) { try await self.addresses(text, at: server) }
    }
    let none = try name("none.example.test")
    await #expect(throws: ResolverError.notOffered(none)) { try await self.addresses("none.example.test", at: server) }
    // Nobody knows that one: this server refuses.
    let error = await #expect(throws: ResolverError.self) { try await self.addresses("example.invalid", at: server) }
    guard case .failed = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test("takes answers that are too long for a datagram, up to its limits")
  func longAnswers() async throws {
    let services = (10..<90).map { "--srv-host=_blocktree._tcp.example.test,target-\($0).example.test,7777,\($0),0" }
    let targets = (10..<90).map { "--host-record=target-\($0).example.test,192.0.2.\($0)" }
    let many = (1...100).map { "--host-record=many.example.test,198.51.100.\($0)" }
    let server = try await DNSServer(services + targets + many)
    // The first sixteen.
    #expect(try await self.addresses("example.test", at: server) == (10..<26).map { "192.0.2.\($0) 7777" })
    let addresses = try await self.addresses("many.example.test", at: server)
    #expect(addresses.count == Resolver.addressCountMax)
    #expect(addresses.allSatisfy { $0.hasPrefix("198.51.100.") })
  }

  @Test("asks the next server where the first does not answer")
  func nextServer() async throws {
    let silent = try DatagramSocket()
    let server = try await DNSServer(["--host-record=example.test,192.0.2.1"])
    let configuration = try ResolverConfiguration.asking(
      [silent.port, server.port], attemptTimeout: .milliseconds(100))
    var random = SystemRandomNumberGenerator()
    let addresses = try await Resolver(configuration).addresses(of: name("example.test"), using: &random)
    #expect(addresses == [ResolvedAddress(host: "192.0.2.1", port: 7777)])
  }
}

@Suite("A look-up without a good server")
struct UnansweredTests {
  private func lookUp(_ configuration: ResolverConfiguration) async throws -> [ResolvedAddress] {
    var random = SystemRandomNumberGenerator()
    return try await Resolver(configuration).addresses(of: name("example.test"), using: &random)
  }

  @Test("ends when each server had its attempts")
  func silence() async throws {
    let silent = try DatagramSocket()
    let configuration = try ResolverConfiguration.asking([silent.port], attemptTimeout: .milliseconds(20))
    let example = try name("example.test")
    await #expect(throws: ResolverError.noAnswer(example)) { try await self.lookUp(configuration) }
  }

  @Test("ends when its time is over")
  func timeout() async throws {
    let silent = try DatagramSocket()
    let configuration = try ResolverConfiguration.asking(
      [silent.port], attemptTimeout: .seconds(600), timeout: .milliseconds(50))
    let example = try name("example.test")
    await #expect(throws: ResolverError.noAnswer(example)) { try await self.lookUp(configuration) }
  }

  @Test("fails when nobody listens")
  func nobody() async throws {
    let port = try DatagramSocket().port
    // c-ares overlooks what the system says of one datagram when it sends the next on the same socket, and waits.
    let configuration = try ResolverConfiguration.asking([port], attemptTimeout: .milliseconds(20))
    let error = await #expect(throws: ResolverError.self) { try await self.lookUp(configuration) }
    guard case .failed(_, let reason) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(!reason.isEmpty)
  }

  @Test("ends when it is cancelled, and makes room for others")
  func cancelled() async throws {
    let silent = try DatagramSocket()
    let configuration = try ResolverConfiguration.asking(
      [silent.port], attemptTimeout: .seconds(600), timeout: .seconds(600))
    let resolver = Resolver(configuration)
    // More rounds than look-ups may be under way: one that did not end would be noticed.
    for _ in 0..<(2 * Resolver.lookupCountMax) {
      let isAsked = AsyncStream<Void>.makeStream()
      await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          isAsked.continuation.yield()
          var random = SystemRandomNumberGenerator()
          _ = try await resolver.addresses(of: name("example.test"), using: &random)
        }
        for await _ in isAsked.stream { break }
        group.cancelAll()
        await #expect(throws: CancellationError.self) { try await group.next() }
      }
    }
  }

  @Test("survives answers that make no sense")
  func nonsense() async throws {
    var random = SeededGenerator.forTest()
    let server = try DatagramSocket()
    let seed = random.next()
    // A good answer, with the question as it was asked before it.
    let record: [UInt8] =
      [0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 21, 0, 10, 0, 5, 0x1b, 0x58]
      + [1, UInt8(ascii: "a"), 7] + "example".utf8 + [4] + "test".utf8 + [0]
    let thread = Thread {
      var random = SeededGenerator(seed: seed)
      server.serve { query in
        if query == [0] { return nil }
        // Without what follows the question (EDNS).
        let end = (query.dropFirst(12).firstIndex(of: 0) ?? query.count - 5) + 5
        guard end <= query.count, end > 12 else { return [] }
        var answer = Array(query[..<end]) + record + record
        answer[2] = 0x81
        answer[3] = 0x80
        answer.replaceSubrange(4..<12, with: [0, 1, 0, 2, 0, 0, 0, 0])
        for _ in 0..<Int.random(in: 0...4, using: &random) {
          // Neither the number nor the question, by which it would be passed over.
          let index = Int.random(in: 2..<answer.count, using: &random)
          if (12..<end).contains(index) { continue }
          answer[index] = UInt8.random(in: 0...255, using: &random)
        }
        if Bool.random(using: &random) { answer.removeLast(Int.random(in: 0..<answer.count, using: &random)) }
        return answer
      }
    }
    thread.start()
    var configuration = try ResolverConfiguration.asking([server.port], attemptTimeout: .milliseconds(5))
    configuration.attemptCount = 1
    let resolver = Resolver(configuration)
    for _ in 0..<300 {
      // It says something, or not.
      let addresses = try? await resolver.addresses(of: name("example.test"), using: &random)
      #expect((addresses?.count ?? 0) <= Resolver.addressCountMax)
    }
    let end = try DatagramSocket()
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    address.sin_port = server.port.bigEndian
    withUnsafeBytes(of: &address) { bytes in
      guard let start = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return }
      _ = sendto(end.descriptor, [0], 1, 0, start, socklen_t(bytes.count))
    }
  }

  @Test("is refused when too many are under way")
  func busy() async throws {
    let silent = try DatagramSocket()
    let configuration = try ResolverConfiguration.asking(
      [silent.port], attemptTimeout: .seconds(600), timeout: .seconds(600))
    let resolver = Resolver(configuration)
    await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0...Resolver.lookupCountMax {
        group.addTask {
          var random = SystemRandomNumberGenerator()
          _ = try await resolver.addresses(of: name("example.test"), using: &random)
        }
      }
      await #expect(throws: ResolverError.busy) { try await group.next() }
      group.cancelAll()
      while true {
        do {
          guard try await group.next() != nil else { break }
        } catch {}
      }
    }
  }
}
