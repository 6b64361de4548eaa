// SPDX-License-Identifier: Apache-2.0

import Actors
import Testing

@Suite("An address")
struct AddressTests {
  @Test("of an actor is read as it was written", arguments: ["/node1", "bt://abc/site-b/nas1", "/we@ird.7/@"])
  func actors(process: String) throws {
    for (incarnation, number) in [(1, 1), (.max, .max), (0x5f1c_0e9b, 42)] as [(UInt64, UInt64)] {
      let address = try ActorAddress(process: process, incarnation: incarnation, number: number)
      #expect(try ActorAddress(parsing: address.description) == address)
    }
    let address = try ActorAddress(process: process, incarnation: 0x5f1c_0e9b, number: 42)
    #expect(address.description == "\(process)@000000005f1c0e9b.42")
  }

  @Test(
    "of an actor is nothing else",
    arguments: [
      "", "/node1", "/node1@", "/node1@0000000000000001", "/node1@0000000000000001.", "/node1@1.1",
      "/node1@0000000000000000.1", "/node1@0000000000000001.0", "/node1@0000000000000001.01",
      "/node1@0000000000000001.+1", "/node1@000000000000000A.1", "@0000000000000001.1", "/node1@0000000000000001.1 ",
      "/node1@00000000000000001.1", "/node1@0000000000000001.18446744073709551616",
    ])
  func noActors(text: String) {
    #expect(throws: AddressError.self) { try ActorAddress(parsing: text) }
  }

  @Test("of a service is read as it was written", arguments: ["/", "/site-b", "bt://abc/we@ird:/x"])
  func services(scope: String) throws {
    for reach in ServiceAddress.Reach.allCases {
      let address = try ServiceAddress(scope: scope, service: "thumb.nail-er_2", reach: reach)
      #expect(try ServiceAddress(parsing: address.description) == address)
      #expect(address.description == "thumb.nail-er_2@\(reach):\(scope)")
    }
  }

  @Test(
    "of a service is nothing else",
    arguments: [
      "", "a", "a@/b", "a@nearest", "a@nearest:", "a@farthest:/b", "@nearest:/b", "A@nearest:/b", "a b@nearest:/b",
      "a@Nearest:/b",
    ])
  func noServices(text: String) {
    #expect(throws: AddressError.self) { try ServiceAddress(parsing: text) }
  }

  @Test("has a longest path and a longest name")
  func bounds() throws {
    let path = "/" + String(repeating: "x", count: ActorLimits.pathByteCountMax - 1)
    let longest = try ActorAddress(process: path, incarnation: .max, number: .max)
    #expect(try ActorAddress(parsing: longest.description) == longest)
    #expect(throws: AddressError.pathLength) { try ActorAddress(process: path + "x", incarnation: 1, number: 1) }
    #expect(throws: AddressError.pathLength) {
      try ActorAddress(parsing: String(repeating: "x", count: 1_000_000))
    }
    let name = String(repeating: "n", count: ActorLimits.nameByteCountMax)
    let service = try ServiceAddress(scope: path, service: name, reach: .contained)
    #expect(try ServiceAddress(parsing: service.description) == service)
    #expect(throws: AddressError.malformed) { try ServiceAddress(scope: "/", service: name + "n", reach: .contained) }
    #expect(throws: AddressError.pathLength) { try ServiceAddress(scope: path + "x", service: "n", reach: .contained) }
  }
}
