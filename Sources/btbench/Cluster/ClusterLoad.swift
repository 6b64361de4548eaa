// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Foundation
internal import Inodes
internal import Synchronization
internal import Trust

/// Commits and reads of single sectors through the client library: one session stream for each connection.
struct ClusterLoad: Sendable {
  let profile: Profile
  let duration: Duration
  /// When to begin.
  let start: Date

  /// The most that the service hands out at once.
  private static let inodesPerConnection = 65_536
  /// Of all connections together.
  private static let readCount = 1_000
  /// Commits that are signed together, as a program does that has so many at hand.
  private static let commitsPerBatch = 64
  private static let warmUpCount = 20

  // MARK: Loads

  func commits(inFlight: Int, connections: Int) async throws -> LoadResult {
    try await self.measure(inFlight, connections) { connection in
      let supply = try await self.supply(connection.client)
      let session = connection.session
      let batch = min(max(connection.inFlight, 1), Self.commitsPerBatch)
      return Work {
        let commit = try supply.next(batch)
        return {
          try SectorLoads.check(await session.commit(commit.request), isAnswerTo: commit.request)
        }
      }
    }
  }

  func reads(inFlight: Int, connections: Int) async throws -> LoadResult {
    try await self.measure(inFlight, connections) { connection in
      let supply = try await self.supply(connection.client)
      let session = connection.session
      let sectors = try await withThrowingTaskGroup(of: SectorWriter.SealedSector.self) { group in
        for _ in 0..<max(Self.readCount / connections, 1) {
          let commit = try supply.next(Self.commitsPerBatch)
          group.addTask {
            _ = try await session.commit(commit.request)
            return commit.sector
          }
        }
        return try await group.reduce(into: []) { $0.append($1) }
      }
      return Work {
        let sector = sectors[Int.random(in: sectors.indices)]
        return {
          try SectorLoads.check(
            await session.readSectors(SectorLoads.request(sector)).blocks, are: sector)
        }
      }
    }
  }

  /// One writer whose operations may take so long, and the longest time between two that succeeded, or from the last
  /// one to the end.
  func gap(patience: Duration) async throws -> LoadResult {
    let supply = try await withClient(self.profile) { try await self.supply($0) }
    let configuration = ClientConfiguration(timeout: patience)
    return try await withClient(self.profile, configuration: configuration) { client in
      try await client.withSectorSession { session in
        var latencies = Latencies()
        var failures = 0
        var gap = Duration.zero
        var last: ContinuousClock.Instant?
        let start = ContinuousClock.now
        while ContinuousClock.now - start < self.duration {
          let commit = try supply.next(1)
          let begun = ContinuousClock.now
          do {
            _ = try await session.commit(commit.request)
            let now = ContinuousClock.now
            latencies.count(now - begun)
            if let last { gap = max(gap, now - last) }
            last = now
          } catch is BlocktreeError {
            failures += 1
            try await Task.sleep(for: .milliseconds(1))
          }
        }
        let end = ContinuousClock.now
        gap = max(gap, end - (last ?? start))
        return LoadResult(
          operations: latencies.total, failures: failures, seconds: (end - start) / .seconds(1),
          processorSeconds: ProcessorTime.own, latencies: latencies.counts,
          gapMilliseconds: gap / .milliseconds(1))
      }
    }
  }

  // MARK: A closed loop

  private struct Connection: Sendable {
    let client: Client
    let session: SectorSession
    /// Its share of the operations in flight.
    let inFlight: Int
  }

  /// Makes operations. What prepares one is not measured as part of it.
  private struct Work: Sendable {
    let next: @Sendable () throws -> @Sendable () async throws -> Void

    init(_ next: @escaping @Sendable () throws -> @Sendable () async throws -> Void) { self.next = next }
  }

  /// Each operation in flight begins the next when its last one has been answered.
  private func measure(
    _ inFlight: Int, _ connections: Int, _ prepare: @escaping @Sendable (Connection) async throws -> Work
  ) async throws -> LoadResult {
    let barrier = Barrier(connections)
    let parts = try await withThrowingTaskGroup(of: LoadResult.self) { group in
      for index in 0..<connections {
        let share = inFlight / connections + (index < inFlight % connections ? 1 : 0)
        group.addTask { try await self.measure(share, barrier, prepare) }
      }
      return try await group.reduce(into: []) { $0.append($1) }
    }
    var latencies = Latencies()
    for part in parts { latencies.add(Latencies(counts: part.latencies)) }
    return LoadResult(
      operations: latencies.total, failures: 0, seconds: parts.map(\.seconds).max() ?? 0,
      // Of the whole process, so each connection saw nearly the same.
      processorSeconds: parts.map(\.processorSeconds).max() ?? 0, latencies: latencies.counts, gapMilliseconds: 0)
  }

