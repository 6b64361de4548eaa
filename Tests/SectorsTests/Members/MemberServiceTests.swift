// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import GRPCCore
import NIOPosix
import Raft
import SectorStore
import Sectors
import SwiftProtobuf
import Testing
import Transport
import Trust

@Suite("Members over TLS", .timeLimit(.minutes(2)))
struct MemberServiceTests {
  private static func heartbeat(_ round: Int) -> Raft.Message {
    Raft.Message(
      incarnation: GroupIncarnation(3), term: Term(1),
      body: .heartbeat(round: HeartbeatRound(UInt64(round)), commit: .zero))
  }

  private static func round(_ received: Inbox.Received) -> Int? {
    guard case .heartbeat(let round, _) = received.message.message.body else { return nil }
    return Int(round.rawValue)
  }

  @Test("hear one another, urgent and bulk, in order and on the event loop")
  func exchange() async throws {
    let cluster = try TestCluster(2)
    let (one, two) = (Inbox(), Inbox())
    var maker = MessageMaker(seed: 1)
    let appends = [1, 3, 700, 2, 40].map { maker.append(blockCount: $0) }
    try await cluster.withServer(1, one) { first in
      try await cluster.withServer(2, two) { second in
        try await cluster.withConnections(1, one) { fromOne in
          try await cluster.withConnections(2, two) { fromTwo in
            fromOne.connect(to: [cluster.peer(2, at: second)])
            fromTwo.connect(to: [cluster.peer(1, at: first)])
            // What is sent before the streams are open waits for them.
            for round in 0..<100 {
              fromOne.send(Self.heartbeat(round), payloads: [], to: cluster.id(2))
              fromTwo.send(Self.heartbeat(round), payloads: [], to: cluster.id(1))
            }
            for append in appends { fromOne.send(append.message, payloads: append.payloads, to: cluster.id(2)) }
            fromOne.send(Self.heartbeat(0), payloads: [], to: cluster.id(7))
            try await eventually { two.bulk.count == appends.count && two.urgent.count == 100 }
            try await eventually { one.urgent.count == 100 }
            #expect(fromOne.status.map(\.isOpen) == [true, true])
            #expect(fromOne.status.map(\.droppedCount) == [0, 0])
          }
        }
      }
    }
    #expect(two.urgent.map(Self.round) == Array(0..<100))
    #expect(one.urgent.map(Self.round) == Array(0..<100))
    for (received, append) in zip(two.bulk, appends) { expectSame(received.message, append) }
    #expect(two.received.allSatisfy { $0.sender == cluster.id(1) && $0.wasOnEventLoop })
    #expect(one.received.allSatisfy { $0.sender == cluster.id(2) })
  }

  @Test("find one another again after one was away")
  func reconnect() async throws {
    let cluster = try TestCluster(2)
    let (inbox, before, after) = (Inbox(), Inbox(), Inbox())
    var maker = MessageMaker(seed: 1)
    let append = maker.append(blockCount: 100)
    try await cluster.withConnections(1, inbox) { connections in
      var port: UInt16 = 0
      try await cluster.withServer(2, before) { address in
        port = address.port
        connections.connect(to: [cluster.peer(2, at: address)])
        connections.send(append.message, payloads: append.payloads, to: cluster.id(2))
        connections.send(Self.heartbeat(1), payloads: [], to: cluster.id(2))
        try await eventually { before.received.count == 2 }
        #expect(inbox.unreachable.isEmpty)
      }
      try await eventually("Both streams broke.") { inbox.unreachable.count >= 2 }
      try await eventually { connections.status.allSatisfy { !$0.isOpen && $0.failure != nil } }
      #expect(Set(inbox.unreachable) == [cluster.id(2)])
      // Nobody is there: this is lost, sooner or later.
      connections.send(Self.heartbeat(2), payloads: [], to: cluster.id(2))
      try await eventually { connections.status[0].droppedCount > 0 }
      try await cluster.withServer(2, after, port: port) { _ in
        try await eventually { connections.status.allSatisfy(\.isOpen) }
        connections.send(Self.heartbeat(3), payloads: [], to: cluster.id(2))
        connections.send(append.message, payloads: append.payloads, to: cluster.id(2))
        try await eventually { after.received.count == 2 }
      }
    }
    #expect(after.urgent.map(Self.round) == [3])
    if let received = after.bulk.first { expectSame(received.message, append) }
  }

