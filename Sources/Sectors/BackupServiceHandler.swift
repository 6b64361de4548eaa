// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import GRPCCore
internal import Inodes
internal import SectorStore
internal import SwiftProtobuf
private import Synchronization
internal import Transport
internal import Trust

/// The backup service as gRPC clients see it: sends all that this member has applied, while it goes on.
///
/// What is in memory is bounded by two pieces of ``SnapshotLimits/pieceByteCount`` and what the stream takes.
package struct BackupServiceHandler: Blocktree_V1_BackupService.SimpleServiceProtocol {
  private let group: SectorGroup
  private let place = BackupPlace()

  /// A caller that takes nothing for so long is cut off: while it is there, the disk fills.
  private static let idleTime = Duration.seconds(60)

  package init(_ group: SectorGroup) { self.group = group }

  package func backup(
    request: Blocktree_V1_BackupRequest, response: RPCWriter<Blocktree_V1_BackupResponse>, context: ServerContext
  ) async throws {
    guard case .credential(let caller) = context.caller, self.group.confirms(caller),
      try await self.group.mayLookAfter(caller)
    else { throw SectorError.permissionDenied }
    guard self.place.enter() else { throw SectorError.busy }
    defer { self.place.leave() }
    let watch = IdleWatch()
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await self.send(to: response, watch) }
      tasks.addTask {
        // The stream would hold up a server that shuts down.
        try await context.cancellation.cancelled
        throw SectorError.notServing
      }
      tasks.addTask {
        try await watch.wait(Self.idleTime)
        throw SectorError.notServing
      }
      defer { tasks.cancelAll() }
      try await tasks.next()
    }
  }

  private func send(to response: RPCWriter<Blocktree_V1_BackupResponse>, _ watch: IdleWatch) async throws {
    let time = self.group.now()
    do {
      let snapshot = try await self.group.store.snapshot()
      // Whatever happens: what it holds back is missing to others.
      defer { snapshot.close() }
      try await response.write(.with { $0.header = self.header(snapshot, time) })
      var tally = BackupTally()
      var page = try await self.read(snapshot, after: nil)
      while true {
        let next = page.next
        // The disk and the network work at the same time.
        async let following = next == nil ? nil : self.read(snapshot, after: next)
        tally.add(page)
        var requests = SnapshotRequests(page.items)
        while let piece = requests.next() {
          try await response.write(
            .with {
              $0.itemByteCounts = piece.itemByteCounts
              $0.items = piece.items
            })
          watch.note()
        }
        guard let following = try await following else { break }
        page = following
      }
      try await response.write(.with { $0.trailer = tally.trailer })
    } catch let error as StoreError {
      throw self.group.error(error)
    }
  }

  private func header(_ snapshot: StoreSnapshot, _ time: Int64) -> Blocktree_V1_BackupHeader {
    .with {
      $0.generation = self.group.generation.rawValue
      $0.sectorSize = UInt32(clamping: self.group.sectorSize)
      $0.index = snapshot.index.rawValue
      $0.term = snapshot.term
      $0.domain = Data(self.group.member.credential.domain.digest.bytes)
      $0.timeNs = time
      $0.process = self.group.member.credential.path.description
    }
  }

  private func read(
    _ snapshot: StoreSnapshot, after cursor: SnapshotCursor?
  ) async throws(StoreError) -> BackupPage {
    let group = self.group
    return try await SectorGroup.readHealing({ await group.heal($0) }) { () throws(StoreError) in
      try await self.readOnce(snapshot, after: cursor)
    }
  }

  private func readOnce(
    _ snapshot: StoreSnapshot, after cursor: SnapshotCursor?
  ) async throws(StoreError) -> BackupPage {
    try await self.group.store.perform { () throws(StoreError) in
      let (items, next) = try snapshot.items(after: cursor, byteCountMax: SnapshotLimits.pieceByteCount)
      var page = BackupPage(items: items.map { $0.encoded() }, next: next)
      if case .end(let counts) = items.last { page.counts = counts }
      return page
    }
  }
}

/// Encoded items, and where the next begin; nil after the last.
private struct BackupPage: Sendable {
  var items: [[UInt8]]
  var next: SnapshotCursor?
  /// With the last item.
  var counts: SnapshotCounts?
}

/// What has been sent.
private struct BackupTally {
  private var digest = RunningDigest()
  private var itemCount: UInt64 = 0
  private var byteCount: UInt64 = 0
  private var counts = SnapshotCounts()

  mutating func add(_ page: BackupPage) {
    for item in page.items {
      self.digest.update(item)
      self.itemCount += 1
      self.byteCount += UInt64(item.count)
    }
    if let counts = page.counts { self.counts = counts }
  }

  var trailer: Blocktree_V1_BackupTrailer {
    .with {
      $0.itemCount = self.itemCount
      $0.itemByteCount = self.byteCount
      $0.sha256 = Data(self.digest.digest.bytes)
      $0.recordCount = self.counts.records
      $0.groupCount = self.counts.groups
      $0.sessionCount = self.counts.sessions
      $0.resultCount = self.counts.results
      $0.certificateCount = self.counts.certificates
      $0.factCount = self.counts.facts
    }
  }
}

/// Room for one backup at a time.
private final class BackupPlace: Sendable {
  private let isTaken = Mutex(false)

  func enter() -> Bool {
    self.isTaken.withLock { isTaken in
      defer { isTaken = true }
      return !isTaken
    }
  }

  func leave() { self.isTaken.withLock { $0 = false } }
}

/// Notices that nothing goes on any more.
private final class IdleWatch: Sendable {
  private let last = Mutex(ContinuousClock.now)

  func note() { self.last.withLock { $0 = .now } }

  /// Returns when nothing was noted for so long.
  func wait(_ time: Duration) async throws {
    while true {
      let deadline = self.last.withLock { $0 } + time
      if deadline <= .now { return }
      try await Task.sleep(until: deadline, clock: .continuous)
    }
  }
}
