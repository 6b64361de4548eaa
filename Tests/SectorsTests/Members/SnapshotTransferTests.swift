// SPDX-License-Identifier: Apache-2.0

import BlocktreeSchema
import Foundation
import GRPCCore
import NIOPosix
import Raft
import SectorStore
import Sectors
import SwiftProtobuf
import Synchronization
import Testing
import Transport
import Trust

@Suite("A snapshot on its way", .timeLimit(.minutes(2)))
struct SnapshotTransferTests {
  private static func header(
    generation: UInt64 = 1, from sender: UInt64 = 101, to receiver: UInt64 = 102, sectorSize: UInt32 = 4_096,
    index: UInt64 = 5, term: UInt64 = 3
  ) -> Blocktree_V1_InstallRequest {
    .with {
      $0.header = .with {
        $0.generation = generation
        $0.sender = sender
        $0.receiver = receiver
        $0.sectorSize = sectorSize
        $0.index = index
        $0.term = term
      }
    }
  }

  private static func requests(_ items: [[UInt8]]) -> [Blocktree_V1_InstallRequest] {
    var requests = SnapshotRequests(items)
    return Array(sequence(state: ()) { _ in requests.next() })
  }

  @Test("becomes a store that equals the donor at its index, while the donor goes on")
  func transfer() async throws {
    let seed = Seeds.take(1)[0]
    let donor = try SnapshotDonor(seed: seed)
    try await donor.fill(60)
    let cluster = try TestCluster(2)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    let snapshot = try await donor.store.snapshot()
    let seen = Mutex<[SnapshotProgress]>([])
    try await cluster.withSnapshotServer(2, receiver) { address in
      try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask {
          while !Task.isCancelled { try await donor.change() }
        }
        try await cluster.send(snapshot, of: donor.store, to: address) { progress in
          if progress.receivedByteCount > 0, !progress.isInstalled {
            #expect(throws: StoreError.notAStore) { try SectorStore.open(at: donor.target) }
          }
          seen.withLock { $0.append(progress) }
        }
        tasks.cancelAll()
      }
      try await eventually { receiver.installed == [snapshot.index] }
      #expect(receiver.inbox.status.isInstalled && receiver.inbox.status.failure == nil)
      // Until the process has begun anew from it, nothing more is taken.
      let again = await failure { try await cluster.send(snapshot, of: donor.store, to: address) }
      #expect(again.reason == "NOT_SERVING")
    }
    #expect(donor.store.appliedIndex > snapshot.index, "SECTORS_SEED=\(seed)")
    let progress = seen.withLock { $0 }
    let total = try SnapshotDonor.items(snapshot).reduce(0) { $0 + UInt64($1.encoded().count) }
    #expect(total > 3 << 20)
    #expect(progress.first?.start == nil && progress.first?.sentByteCount == 0)
    #expect(progress.last?.isInstalled == true && progress.last?.receivedByteCount == total)
    #expect(progress.count > 4)
    for progress in progress {
      // One more request may be on its way than the window has room for.
      let underWay = progress.sentByteCount - progress.receivedByteCount
      let most = SnapshotLimits.unacknowledgedByteCountMax + UInt64(SnapshotLimits.requestByteCount)
      #expect(underWay <= most)
    }
    try await donor.expectCopy(of: snapshot, member: cluster.id(2), promised: SnapshotReceiver.promised)
  }

  @Test("that was interrupted goes on where it was", arguments: [true, false])
  func interruption(_ senderStops: Bool) async throws {
    let seed = Seeds.take(1)[0]
    let donor = try SnapshotDonor(seed: seed)
    // Far more than may be on its way when the interruption comes.
    try await donor.fill(160)
    let cluster = try TestCluster(2)
    let snapshot = try await donor.store.snapshot()
    let first = SnapshotReceiver(cluster, 2, directory: donor.target)
    let total = try SnapshotDonor.items(snapshot).reduce(0) { $0 + UInt64($1.encoded().count) }
    #expect(total > 13 << 20)
    let isHalfway = Mutex(false)
    let addresses = AsyncStream.makeStream(of: NetworkAddress.self)
    async let refusal = failure {
      for await address in addresses.stream {
        try await cluster.send(snapshot, of: donor.store, to: address) { progress in
          guard progress.receivedByteCount >= 2 << 20 else { return }
          isHalfway.withLock { $0 = true }
          if senderStops { withUnsafeCurrentTask { $0?.cancel() } }
        }
      }
    }
    try await cluster.withSnapshotServer(2, first) { address in
      addresses.continuation.yield(address)
      addresses.continuation.finish()
      try await eventually { isHalfway.withLock { $0 } }
      if senderStops { try await eventually { first.inbox.status.header == nil } }
    }
    let code = await refusal.code
    #expect(code == (senderStops ? .cancelled : .unavailable))
    #expect(first.installed.isEmpty)
    #expect(throws: StoreError.notAStore) { try SectorStore.open(at: donor.target) }
    try await donor.fill(20)

    // The receiver has begun anew, too.
    let second = SnapshotReceiver(cluster, 2, directory: donor.target)
    let last = Mutex<SnapshotProgress?>(nil)
    try await cluster.withSnapshotServer(2, second) { address in
      try await cluster.send(snapshot, of: donor.store, to: address) { progress in last.withLock { $0 = progress } }
    }
    #expect(second.installed == [snapshot.index])
    let progress = try #require(last.withLock { $0 })
    #expect(progress.start != nil, "SECTORS_SEED=\(seed)")
    #expect(progress.sentByteCount < total - (1 << 20), "SECTORS_SEED=\(seed)")
    try await donor.expectCopy(of: snapshot, member: cluster.id(2), promised: SnapshotReceiver.promised)
  }

  @Test("is not taken from strangers")
  func strangers() async throws {
    let donor = try SnapshotDonor(seed: 1)
    let cluster = try TestCluster(2)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    try await cluster.withSnapshotServer(2, receiver) { address in
      // Without a certificate; a person; a process that is no member.
      for principal in [nil, cluster.domain.ann, cluster.domain.node] {
        let refusal = await failure {
          _ = try await cluster.install([Self.header()], to: address, as: principal)
        }
        #expect(refusal.reason == "PERMISSION_DENIED")
      }
    }
    #expect(receiver.inbox.status == SnapshotInbox.Status())
    #expect(!FileManager.default.fileExists(atPath: donor.target))
  }

  @Test("is not taken from who is not who he says, means somebody else, or has something else")
  func mismatches() async throws {
    let donor = try SnapshotDonor(seed: 1)
    let cluster = try TestCluster(2)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    try await cluster.withSnapshotServer(2, receiver) { address in
      func refusal(_ requests: Blocktree_V1_InstallRequest...) async -> StatusDetails {
        await failure { _ = try await cluster.install(requests, to: address, as: cluster.processes[0]) }
      }
      let generation = await refusal(Self.header(generation: 2))
      #expect(generation.reason == "WRONG_GENERATION" && generation.metadata == ["generation": "1"])
      let other = await refusal(Self.header(to: 103))
      #expect(other.reason == "WRONG_MEMBER" && other.metadata == ["field": "receiver", "member": "102"])
      let sender = await refusal(Self.header(from: 103))
      #expect(sender.reason == "WRONG_MEMBER" && sender.metadata == ["field": "sender", "member": "101"])
      #expect(await refusal(Self.header(from: 102)).metadata["field"] == "sender")
      for (header, field) in [
        (Self.header(from: 0), "sender"), (Self.header(to: 0), "receiver"),
        (Self.header(sectorSize: 8_192), "sector_size"), (Self.header(index: 1 << 60 + 1), "index"),
        (Self.header(term: .max), "term"), (.with { $0.items = Data([1]) }, "header"),
      ] {
        let refusal = await refusal(header)
        #expect(refusal.reason == "INVALID_REQUEST" && refusal.metadata == ["field": field])
      }
      var both = Self.header()
      both.itemByteCounts = [1]
      #expect(await refusal(both).metadata == ["field": "header"])
      #expect(receiver.inbox.status == SnapshotInbox.Status())

      let item = SnapshotItem.end(SnapshotCounts()).encoded()
      let tooMany = Blocktree_V1_InstallRequest.with { $0.itemByteCounts = [UInt32](repeating: 1, count: 4_097) }
      let tooLong = Blocktree_V1_InstallRequest.with {
        $0.itemByteCounts = [UInt32(SnapshotLimits.itemByteCountMax + 1)]
      }
      let tooLarge = Blocktree_V1_InstallRequest.with { $0.items = Data(count: 1 << 20 + 1) }
      for request in [tooMany, tooLong, tooLarge] {
        #expect(await refusal(Self.header(), request).reason == "TOO_LARGE")
      }
      let empty = Blocktree_V1_InstallRequest.with { $0.itemByteCounts = [0] }
      let beyond = Blocktree_V1_InstallRequest.with {
        $0.itemByteCounts = [UInt32(item.count)]
        $0.items = Data(item + [1])
      }
      let behind = Blocktree_V1_InstallRequest.with { $0.itemByteCounts = [10, 10] }
      // The stream ends within an item, and before the last one.
      let cut = Blocktree_V1_InstallRequest.with { $0.itemByteCounts = [10] }
      for request in [empty, beyond, behind, cut] {
        #expect(await refusal(Self.header(), request).reason == "INVALID_REQUEST")
      }
      #expect(await refusal(Self.header()).metadata == ["field": "items"])
      #expect(await refusal(Self.header(), Self.header()).metadata == ["field": "header"])

      // The right process, but another store than the donor thinks.
      let snapshot = try await donor.store.snapshot()
      let dialer = Dialer(
        try cluster.security(cluster.processes[0]), group: MultiThreadedEventLoopGroup.singleton,
        limits: MemberLimits.transport())
      var peer = cluster.peer(2, at: address)
      peer.id = MemberID(9)
      let wrong = await failure {
        try await SnapshotSender.send(
          snapshot, of: donor.store, from: cluster.id(1), generation: 1, to: peer, dialer: dialer)
      }
      #expect(wrong.reason == "WRONG_MEMBER" && wrong.metadata["member"] == "102")
      // Another process.
      peer = MemberPeer(id: cluster.id(2), path: cluster.processes[0].path, addresses: [address])
      let elsewhere = await failure {
        try await SnapshotSender.send(
          snapshot, of: donor.store, from: cluster.id(1), generation: 1, to: peer, dialer: dialer)
      }
      #expect(elsewhere.reason == "PEER_NOT_TRUSTED")
      receiver.refuseAll()
      let refused = await failure { try await cluster.send(snapshot, of: donor.store, to: address) }
      #expect(refused.reason == "NOT_NEEDED")
    }
    #expect(receiver.installed.isEmpty)
    #expect(throws: StoreError.notAStore) { try SectorStore.open(at: donor.target) }
  }

  @Test("that was changed on the way is refused, and a good one taken afterwards")
  func damage() async throws {
    let donor = try SnapshotDonor(seed: Seeds.take(1)[0])
    try await donor.fill(6)
    let cluster = try TestCluster(2)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    let snapshot = try await donor.store.snapshot()
    let items = try SnapshotDonor.items(snapshot)
    let encoded = items.map { $0.encoded() }
    let record = try #require(items.firstIndex { if case .record = $0 { true } else { false } })
    let blocks = try #require(items.firstIndex { if case .blocks = $0 { true } else { false } })
    let fact = try #require(items.firstIndex { if case .fact = $0 { true } else { false } })

    let bitInBlock: (inout [[UInt8]]) -> Void = { $0[blocks][$0[blocks].count - 100] ^= 16 }
    let bitInRecord: (inout [[UInt8]]) -> Void = { $0[record][12] ^= 1 }
    let withoutRecord: (inout [[UInt8]]) -> Void = { $0.remove(at: record) }
    let withoutFact: (inout [[UInt8]]) -> Void = { $0.remove(at: fact) }
    let changedOrder: (inout [[UInt8]]) -> Void = { $0.swapAt(record, record + 1) }
    let newerFormat: (inout [[UInt8]]) -> Void = { $0[fact][0] = 2 }
    try await cluster.withSnapshotServer(2, receiver) { address in
      for (damage, fault) in [
        (bitInBlock, SnapshotFault.blockDamaged), (bitInRecord, nil), (withoutRecord, .blocksWithoutRecord),
        (withoutFact, .countsDiffer), (changedOrder, .orderWrong), (newerFormat, nil),
      ] {
        var damaged = encoded
        damage(&damaged)
        let header = Self.header(index: snapshot.index.rawValue, term: snapshot.term)
        let refusal = await failure {
          _ = try await cluster.install(
            [header] + Self.requests(damaged), to: address, as: cluster.processes[0])
        }
        #expect(refusal.code == .dataLoss && refusal.reason == "DATA_LOSS")
        #expect(refusal.metadata["fault"] == fault?.rawValue)
        #expect(receiver.installed.isEmpty)
        #expect(throws: StoreError.notAStore) { try SectorStore.open(at: donor.target) }
      }
      try await cluster.send(snapshot, of: donor.store, to: address)
      try await eventually { receiver.installed == [snapshot.index] }
    }
    try await donor.expectCopy(of: snapshot, member: cluster.id(2), promised: SnapshotReceiver.promised)
  }

  @Test("ends where the donor's disk is damaged")
  func damagedDonor() async throws {
    let donor = try SnapshotDonor(seed: Seeds.take(1)[0])
    try await donor.fill(10)
    let cluster = try TestCluster(2)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    let snapshot = try await donor.store.snapshot()
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: donor.directory + "/donor/data/sectors-000000"))
    // Every block, so that one of them is in use.
    let byteCount = try file.seekToEnd()
    for offset in stride(from: UInt64(77), to: byteCount, by: 4_096) {
      try file.seek(toOffset: offset)
      let byte = try file.read(upToCount: 1)?.first ?? 0
      try file.seek(toOffset: offset)
      try file.write(contentsOf: [byte ^ 1])
    }
    try await cluster.withSnapshotServer(2, receiver) { address in
      let error = await #expect(throws: StoreError.self) {
        try await cluster.send(snapshot, of: donor.store, to: address)
      }
      guard case .damaged(.block(_, 0, _)) = error else {
        Issue.record("\(String(describing: error))")
        return
      }
      try await eventually { receiver.inbox.status.header == nil }
    }
    #expect(receiver.installed.isEmpty)
  }

  @Test("is taken one at a time, the newest first")
  func oneAtATime() async throws {
    let donor = try SnapshotDonor(seed: 1)
    let cluster = try TestCluster(3)
    let receiver = SnapshotReceiver(cluster, 2, directory: donor.target)
    let end = Self.requests([SnapshotItem.end(SnapshotCounts()).encoded()])
    try await cluster.withSnapshotServer(2, receiver) { address in
      // Each gives way to the next while it is open, and hears of it with what it sends then.
      let displaced = await failure {
        _ = try await cluster.install([Self.header(index: 5)] + end, to: address, as: cluster.processes[0]) {
          for index in [UInt64(4), 5] {
            let busy = await failure {
              _ = try await cluster.install(
                [Self.header(from: 103, index: index)] + end, to: address, as: cluster.processes[2])
            }
            #expect(busy.code == .resourceExhausted && busy.reason == "BUSY" && busy.retryDelay != nil)
          }
          #expect(receiver.inbox.status.header?.index == StoreLogIndex(5))
          let newer = await failure {
            _ = try await cluster.install(
              [Self.header(from: 103, index: 6)] + end, to: address, as: cluster.processes[2]
            ) {
              #expect(receiver.inbox.status.header?.index == StoreLogIndex(6))
              // The same process again, which has lost its connection and has not got around to a newer snapshot.
              let responses = try await cluster.install(
                [Self.header(from: 103, index: 3)] + end, to: address, as: cluster.processes[2])
              #expect(responses.last?.installed == true)
            }
          }
          #expect(newer.reason == "BUSY")
        }
      }
      #expect(displaced.reason == "BUSY")
    }
    #expect(receiver.installed == [StoreLogIndex(3)])
    let copy = try SectorStore.open(at: donor.target)
    #expect(copy.appliedIndex == StoreLogIndex(3))
    copy.abandon()
  }

  @Test("is cut into requests that put together are the same items", arguments: Seeds.take(5))
  func requests(_ seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<40 {
      let isSmall = generator.chance(50)
      let items = (0..<Int.random(in: 0...(isSmall ? 9_000 : 6), using: &generator)).map { _ in
        let largest = isSmall ? 60 : SnapshotLimits.itemByteCountMax
        return [UInt8](repeating: UInt8(generator.next() & 255), count: Int.random(in: 1...largest, using: &generator))
      }
      var assembly = SnapshotAssembly()
      var received: [[UInt8]] = []
      for request in Self.requests(items) {
        #expect(request.items.count <= SnapshotLimits.requestByteCount)
        received += try assembly.receive(request)
      }
      #expect(assembly.isWhole)
      #expect(received == items, "SECTORS_SEED=\(seed)")
    }
  }
}
