// SPDX-License-Identifier: Apache-2.0

import GRPCCore
import Logging
import NIOCore
import NIOPosix
import Raft
import SectorStore
import Sectors
import Synchronization
import Testing
import Transport
import Trust

/// Messages of consensus as they might be, with payloads that a store would take.
struct MessageMaker {
  static let store = StoreConfiguration(generation: 1)
  /// One of each kind.
  static let kindCount = 15

  var generator: SeededGenerator

  init(seed: UInt64) { self.generator = SeededGenerator(seed: seed) }

  mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self.generator) }
  mutating func index() -> Raft.LogIndex { Raft.LogIndex(self.generator.next() >> UInt64(self.number(4...63))) }
  mutating func term() -> Term { Term(self.generator.next() >> UInt64(self.number(4...63))) }
  mutating func position() -> LogPosition { LogPosition(index: self.index(), term: self.term()) }
  mutating func member() -> MemberID { MemberID(self.generator.next() | 1) }

  mutating func message(kind: Int) -> MemberMessage {
    var payloads: [LogPayload?] = []
    let body: Raft.Message.Body
    switch kind % Self.kindCount {
    case 0: body = .preVoteRequest(last: self.position())
    case 1: body = .preVoteReply(for: self.term(), granted: self.generator.chance(50))
    case 2: body = .voteRequest(last: self.position(), isTransfer: self.generator.chance(50))
    case 3: body = .voteReply(granted: self.generator.chance(50))
    case 4: body = .heartbeat(round: HeartbeatRound(self.generator.next()), commit: self.index())
    case 5:
      body = .heartbeatReply(round: HeartbeatRound(self.generator.next()), isWritable: self.generator.chance(50))
    case 6:
      var entries: [EntryHeader] = []
      for _ in 0..<self.number(0...6) {
        let (entry, payload) = self.entry()
        entries.append(entry)
        payloads.append(payload)
      }
      body = .append(after: self.position(), entries: entries, commit: self.index())
    case 7: body = .appendReply(.matched(self.index()))
    case 8: body = .appendReply(.mismatched(after: self.index(), hint: self.position()))
    case 9: body = .appendReply(.unwritable)
    case 10: body = .timeoutNow
    case 11: body = .readRequest(ReadNonce(self.generator.next()))
    case 12: body = .readReply(ReadNonce(self.generator.next()), index: self.index())
    case 13: body = .readReply(ReadNonce(self.generator.next()), index: nil)
    default: body = .termNotice
    }
    return MemberMessage(
      message: Raft.Message(incarnation: GroupIncarnation(self.generator.next()), term: self.term(), body: body),
      payloads: payloads)
  }

  /// An append with one entry of so many blocks of 4 KiB.
  mutating func append(blockCount: Int) -> MemberMessage {
    let change = self.change(blockCount: blockCount)
    return MemberMessage(
      message: Raft.Message(
        incarnation: GroupIncarnation(1), term: Term(1),
        body: .append(
          after: .zero, entries: [EntryHeader(term: Term(1), kind: .command, byteCount: blockCount * 4_096 + 100)],
          commit: .zero)), payloads: [.change(change)])
  }

  private mutating func entry() -> (EntryHeader, LogPayload?) {
    switch self.number(0...9) {
    case 0: return (EntryHeader(term: self.term(), kind: .noop), .noop)
    case 1...2:
      let voters = (0..<self.number(1...5)).map { _ in self.member() }
      let outgoing = self.generator.chance(50) ? [] : (0..<self.number(1...5)).map { _ in self.member() }
      let learners = (0..<self.number(0...2)).map { _ in self.member() }
      let membership = Membership(voters: voters, outgoing: outgoing, learners: learners)
      guard let membership else { return self.entry() }
      return (EntryHeader(term: self.term(), kind: .membership(membership)), nil)
    default:
      let change = self.change(blockCount: self.generator.chance(20) ? self.number(1...60) : self.number(0...3))
      return (EntryHeader(term: self.term(), kind: .command, byteCount: self.number(0...1 << 40)), .change(change))
    }
  }

  private mutating func change(blockCount: Int) -> Change {
    var change = Change(term: self.generator.next())
    let inode = UInt64(self.number(1...1 << 40))
    change.conditions = [.init(inode: inode, version: self.generator.chance(50) ? nil : 7)]
    let bytes = [UInt8](repeating: UInt8(self.number(0...255)), count: self.number(0...500))
    change.records = [.put(StoredRecord(inode: inode, version: 8, bytes: bytes, parents: [2]))]
    if blockCount > 0 {
      var blocks = [UInt8](repeating: UInt8(self.number(0...255)), count: blockCount * 4_096)
      for _ in 0..<20 { blocks[self.number(0...blocks.count - 1)] = UInt8(self.number(0...255)) }
      change.blocks = [BlockWrite(inode: inode, level: 0, index: 3, bytes: blocks, blockSize: 4_096)]
    }
    change.facts = [.init(key: "fact", value: bytes)]
    return change
  }
}

/// What a payload says, in a form that can be compared.
func comparable(_ payload: LogPayload?) -> [[UInt8]]? {
  switch payload {
  case .change(let change): [[1], change.encoded()] + change.blocks.map { Array($0.bytes) }
  case .noop: [[2]]
  case .membership(let bytes): [[3], bytes]
  case nil: nil
  }
}

