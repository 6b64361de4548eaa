// SPDX-License-Identifier: Apache-2.0

import Configuration
import Foundation
import Logging
import Testing
import Transport
import Trust

@testable import Node

@Suite("What a process says of where it is")
struct AddressTests {
  private func published(
    described: String, advertised: [String], listen: String? = nil, advertise: [String]? = nil,
    listening: [String]
  ) async throws -> [String] {
    let scratch = try Scratch()
    let directory = NodeDirectory(scratch.path)
    let description = NodeDescription(listen: described, advertise: advertised)
    try description.write(to: directory.description)
    var flags: NodeConfiguration.Flags = [:]
    if let listen { flags["listen"] = .string(listen) }
    if let advertise { flags["advertise"] = .stringArray(advertise) }
    let configuration = try await NodeConfiguration(flags: flags, environment: [:], file: nil, directory: directory)
    return try AddressPublisher.addresses(
      configuration, description, listening: listening.map { try NetworkAddress(parsing: $0) }
    ).map(\.description)
  }

  @Test("is what its description says")
  func described() async throws {
    let addresses = try await self.published(
      described: "0.0.0.0:7001", advertised: ["a.example.org:7001", "b.example.org:7001"],
      listening: ["0.0.0.0:7001"])
    #expect(addresses == ["a.example.org:7001", "b.example.org:7001"])
  }

  @Test("is where it listens, when it was told to listen elsewhere and nothing else")
  func moved() async throws {
    let addresses = try await self.published(
      described: "127.0.0.1:7001", advertised: ["127.0.0.1:7001"], listen: "127.0.0.2:0", listening: ["127.0.0.2:7002"])
    #expect(addresses == ["127.0.0.2:7002"])
  }

  @Test("is what a setting says, wherever it listens")
  func setting() async throws {
    let addresses = try await self.published(
      described: "127.0.0.1:7001", advertised: ["127.0.0.1:7001"], listen: "127.0.0.2:0",
      advertise: ["nas.example.org:443"], listening: ["127.0.0.2:7002"])
    #expect(addresses == ["nas.example.org:443"])
  }

  @Test("stays what it was named for others to dial, when it listens elsewhere")
  func namedForOthers() async throws {
    let addresses = try await self.published(
      described: "127.0.0.1:7001", advertised: ["nas.example.org:443"], listen: "127.0.0.2:7002",
      listening: ["127.0.0.2:7002"])
    #expect(addresses == ["nas.example.org:443"])
  }

  @Test("is the name of the machine, when it listens on all of its addresses")
  func anyAddress() async throws {
    let addresses = try await self.published(
      described: "127.0.0.1:7001", advertised: ["127.0.0.1:7001"], listen: "0.0.0.0:0", listening: ["0.0.0.0:7002"])
    #expect(addresses.count == 1)
    #expect(addresses.first?.hasSuffix(":7002") == true)
    #expect(addresses.first != "0.0.0.0:7002")
  }
}