  private func measure(
    _ inFlight: Int, _ barrier: Barrier, _ prepare: @Sendable (Connection) async throws -> Work
  ) async throws -> LoadResult {
    try await withClient(self.profile) { client in
      try await client.withSectorSession { session in
        let connection = Connection(client: client, session: session, inFlight: inFlight)
        let work: Work
        do {
          work = try await prepare(connection)
          for _ in 0..<Self.warmUpCount { try await work.next()() }
        } catch {
          barrier.fail()
          throw error
        }
        guard await barrier.wait() else { throw BenchFailure("another connection failed") }
        try await Task.sleep(for: .seconds(max(self.start.timeIntervalSinceNow, 0)))
        let processor = ProcessorTime.own
        let start = ContinuousClock.now
        let end = start + self.duration
        let latencies = try await client.onEventLoop {
          try await withThrowingTaskGroup(of: Latencies.self) { group in
            for _ in 0..<inFlight {
              group.addTask {
                var latencies = Latencies()
                while true {
                  let operation = try work.next()
                  let begun = ContinuousClock.now
                  guard begun < end else { return latencies }
                  try await operation()
                  latencies.count(ContinuousClock.now - begun)
                }
              }
            }
            return try await group.reduce(into: Latencies()) { $0.add($1) }
          }
        }
        return LoadResult(
          operations: latencies.total, failures: 0, seconds: (ContinuousClock.now - start) / .seconds(1),
          processorSeconds: ProcessorTime.own - processor, latencies: latencies.counts, gapMilliseconds: 0)
      }
    }
  }

  private func supply(_ client: Client) async throws -> CommitSupply {
    guard let caller = self.profile.caller else { throw BenchFailure("the profile has no caller") }
    let directory = try await client.stat(ClusterSite.directory).id
    let session = try await client.sectors.openSession()
    let block = try await client.sectors.allocateInodes(Self.inodesPerConnection)
    let status = try await client.sectors.status()
    return CommitSupply(
      SectorWriter(
        (caller.credential, caller.keys.signing),
        directory: Inodes.FileID(
          generation: Generation(directory.generation), inode: InodeNumber(directory.inode)),
        sectorSize: Int(status.superblock.sectorSize), session: session,
        inodes: block.first..<block.first + UInt64(block.count)))
  }
}

/// Commits that were made and not yet sent.
private final class CommitSupply: Sendable {
  private struct State {
    var writer: SectorWriter
    var ready: [SectorWriter.Commit] = []
  }

  private let state: Mutex<State>

  init(_ writer: SectorWriter) { self.state = Mutex(State(writer: writer)) }

  /// One commit. Makes so many together when there is none.
  func next(_ batch: Int) throws -> SectorWriter.Commit {
    try self.state.withLock { state in
      if state.ready.isEmpty { state.ready = try state.writer.commits(batch).reversed() }
      guard let commit = state.ready.popLast() else { throw BenchFailure("the inode numbers are used up") }
      return commit
    }
  }
}

/// Where several tasks wait for each other, once.
private final class Barrier: Sendable {
  private struct State {
    var missing: Int
    var hasFailed = false
    var waiters: [CheckedContinuation<Bool, Never>] = []
  }

  private let state: Mutex<State>

  init(_ count: Int) { self.state = Mutex(State(missing: count)) }

  /// Returns when all have come; false when one never will.
  func wait() async -> Bool {
    await withCheckedContinuation { waiter in
      let (waiters, isGood) = self.state.withLock { state in
        state.missing -= 1
        state.waiters.append(waiter)
        return state.missing > 0 && !state.hasFailed ? ([], true) : (Self.take(&state.waiters), !state.hasFailed)
      }
      for waiter in waiters { waiter.resume(returning: isGood) }
    }
  }

  func fail() {
    let waiters = self.state.withLock { state in
      state.hasFailed = true
      return Self.take(&state.waiters)
    }
    for waiter in waiters { waiter.resume(returning: false) }
  }

  private static func take(
    _ waiters: inout [CheckedContinuation<Bool, Never>]
  ) -> [CheckedContinuation<Bool, Never>] {
    defer { waiters = [] }
    return waiters
  }
}
