// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import Logging
import NIOCore
import NIOPosix
import Raft
import SectorStore
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

/// A donor with random content, which goes on changing when it is told to.
final class SnapshotDonor: Sendable {
  static var configuration: StoreConfiguration {
    var configuration = StoreConfiguration(generation: 1)
    configuration.growthBytes = 4 << 20
    configuration.checkpointBytes = 256 << 10
    // Several marks in each import.
    configuration.batchBytes = 256 << 10
    return configuration
  }

  let directory = NSTemporaryDirectory() + "Snapshots/" + UUID().uuidString
  let store: SectorStore
  private let changes: Mutex<SnapshotChanges>

  init(seed: UInt64) throws {
    self.changes = Mutex(SnapshotChanges(generator: SeededGenerator(seed: seed)))
    try FileManager.default.createDirectory(atPath: self.directory, withIntermediateDirectories: true)
    try SectorStore.create(at: self.directory + "/donor", Self.configuration)
    self.store = try SectorStore.open(at: self.directory + "/donor", Self.configuration)
  }

  deinit {
    self.store.abandon()
    try? FileManager.default.removeItem(atPath: self.directory)
  }

  var target: String { self.directory + "/copy" }

  /// Changes a random file, and with it everything else that a store has.
  func change() async throws {
    let change = self.changes.withLock { $0.next() }
    _ = try await self.store.commit(change)
  }

  func fill(_ count: Int) async throws {
    for _ in 0..<count { try await self.change() }
  }

  static func items(_ snapshot: StoreSnapshot) throws -> [SnapshotItem] {
    var (items, next) = try snapshot.items(byteCountMax: 1 << 20)
    while let cursor = next {
      let page = try snapshot.items(after: cursor, byteCountMax: 1 << 20)
      items += page.items
      next = page.next
    }
    return items
  }

  /// Opens the copy and compares it, at the entry where it begins, with what the snapshot has.
  func expectCopy(
    of snapshot: StoreSnapshot, member: MemberID, promised: LogHardState,
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    let copy = try SectorStore.open(at: self.target, Self.configuration, appliesLog: false)
    defer { copy.abandon() }
    #expect(copy.configuration.memberID == member.rawValue, sourceLocation: sourceLocation)
    let log = copy.recoveredLog
    #expect(log.hardState == promised, sourceLocation: sourceLocation)
    #expect(log.applied == snapshot.index && log.appliedTerm == snapshot.term, sourceLocation: sourceLocation)
    #expect(log.entries.isEmpty, sourceLocation: sourceLocation)
    let copied = try await copy.snapshot()
    let isSame = try Self.items(copied) == Self.items(snapshot)
    #expect(isSame, sourceLocation: sourceLocation)
  }
}

/// Changes of everything that a store has.
private struct SnapshotChanges {
  var generator: SeededGenerator
  private var count: UInt64 = 0

  init(generator: SeededGenerator) { self.generator = generator }

  private mutating func number(_ range: ClosedRange<UInt64>) -> UInt64 {
    UInt64.random(in: range, using: &self.generator)
  }

  private mutating func bytes(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 7, count: count)
    for word in 0..<count / 8 {
      let random = self.generator.next()
      for byte in 0..<8 { bytes[word * 8 + byte] = UInt8(truncatingIfNeeded: random >> UInt64(byte * 8)) }
    }
    return bytes
  }

  mutating func next() -> Change {
    self.count += 1
    var change = Change(term: 3)
    let inode = self.number(1...24)
    let record = self.bytes(Int(self.number(0...500)))
    change.records = [
      .put(StoredRecord(inode: inode, version: self.count, bytes: record, parents: [inode % 5 + 1]))
    ]
    let sectors = self.bytes(Int(self.number(1...100)) * 4_096)
    let node = self.bytes(4_096)
    change.blocks = [
      BlockWrite(inode: inode, level: 0, index: self.number(0...150), bytes: sectors, blockSize: 4_096),
      BlockWrite(inode: inode, level: 1, index: self.number(0...3), bytes: node, blockSize: 4_096),
    ]
    let session = SessionID(high: self.number(1...40), low: 1)
    change.sessionsOpened = [.init(session: session, owner: [1, 2], openedAt: 5)]
    change.operations = [.init(session: session, sequence: self.count, result: self.bytes(30))]
    if let digest = Digest(self.bytes(32)) { change.certificates = [.init(digest: digest, bytes: self.bytes(300))] }
    change.facts = [.init(key: "fact \(self.number(1...50))", value: self.bytes(20))]
    return change
  }
}