  @Test("do not hold up one that shuts down")
  func shutdown() async throws {
    let cluster = try TestCluster(2)
    let inbox = Inbox()
    var server: GRPCServer<NodeServerTransport>?
    try await cluster.withConnections(1, inbox) { connections in
      try await cluster.withServer(2, Inbox(), began: { server = $0 }) { address in
        connections.connect(to: [cluster.peer(2, at: address)])
        try await eventually { connections.status.allSatisfy(\.isOpen) }
        let start = ContinuousClock.now
        server?.beginGracefulShutdown()
        try await eventually { inbox.unreachable.count >= 2 }
        // What is still open after 30 seconds is cut off.
        #expect(start.duration(to: .now) < .seconds(15))
      }
    }
  }

  @Test("are those that were named last")
  func peers() async throws {
    let cluster = try TestCluster(3)
    let (inbox, two, three) = (Inbox(), Inbox(), Inbox())
    try await cluster.withServer(2, two) { second in
      try await cluster.withServer(3, three) { third in
        try await cluster.withConnections(1, inbox) { connections in
          let peers = (cluster.peer(2, at: second), cluster.peer(3, at: third))
          connections.connect(to: [peers.0])
          connections.send(Self.heartbeat(1), payloads: [], to: cluster.id(2))
          try await eventually { two.received.count == 1 }
          connections.connect(to: [peers.0, peers.1])
          connections.send(Self.heartbeat(2), payloads: [], to: cluster.id(2))
          connections.send(Self.heartbeat(2), payloads: [], to: cluster.id(3))
          try await eventually { two.received.count == 2 && three.received.count == 1 }
          connections.connect(to: [peers.1])
          #expect(connections.status.map(\.member) == [cluster.id(3), cluster.id(3)])
          connections.send(Self.heartbeat(3), payloads: [], to: cluster.id(2))
          connections.send(Self.heartbeat(3), payloads: [], to: cluster.id(3))
          try await eventually { three.received.count == 2 }
          // Who is no peer any more is not missed, and one that stays keeps its connection.
          #expect(inbox.unreachable.isEmpty)
          #expect(two.received.count == 2)
        }
      }
    }
  }

  @Test("do not speak to another process at a member's address")
  func impostor() async throws {
    let cluster = try TestCluster(3)
    let (inbox, three) = (Inbox(), Inbox())
    try await cluster.withServer(3, three) { address in
      try await cluster.withConnections(1, inbox) { connections in
        // Member 3 is where member 2 should be.
        connections.connect(to: [cluster.peer(2, at: address)])
        connections.send(Self.heartbeat(1), payloads: [], to: cluster.id(2))
        try await eventually { inbox.unreachable.count >= 4 }
        // Here the process is right, but its store is another one.
        connections.connect(to: [
          MemberPeer(id: MemberID(9), path: cluster.processes[2].path, addresses: [address])
        ])
        try await eventually { connections.status.contains { $0.failure?.reason == "WRONG_MEMBER" } }
        #expect(connections.status.compactMap(\.failure?.metadata["member"]).first == "103")
      }
    }
    #expect(three.received.isEmpty)
  }

  @Test("lose their connections when somebody closes them, and open others")
  func closed() async throws {
    let cluster = try TestCluster(2)
    let (inbox, two) = (Inbox(), Inbox())
    try await cluster.withServer(2, two) { address in
      try await cluster.withConnections(1, inbox) { connections in
        connections.connect(to: [cluster.peer(2, at: address)])
        try await eventually { connections.status.allSatisfy(\.isOpen) }
        #expect(connections.closeConnections { $0.peer.path == cluster.processes[0].path } == 0)
        #expect(connections.closeConnections { $0.peer.path == cluster.processes[1].path } == 2)
        try await eventually { inbox.unreachable.count >= 2 }
        try await eventually { connections.status.allSatisfy(\.isOpen) }
        connections.send(Self.heartbeat(1), payloads: [], to: cluster.id(2))
        try await eventually { two.received.count == 1 }
      }
    }
  }

  @Test("say who they are")
  func introduction() async throws {
    let cluster = try TestCluster(2)
    let two = Inbox()
    try await cluster.withServer(2, two) { address in
      try await cluster.withConnections(1, Inbox()) { connections in
        let path = cluster.processes[1].path
        let answer = try await connections.introduce(cluster.identity(1), to: path, at: [address])
        #expect(answer == cluster.identity(2))
        var other = cluster.identity(1)
        other.generation = 2
        let refusal = await failure {
          _ = try await connections.introduce(other, to: path, at: [address])
        }
        #expect(refusal.reason == "WRONG_GENERATION")
        let wrong = await failure {
          _ = try await connections.introduce(cluster.identity(1), to: cluster.processes[0].path, at: [address])
        }
        #expect(wrong.reason == "PEER_NOT_TRUSTED")
      }
    }
  }

