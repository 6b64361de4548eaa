// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import GRPCProtobuf
import Inodes
import Logging
import NIOCore
import NIOPosix
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

typealias SectorClient = Blocktree_V1_SectorService.Client<HTTP2ClientTransport.WrappedChannel>

/// A sector service on a real socket.
struct TestServer: Sendable {
  let domain: TestDomain
  let address: NetworkAddress

  /// Calls the service as somebody; nil: without a certificate.
  func call<Result: Sendable>(
    as principal: TestPrincipal?, _ body: (SectorConnection) async throws -> Result
  ) async throws -> Result {
    let security = try TransportSecurity(
      root: self.domain.authority.root,
      identity: principal.map { .init(chain: $0.credential.chain, key: $0.key) })
    return try await Dialer(security, group: MultiThreadedEventLoopGroup.singleton).withConnection(to: self.address) {
      try await body(SectorConnection(connection: $0))
    }
  }

  /// Runs a service of this process for as long as `body` runs.
  static func with(
    _ group: SectorGroup, as node: TestPrincipal, in domain: TestDomain, _ body: (TestServer) async throws -> Void
  ) async throws {
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let security = try TransportSecurity(
      root: domain.authority.root, identity: .init(chain: node.credential.chain, key: node.key))
    let transport = try NodeServerTransport(
      security: security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: eventLoops, logger: logger)
    let server = GRPCServer(
      transport: transport, services: [SectorServiceHandler(group), BackupServiceHandler(group)])
    let result: Result<Void, any Error>
    do {
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.serve() }
        let address = try #require(try await transport.listeningAddresses.first)
        try await body(TestServer(domain: domain, address: address))
        tasks.cancelAll()
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    try await eventLoops.shutdownGracefully()
    try result.get()
  }
}

/// A sector service on a real socket, over a group with its store.
struct TestService: Sendable {
  let test: TestGroup
  let server: TestServer

  var address: NetworkAddress { self.server.address }

  /// Calls the service as somebody; nil: without a certificate.
  func call<Result: Sendable>(
    as principal: TestPrincipal?, _ body: (SectorConnection) async throws -> Result
  ) async throws -> Result {
    try await self.server.call(as: principal, body)
  }
}

/// Runs a service for as long as `body` runs.
func withService(_ body: (TestService) async throws -> Void) async throws {
  let test = try await TestGroup()
  try await TestServer.with(test.group, as: test.domain.node, in: test.domain) { server in
    try await body(TestService(test: test, server: server))
  }
}

struct SectorConnection: Sendable {
  let connection: NodeConnection
  var client: SectorClient { SectorClient(wrapping: self.connection.client) }

  func records(_ files: FileID...) async throws -> [Blocktree_V1_InodeRecord] {
    try await self.client.readRecords(.with { $0.fileIds = files.map(\.message) }).records
  }

  /// The messages of one read.
  func read(_ request: Blocktree_V1_ReadSectorsRequest) async throws -> [Blocktree_V1_ReadSectorsResponse] {
    try await self.client.readSectors(request) { response in
      var messages: [Blocktree_V1_ReadSectorsResponse] = []
      for try await message in response.messages { messages.append(message) }
      return messages
    }
  }

  /// Opens a session stream.
  func session<Result: Sendable>(_ body: @escaping @Sendable (SectorStream) async throws -> Result) async throws
    -> Result
  {
    let requests = AsyncStream<Blocktree_V1_SectorServiceSessionRequest>.makeStream()
    return try await self.client.session { writer in
      for await request in requests.stream { try await writer.write(request) }
    } onResponse: { response in
      let stream = SectorStream(requests: requests.continuation, responses: response.messages)
      defer { requests.continuation.finish() }
      return try await body(stream)
    }
  }
}

/// The client's end of a session stream.
final class SectorStream {
  private let requests: AsyncStream<Blocktree_V1_SectorServiceSessionRequest>.Continuation
  private var responses: RPCAsyncSequence<Blocktree_V1_SectorServiceSessionResponse, any Error>.AsyncIterator

  init(
    requests: AsyncStream<Blocktree_V1_SectorServiceSessionRequest>.Continuation,
    responses: RPCAsyncSequence<Blocktree_V1_SectorServiceSessionResponse, any Error>
  ) {
    self.requests = requests
    self.responses = responses.makeAsyncIterator()
  }

  func send(_ operations: [Blocktree_V1_SectorOperation]) {
    self.requests.yield(.with { $0.operations = operations })
  }

  /// Reads so many results; answers them by the id of their operation, and how many came in each message.
  func results(_ count: Int) async throws -> (byID: [UInt64: Blocktree_V1_SectorResult], messageSizes: [Int]) {
    var results: [UInt64: Blocktree_V1_SectorResult] = [:]
    var sizes: [Int] = []
    while results.count < count, let message = try await self.responses.next(isolation: nil) {
      sizes.append(message.results.count)
      for result in message.results {
        #expect(results.updateValue(result, forKey: result.id) == nil)
      }
    }
    return (results, sizes)
  }
}

extension Commit {
  /// What a client sends.
  var message: Blocktree_V1_CommitRequest {
    get throws {
      .with {
        if let operation = self.operations.first?.id { $0.operation = operation.message }
        $0.conditions = self.conditions.map { condition in
          .with {
            $0.fileID = condition.fileID.message
            $0.version = condition.version.rawValue
          }
        }
        $0.records = self.records.map(\.message)
        $0.blocks = self.blocks.map { file, blocks in
          .with {
            $0.fileID = file.message
            for run in blocks.runs {
              for number in run.digests.indices {
                $0.blocks.append(
                  .with {
                    $0.index = run.start + UInt64(number)
                    $0.bytes = Data(run.bytes[number * 4_096..<(number + 1) * 4_096])
                  })
              }
            }
            for (key, bytes) in blocks.nodes {
              $0.blocks.append(
                .with {
                  $0.level = UInt32(key.level)
                  $0.index = key.index
                  $0.bytes = Data(bytes)
                })
            }
          }
        }
        $0.removals = self.removals.map(\.message)
        $0.chains = self.chains.map { chain in .with { $0.certificates = chain.certificates.map { Data($0) } } }
      }
    }
  }
}

/// What a call that has to fail said.
func failure(
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async -> StatusDetails {
  do { try await body() } catch { return StatusDetails(describing: error) }
  Issue.record("It did not fail.", sourceLocation: sourceLocation)
  return StatusDetails(code: .unknown, message: "")
}

/// Sends bytes as they are, and takes any.
struct RawCoder: MessageSerializer, MessageDeserializer {
  func serialize<Bytes: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Bytes { Bytes(message) }
  func deserialize<Bytes: GRPCContiguousBytes>(_ bytes: Bytes) throws -> [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}
