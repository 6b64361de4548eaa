// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import Foundation
internal import GRPCCore
package import Raft
package import SectorStore
internal import SwiftProtobuf
package import Transport
internal import Trust

/// Brings a snapshot to another member.
package enum SnapshotSender {
  /// An encoded piece of the snapshot, and where the next begins; nil after the last.
  private struct Page: Sendable {
    var items: [[UInt8]]
    var next: SnapshotCursor?
  }

  /// Sends the snapshot over a connection of its own. On return the receiver has a new store of it, durably.
  ///
  /// What the receiver has of the same snapshot, by index and term, from an attempt before is not sent again; so call it
  /// again after an error that may pass. The snapshot has to stay open meanwhile, and is left open. What the donor reads
  /// is bounded by ``SnapshotLimits/pieceByteCount``, and read one piece ahead, on threads of the store. Cancelled, it
  /// hangs up.
  ///
  /// - Parameters:
  ///   - store: The one that the snapshot is of.
  ///   - member: This member.
  ///   - life: The one that the store belongs to.
  ///   - dialer: Best with the limits that ``MemberLimits/transport(_:)`` gives, so that a silent peer is noticed soon.
  ///   - heal: Heals a block that is damaged here; says whether it is worth to read again.
  ///   - progress: Called on the connection's event loop after each answer of the receiver. Must not wait.
  /// - Throws: `StoreError` for what failed here; `TransportError` when no address of the peer answers as it should;
  ///   `StatusDetails` for what the receiver said, or when the connection broke; `MemberError.invalid` when its answers
  ///   make no sense; `CancellationError`.
  package static func send(
    _ snapshot: StoreSnapshot, of store: SectorStore, from member: MemberID, life: GroupLife = .first,
    generation: UInt64, to peer: MemberPeer, dialer: Dialer,
    heal: @escaping @Sendable (DamagePlace) async -> Bool = { _ in false },
    progress: @escaping @Sendable (SnapshotProgress) -> Void = { _ in }
  ) async throws {
    let header = SnapshotHeader(
      generation: generation, sender: member, receiver: peer.id, sectorSize: store.configuration.sectorSize,
      index: snapshot.index, term: snapshot.term, life: life)
    let connection = try await self.dial(peer, dialer)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { await connection.run() }
      defer { connection.close() }
      try await connection.onEventLoop {
        try await self.send(snapshot, header, store, over: connection, heal, progress)
      }
    }
  }

  private static func dial(_ peer: MemberPeer, _ dialer: Dialer) async throws -> NodeConnection {
    var failure = TransportError.closed
    for address in peer.addresses {
      do throws(TransportError) {
        return try await dialer.dial(address, expecting: peer.path)
      } catch {
        failure = error
      }
      try Task.checkCancellation()
    }
    throw failure
  }

  /// On the connection's event loop.
  private static func send(
    _ snapshot: StoreSnapshot, _ header: SnapshotHeader, _ store: SectorStore, over connection: NodeConnection,
    _ heal: @escaping @Sendable (DamagePlace) async -> Bool, _ progress: @escaping @Sendable (SnapshotProgress) -> Void
  ) async throws {
    let flow = SnapshotFlow()
    let client = Blocktree_V1_SnapshotService.Client(wrapping: connection.client)
    do {
      try await client.install { writer in
        try await writer.write(.with { $0.header = .init(header) })
        try await self.write(snapshot, store, flow, heal, to: writer)
      } onResponse: { response in
        for try await message in response.messages { progress(try flow.receive(message)) }
      }
    } catch {
      // What the stream says when the donor gave up is of no use.
      if let failure = flow.failure { throw failure }
      try Task.checkCancellation()
      if let error = error as? MemberError { throw error }
      throw StatusDetails(describing: error)
    }
    guard flow.isInstalled else {
      throw StatusDetails(code: .unavailable, message: "The member ended the stream.")
    }
  }

  private static func write(
    _ snapshot: StoreSnapshot, _ store: SectorStore, _ flow: SnapshotFlow,
    _ heal: @escaping @Sendable (DamagePlace) async -> Bool, to writer: RPCWriter<Blocktree_V1_InstallRequest>
  ) async throws {
    let start = try await flow.start()
    var page = try await self.read(snapshot, store, flow, heal, after: start)
    while true {
      let next = page.next
      // The disk and the network work at the same time.
      async let following = next == nil ? nil : self.read(snapshot, store, flow, heal, after: next)
      var requests = SnapshotRequests(page.items)
      while let request = requests.next() {
        try await flow.send(request.items.count, isLast: next == nil && requests.isAtEnd)
        try await writer.write(request)
      }
      guard let following = try await following else { break }
      page = following
    }
    flow.end()
  }

  private static func read(
    _ snapshot: StoreSnapshot, _ store: SectorStore, _ flow: SnapshotFlow,
    _ heal: @escaping @Sendable (DamagePlace) async -> Bool, after cursor: SnapshotCursor?
  ) async throws(StoreError) -> Page {
    do throws(StoreError) {
      return try await SectorGroup.readHealing(heal) { () throws(StoreError) in
        try await store.perform { () throws(StoreError) in
          let (items, next) = try snapshot.items(after: cursor, byteCountMax: SnapshotLimits.pieceByteCount)
          return Page(items: items.map { $0.encoded() }, next: next)
        }
      }
    } catch {
      flow.fail(error)
      throw error
    }
  }
}
