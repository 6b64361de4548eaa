// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Configuration
import Foundation
import GRPCCore
import Logging
import Node
import SwiftProtobuf
import Testing
import Transport
import Trust

@Suite("A node whose disk fails", .timeLimit(.minutes(5)))
struct FailingDiskTests {
  @Test("acknowledges nothing more, turns NOT_SERVING, and ends with an error that says why")
  func syncFails() async throws {
    let node = try await NodeUnderTest.initialized()
    let directory = NodeDirectory(node.directory)
    let configuration = try await NodeConfiguration(
      // On a port of its own: children of this process may inherit the socket, and keep it longer than the node does.
      flags: ["listen": .string("127.0.0.1:0"), "shutdown.graceSeconds": .int(60)], environment: [:], file: nil,
      directory: directory)
    let files = FailingFiles()
    let lines = Notes<[String]>([])
    let logger = Logger(label: "test") { _ in
      LineLogHandler(level: .info, format: .json) { bytes in
        lines.change { $0.append(String(decoding: bytes, as: UTF8.self)) }
      }
    }
    let (ready, isReady) = AsyncStream.makeStream(of: NetworkAddress.self)
    await withTaskGroup(of: Void.self) { group in
      group.addTask {
        defer { isReady.finish() }
        let error = await #expect(throws: NodeError.self) {
          try await Node(directory, configuration, logger: logger, files: files).run(trapsSignals: false) { ready in
            for address in ready.addresses { isReady.yield(address) }
          }
        }
        guard case .storeFailed(let why)? = error else {
          Issue.record("ended with \(String(describing: error))")
          return
        }
        #expect(why.contains("fdatasync"))
      }
      do {
        var addresses = ready.makeAsyncIterator()
        let address = await addresses.next()
        try await self.fail(files, node, at: try #require(address))
      } catch {
        Issue.record(error)
        group.cancelAll()
      }
    }
    #expect(lines.value.contains { $0.contains(#""level":"critical","message":"the store failed""#) })
    // After the failure the directory can be opened again, and holds what was acknowledged before.
    let process = try await node.start()
    try await withClient(node.profile) { client in
      let bytes = try await client.readAll("/before").bytes
      #expect(bytes == [1])
    }
    #expect(process.pollEnd() == nil)
  }

  /// Breaks the disk under a write, while the health is watched.
  private func fail(_ files: FailingFiles, _ node: NodeUnderTest, at address: NetworkAddress) async throws {
    try await withClient(node.profile.starting(from: ["\(address)"])) { client in
      _ = try await client.write([1], to: "/before")
    }
    let seen = try await node.withConnection(to: address) { connection in
      let filesystem = Blocktree_V1_FilesystemService.Client(wrapping: connection.client)
      let health = Grpc_Health_V1_Health.Client(wrapping: connection.client)
      return try await health.watch(.init()) { response in
        var seen: [Grpc_Health_V1_HealthCheckResponse.ServingStatus] = []
        for try await answer in response.messages {
          seen.append(answer.status)
          guard seen.count == 1 else { continue }
          files.breakDown()
          let error = await #expect(throws: RPCError.self) {
            try await filesystem.makeDirectory(.with { $0.path = "/during" })
          }
          #expect(error?.code == .unavailable)
        }
        return seen
      }
    }
    #expect(seen == [.serving, .notServing])
  }
}
