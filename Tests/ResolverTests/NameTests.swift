// SPDX-License-Identifier: Apache-2.0

import Resolver
import Testing

@Suite("A name of DNS")
struct NameTests {
  @Test(
    "is made of labels",
    arguments: [
      ("example.org", "example.org"), ("Example.ORG.", "example.org"), ("a", "a"), ("xn--bcher-kva.example", nil),
      ("_blocktree._tcp.a-b.example", nil), ("1.2.3.4", nil),
    ] as [(String, String?)])
  func good(text: String, canonical: String?) throws {
    #expect(try DNSName(parsing: text).description == canonical ?? text)
  }

  @Test(
    "has no empty, long or strange labels",
    arguments: [
      "", ".", "a..b", ".a", "a..", "a b", "bücher.example", "a/b", "a\0b", "a,b", "[::1]", "a:53",
      String(repeating: "a", count: 64) + ".example",
    ])
  func bad(text: String) {
    #expect(throws: ResolverError.self) { try DNSName(parsing: text) }
  }

  @Test("has at most 253 bytes, the name of its service included")
  func long() throws {
    let label = String(repeating: "a", count: 62) + "."
    let longest = label + label + label + label + "b"
    #expect(longest.utf8.count == 253)
    #expect(try DNSName(parsing: longest).description == longest)
    #expect(throws: ResolverError.self) { try DNSName(parsing: longest + "b") }
    #expect(throws: ResolverError.self) { try DNSName(parsing: longest).service(Resolver.service) }
  }
}

@Suite("The address of a DNS server")
struct NameServerTests {
  @Test(
    "is IPv4 or IPv6, perhaps with a port",
    arguments: [
      ("192.0.2.1", "192.0.2.1:53"), ("192.0.2.1:5353", "192.0.2.1:5353"), ("2001:db8::1", "[2001:db8::1]:53"),
      ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
    ])
  func good(text: String, canonical: String) throws {
    #expect(try NameServer(parsing: text).description == canonical)
  }

  @Test(
    "is nothing else",
    arguments: [
      "", "localhost", "localhost:53", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:+53", "192.0.2.1:053",
      "[192.0.2.1]:53", "[2001:db8::1]", "192.0.2.300", ":53",
    ])
  func bad(text: String) {
    #expect(throws: ResolverError.malformedServer(text)) { try NameServer(parsing: text) }
  }

  @Test("is one of at most eight")
  func many() throws {
    let servers = (1...9).map { "192.0.2.\($0)" }
    #expect(try ResolverConfiguration.servers(parsing: servers.prefix(8).joined(separator: ", ")).count == 8)
    #expect(throws: ResolverError.self) { try ResolverConfiguration.servers(parsing: servers.joined(separator: ",")) }
  }
}
