// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import NIOPosix
import Node
import SwiftProtobuf
import Testing
import Transport
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("A running node", .timeLimit(.minutes(5)))
struct ServicesTests {
  @Test("says that it serves, for itself and for each of its services, also to anonymous callers")
  func health() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    for isAnonymous in [false, true] {
      try await node.withConnection(anonymous: isAnonymous) { connection in
        let health = Grpc_Health_V1_Health.Client(wrapping: connection.client)
        for service in [
          "", "blocktree.v1.SectorService", "blocktree.v1.FilesystemService", "blocktree.v1.DiscoveryService",
          "blocktree.v1.RelayService",
        ] {
          let status = try await health.check(.with { $0.service = service }).status
          #expect(status == .serving)
        }
        let error = await #expect(throws: RPCError.self) {
          try await health.check(.with { $0.service = "blocktree.v1.Nothing" })
        }
        #expect(error?.code == .notFound)
      }
    }
    #expect(process.pollEnd() == nil)
  }

  @Test("tells who watches its health that it stops")
  func healthWatch() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start(["--grace", "60"])
    let seen = try await node.withConnection { connection in
      let health = Grpc_Health_V1_Health.Client(wrapping: connection.client)
      return try await health.watch(.init()) { response in
        var seen: [Grpc_Health_V1_HealthCheckResponse.ServingStatus] = []
        for try await answer in response.messages {
          seen.append(answer.status)
          if seen.count == 1 { process.signal(SIGTERM) }
        }
        return seen
      }
    }
    #expect(seen == [.serving, .notServing])
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
  }

  @Test("describes its services to tools without a schema")
  func reflection() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let answers = try await node.withConnection(anonymous: true) { connection in
      let reflection = Grpc_Reflection_V1_ServerReflection.Client(wrapping: connection.client)
      return try await reflection.serverReflectionInfo { stream in
        try await stream.write(.with { $0.listServices = "*" })
        try await stream.write(.with { $0.fileContainingSymbol = "blocktree.v1.FilesystemService.Stat" })
        try await stream.write(.with { $0.fileByFilename = "blocktree/v1/types.proto" })
        try await stream.write(.with { $0.fileContainingSymbol = "blocktree.v1.Nothing" })
        try await stream.write(.with { $0.allExtensionNumbersOfType = "blocktree.v1.StatRequest" })
        try await stream.write(.init())
      } onResponse: { response in
        var answers: [Grpc_Reflection_V1_ServerReflectionResponse] = []
        for try await answer in response.messages { answers.append(answer) }
        return answers
      }
    }
    try #require(answers.count == 6)
    #expect(
      answers[0].listServicesResponse.service.map(\.name) == [
        "blocktree.v1.DiscoveryService", "blocktree.v1.FilesystemService", "blocktree.v1.RelayService",
        "blocktree.v1.SectorService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
      ])
    let files = try answers[1].fileDescriptorResponse.fileDescriptorProto.map {
      try Google_Protobuf_FileDescriptorProto(serializedBytes: $0)
    }
    #expect(files.first?.service.contains { $0.name == "FilesystemService" } == true)
    // With all that they import, so that a tool has to ask only once.
    let names = Set(files.map(\.name))
    #expect(files.allSatisfy { $0.dependency.allSatisfy(names.contains) })
    #expect(answers[2].fileDescriptorResponse.fileDescriptorProto.count >= 1)
    #expect(answers[3].errorResponse.errorCode == Int32(Status.Code.notFound.rawValue))
    #expect(answers[4].allExtensionNumbersResponse.extensionNumber == [])
    #expect(answers[5].errorResponse.errorCode == Int32(Status.Code.invalidArgument.rawValue))
    #expect(process.pollEnd() == nil)
  }

  @Test("refuses a credential of another domain, and serves on")
  func foreignCredential() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let profile = try node.profile
    let point = try #require(profile.startingPoints.first)
    let key = SigningKey()
    let foreign = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    let chain = try foreign.issueCredential(
      .user, at: try TreePath(parsing: "/owner"), key: key.verifyingKey,
      validity: Validity(from: .now, lifetime: .seconds(600)))
    let security = try TransportSecurity(
      root: profile.root, identity: TransportSecurity.Identity(chain: chain, key: key))
    await #expect(throws: TransportError.self) {
      try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
        .withConnection(to: point.address, expecting: point.path) { _ in }
    }
    try await withClient(profile) { client in _ = try await client.stat("/") }
    #expect(process.pollEnd() == nil)
  }

  @Test("closes the connections of somebody whose credential is removed, and admits no new ones")
  func revocation() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let owner = try node.profile
    let keys = PrincipalKeys()
    let request = try CredentialRequest(keys: keys, issuedAtMilliseconds: 1).pemRepresentation
    let guest = "\(node.scratch.path)/guest"
    try await withClient(owner) { client in
      let package = try await client.issueCredential(.user, at: "/guest", request: request, lifetime: .seconds(3_600))
      try Profile.create(at: guest, joining: package, keys: keys)
    }
    let profile = try Profile(contentsOf: guest)
    let caller = try #require(profile.caller)
    let point = try #require(profile.startingPoints.first)
    let security = try TransportSecurity(
      root: profile.root,
      identity: TransportSecurity.Identity(chain: caller.credential.chain, key: caller.keys.signing))
    let dialer = Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
    let connection = try await dialer.dial(point.address, expecting: point.path)
    await withTaskGroup(of: Void.self) { group in
      // Ends when the node has closed the connection.
      group.addTask { await connection.run() }
      do {
        let filesystem = Blocktree_V1_FilesystemService.Client(wrapping: connection.client)
        _ = try await filesystem.stat(.with { $0.path = "/" })
        try await withClient(owner) { client in try await client.remove("/guest") }
      } catch {
        Issue.record(error)
        connection.close()
      }
    }
    await #expect(throws: TransportError.self) {
      try await dialer.withConnection(to: point.address, expecting: point.path) { _ in }
    }
    #expect(process.pollEnd() == nil)
  }
}