func expectSame(
  _ left: MemberMessage, _ right: MemberMessage, _ comment: Comment? = nil,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(left.message == right.message, comment, sourceLocation: sourceLocation)
  let isSame = left.payloads.map(comparable) == right.payloads.map(comparable)
  #expect(isSame, comment, sourceLocation: sourceLocation)
}

/// Waits until `condition` holds. Fails the test after a time that only a broken program needs.
func eventually(
  _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool
) async throws {
  let end = ContinuousClock.now + .seconds(60)
  while try await !condition() {
    guard ContinuousClock.now < end else {
      Issue.record(comment ?? "The condition never came true.", sourceLocation: sourceLocation)
      throw CancellationError()
    }
    try await Task.sleep(for: .milliseconds(5))
  }
}

// MARK: Members

/// What a member heard.
final class Inbox: Sendable {
  struct Received: Sendable {
    let message: MemberMessage
    let sender: MemberID
    let wasOnEventLoop: Bool
  }

  private let state = Mutex((received: [Received](), unreachable: [MemberID]()))

  var received: [Received] { self.state.withLock { $0.received } }
  var unreachable: [MemberID] { self.state.withLock { $0.unreachable } }
  var urgent: [Received] { self.received.filter(\.message.message.isUrgent) }
  var bulk: [Received] { self.received.filter { !$0.message.message.isUrgent } }

  var receiver: MemberReceiver {
    MemberReceiver { message, payloads, sender in
      let received = Received(
        message: MemberMessage(message: message, payloads: payloads), sender: sender,
        wasOnEventLoop: MultiThreadedEventLoopGroup.currentEventLoop != nil)
      self.state.withLock { $0.received.append(received) }
    } unreachable: { member in
      self.state.withLock { $0.unreachable.append(member) }
    }
  }
}

/// The processes of a cluster of a few members, by number; member n has the id 100 + n.
struct TestCluster: Sendable {
  let domain: TestDomain
  let processes: [TestPrincipal]

  init(_ count: Int) throws {
    let domain = try TestDomain()
    self.domain = domain
    self.processes = try (1...count).map { try domain.principal(.process, "/servers/\($0)", services: [.sector]) }
  }

  func id(_ number: Int) -> MemberID { MemberID(100 + UInt64(number)) }

  func security(_ principal: TestPrincipal?) throws -> TransportSecurity {
    try TransportSecurity(
      root: self.domain.authority.root, identity: principal.map { .init(chain: $0.credential.chain, key: $0.key) })
  }

  func identity(_ number: Int) -> MemberIdentity {
    MemberIdentity(
      generation: 1, member: self.id(number), incarnation: GroupIncarnation(1), lastLogIndex: Raft.LogIndex(17))
  }

  func peer(_ number: Int, at address: NetworkAddress) -> MemberPeer {
    MemberPeer(id: self.id(number), path: self.processes[number - 1].path, addresses: [address])
  }

  /// A member of the first life, unless another is named.
  func lives(
    _ life: GroupLife = .first, heard: @escaping @Sendable (RecoveryWarrant) -> Void = { _ in }
  ) -> LifeGuard {
    LifeGuard(generation: 1, life: life, root: self.domain.authority.root, heard: heard)
  }

  func handler(_ number: Int, _ inbox: Inbox, lives: LifeGuard? = nil) -> MemberServiceHandler {
    let processes = self.processes
    return MemberServiceHandler(
      .init(
        generation: 1, store: MessageMaker.store, identity: { self.identity(number) },
        admits: { credential in processes.contains { $0.path == credential.path } },
        memberID: { path in processes.firstIndex { $0.path == path }.map { self.id($0 + 1) } },
        lives: lives ?? self.lives()),
      receiver: inbox.receiver)
  }

  /// Serves as a member for as long as `body` runs. Port 0 takes a free one.
  func withServer(
    _ number: Int, _ inbox: Inbox, port: UInt16 = 0, lives: LifeGuard? = nil,
    began: (GRPCServer<NodeServerTransport>) -> Void = { _ in }, _ body: (NetworkAddress) async throws -> Void
  ) async throws {
    let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let transport = try NodeServerTransport(
      security: self.security(self.processes[number - 1]),
      listeningOn: [ListenAddress(host: "127.0.0.1", port: port)], group: eventLoops, logger: logger)
    let server = GRPCServer(transport: transport, services: [self.handler(number, inbox, lives: lives)])
    let result: Result<Void, any Error>
    do {
      began(server)
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

  /// Runs the streams of a member for as long as `body` runs.
  func withConnections(
    _ number: Int, _ inbox: Inbox, lives: LifeGuard? = nil, _ body: (MemberConnections) async throws -> Void
  ) async throws {
    let dialer = Dialer(
      try self.security(self.processes[number - 1]), group: MultiThreadedEventLoopGroup.singleton.next(),
      limits: MemberLimits.transport())
    let connections = MemberConnections(
      member: self.id(number), lives: lives ?? self.lives(), dialer: dialer, receiver: inbox.receiver)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { await connections.run() }
      try await body(connections)
      tasks.cancelAll()
    }
  }

  /// Calls the member's service as somebody; nil: without a certificate.
  func call<Result: Sendable>(
    _ address: NetworkAddress, as principal: TestPrincipal?, _ body: (NodeConnection) async throws -> Result
  ) async throws -> Result {
    try await Dialer(self.security(principal), group: MultiThreadedEventLoopGroup.singleton).withConnection(
      to: address, body)
  }
}