  // MARK: Who is refused

  /// What the service says to a stream.
  private static func refusal(
    _ cluster: TestCluster, _ address: NetworkAddress, as principal: TestPrincipal?,
    _ requests: [Blocktree_V1_DeliverRequest]
  ) async -> StatusDetails {
    await failure {
      try await cluster.call(address, as: principal) { connection in
        let client = Blocktree_V1_MemberService.Client(wrapping: connection.client)
        _ = try await client.deliver { writer in
          for request in requests { try await writer.write(request) }
        }
      }
    }
  }

  private static func request(
    generation: UInt64 = 1, from sender: UInt64 = 101, to receiver: UInt64 = 102
  ) -> Blocktree_V1_DeliverRequest {
    .with {
      $0.header = .with {
        $0.generation = generation
        $0.sender = sender
        $0.receiver = receiver
      }
      $0.messages = [.with { $0.heartbeat = .init() }]
    }
  }

  @Test("do not listen to strangers")
  func strangers() async throws {
    let cluster = try TestCluster(2)
    let inbox = Inbox()
    let elsewhere = try TestCluster(1)
    try await cluster.withServer(2, inbox) { address in
      // Of another domain: TLS itself refuses.
      let foreign = try TransportSecurity(
        root: cluster.domain.authority.root,
        identity: .init(
          chain: elsewhere.processes[0].credential.chain, key: elsewhere.processes[0].key))
      let refused = await failure {
        try await Dialer(foreign, group: MultiThreadedEventLoopGroup.singleton).withConnection(to: address) {
          let client = Blocktree_V1_MemberService.Client(wrapping: $0.client)
          _ = try await client.deliver { try await $0.write(Self.request()) }
        }
      }
      #expect(refused.code == .unavailable)
      // Without a certificate; a person; a process that is no member.
      for principal in [nil, cluster.domain.ann, cluster.domain.node] {
        #expect(await Self.refusal(cluster, address, as: principal, [Self.request()]).reason == "PERMISSION_DENIED")
        let refusal = await failure {
          try await cluster.call(address, as: principal) { connection in
            let client = Blocktree_V1_MemberService.Client(wrapping: connection.client)
            _ = try await client.introduce(.with { $0.caller = .with { $0.generation = 1 } })
          }
        }
        #expect(refusal.reason == "PERMISSION_DENIED")
      }
      #expect(inbox.received.isEmpty)
    }
  }

  @Test("do not listen to who is not who he says, or means somebody else")
  func mismatches() async throws {
    let cluster = try TestCluster(2)
    let inbox = Inbox()
    try await cluster.withServer(2, inbox) { address in
      func refusal(_ requests: Blocktree_V1_DeliverRequest...) async -> StatusDetails {
        await Self.refusal(cluster, address, as: cluster.processes[0], requests)
      }
      let generation = await refusal(Self.request(generation: 2))
      #expect(generation.reason == "WRONG_GENERATION")
      #expect(generation.metadata == ["generation": "1"])
      let receiver = await refusal(Self.request(to: 103))
      #expect(receiver.reason == "WRONG_MEMBER")
      #expect(receiver.metadata == ["field": "receiver", "member": "102"])
      let sender = await refusal(Self.request(from: 103))
      #expect(sender.reason == "WRONG_MEMBER")
      #expect(sender.metadata == ["field": "sender", "member": "101"])
      #expect(await refusal(Self.request(from: 102)).metadata["field"] == "sender")
      #expect(await refusal(Self.request(from: 0)).metadata["field"] == "sender")
      #expect(await refusal(Self.request(to: 0)).metadata["field"] == "receiver")
      var headless = Self.request()
      headless.clearHeader()
      #expect(await refusal(headless).metadata["field"] == "header")
      #expect(inbox.received.isEmpty)
      // What came before is handed over.
      #expect(await refusal(Self.request(), Self.request()).metadata["field"] == "header")
      #expect(inbox.received.count == 1)
      #expect(await refusal(Self.request(), .with { $0.messages = [.init()] }).metadata["field"] == "body")
      #expect(inbox.received.count == 2)
    }
  }
}