/// A member that takes snapshots.
final class SnapshotReceiver: Sendable {
  static let promised = LogHardState(term: 8, vote: 101)

  let inbox: SnapshotInbox
  let handler: SnapshotServiceHandler
  private let state: Shared

  private final class Shared: Sendable {
    let installed = Mutex<[(index: StoreLogIndex, term: UInt64)]>([])
    let isWanted = Mutex(true)
  }

  var installed: [StoreLogIndex] { self.state.installed.withLock { $0.map(\.index) } }
  func refuseAll() { self.state.isWanted.withLock { $0 = false } }

  init(_ cluster: TestCluster, _ number: Int, directory: String, lives: LifeGuard? = nil) {
    let state = Shared()
    let inbox = SnapshotInbox(
      .init(
        directory: directory, store: SnapshotDonor.configuration,
        wants: { _, _ in state.isWanted.withLock { $0 } }, hardState: { Self.promised },
        installed: { index, term in state.installed.withLock { $0.append((index, term)) } }))
    let processes = cluster.processes
    self.state = state
    self.inbox = inbox
    self.handler = SnapshotServiceHandler(
      .init(
        identity: { cluster.identity(number) },
        admits: { credential in processes.contains { $0.path == credential.path } },
        memberID: { path in processes.firstIndex { $0.path == path }.map { cluster.id($0 + 1) } }, inbox: { inbox },
        lives: lives ?? cluster.lives()))
  }
}

extension TestCluster {
  /// Serves as a member that takes snapshots for as long as `body` runs.
  func withSnapshotServer(
    _ number: Int, _ receiver: SnapshotReceiver, _ body: (NetworkAddress) async throws -> Void
  ) async throws {
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let transport = try NodeServerTransport(
      security: self.security(self.processes[number - 1]),
      listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: eventLoops, logger: logger)
    let server = GRPCServer(transport: transport, services: [receiver.handler])
    let result: Result<Void, any Error>
    do {
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.serve() }
        let address = try #require(try await transport.listeningAddresses.first)
        try await body(address)
        tasks.cancelAll()
      }
      result = .success(())
    } catch {
      result = .failure(error)
    }
    try await eventLoops.shutdownGracefully()
    try result.get()
  }

  /// Sends as member 1 to member 2.
  func send(
    _ snapshot: StoreSnapshot, of store: SectorStore, life: GroupLife = .first, to address: NetworkAddress,
    progress: @escaping @Sendable (SnapshotProgress) -> Void = { _ in }
  ) async throws {
    let dialer = Dialer(
      try self.security(self.processes[0]), group: MultiThreadedEventLoopGroup.singleton.next(),
      limits: MemberLimits.transport())
    try await SnapshotSender.send(
      snapshot, of: store, from: self.id(1), life: life, generation: 1, to: self.peer(2, at: address), dialer: dialer,
      progress: progress)
  }

  /// Sends any requests as somebody, when the receiver has answered the first; returns what it said.
  func install(
    _ requests: [Blocktree_V1_InstallRequest], to address: NetworkAddress, as principal: TestPrincipal?,
    whenStarted: @escaping @Sendable () async throws -> Void = {}
  ) async throws -> [Blocktree_V1_InstallResponse] {
    let started = AsyncStream.makeStream(of: Void.self)
    return try await self.call(address, as: principal) { connection in
      let client = Blocktree_V1_SnapshotService.Client(wrapping: connection.client)
      return try await client.install { writer in
        guard let first = requests.first else { return }
        try await writer.write(first)
        for await _ in started.stream { break }
        try await whenStarted()
        for request in requests.dropFirst() { try await writer.write(request) }
      } onResponse: { response in
        var responses: [Blocktree_V1_InstallResponse] = []
        for try await message in response.messages {
          responses.append(message)
          started.continuation.yield()
        }
        return responses
      }
    }
  }
}
