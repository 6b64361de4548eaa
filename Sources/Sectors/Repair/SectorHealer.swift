// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import Replication
package import SectorStore
private import Synchronization

/// Heals what is damaged in one member's store: what the store can repair by itself, and blocks from what other members
/// have. Nothing that a member sends is taken unless its checksum is the one that the block has to have.
package final class SectorHealer: Sendable {
  /// What came of a place.
  package enum Healing: Hashable, Sendable {
    case healed
    /// Nothing is wrong there, or nothing refers to it any more.
    case unneeded
    /// It can be healed later. Says why.
    case waits(Wait)
    /// All other members were asked, and none has it. It may be that those are only behind.
    case lost
    /// The disk does not take it.
    case failed
    /// Only another store can help.
    case needsNewStore

    package enum Wait: String, Hashable, Sendable {
      /// The store itself says so: entries that are not applied, an open snapshot, a full disk.
      case store
      /// Another member could not be asked.
      case unreachable
      /// The store refuses everything, or too much is healed at once.
      case busy
    }

    /// Whether it is whole now.
    package var isWhole: Bool { self == .healed || self == .unneeded }
  }

  /// What was healed since the process began.
  package struct Counts: Hashable, Sendable {
    /// Places.
    package var healed: UInt64 = 0
    /// Attempts at a place that came to nothing.
    package var unhealed: UInt64 = 0
  }

  private struct State {
    /// Being healed, and who else waits for that.
    var healing: [DamagePlace: [CheckedContinuation<Bool, Never>]] = [:]
    /// Until when reads do not try again.
    var paused: [DamagePlace: ContinuousClock.Instant] = [:]
    var counts = Counts()
  }

  private let store: SectorStore
  /// The other members, those first that are most likely to have everything.
  private let peers: @Sendable () -> [MemberPeer]
  private let fetch: @Sendable ([WantedBlock], MemberPeer) async throws -> [[UInt8]?]
  private let state = Mutex(State())

  /// - Parameters:
  ///   - peers: the other members.
  ///   - fetch: as ``BlockSource/fetch(_:from:)``.
  package init(
    store: SectorStore, peers: @escaping @Sendable () -> [MemberPeer],
    fetch: @escaping @Sendable ([WantedBlock], MemberPeer) async throws -> [[UInt8]?]
  ) {
    self.store = store
    self.peers = peers
    self.fetch = fetch
  }

  package var counts: Counts { self.state.withLock { $0.counts } }

  // MARK: For reads

  /// Heals what a read has met, unless that was tried in vain just before. Whoever meets the same meanwhile waits along.
  ///
  /// - Returns: whether it is worth to read again.
  package func healForRead(_ places: [DamagePlace]) async -> Bool {
    var (own, others): ([DamagePlace], [DamagePlace]) = ([], [])
    for place in places.prefix(RepairLimits.blocksMax) {
      switch self.begin(place) {
      case .own: own.append(place)
      case .other: others.append(place)
      case .paused:
        _ = self.end(own, with: [:])
        return false
      }
    }
    // First what is to be done here: two that began with each other's places would wait for each other for ever.
    guard self.end(own, with: await self.heal(own)) else { return false }
    for place in others {
      guard await self.wait(for: place) else { return false }
    }
    return true
  }

  private enum Turn { case own, other, paused }

  private func begin(_ place: DamagePlace) -> Turn {
    self.state.withLock { state in
      if state.healing[place] != nil { return .other }
      if let end = state.paused[place] {
        if end > .now { return .paused }
        state.paused[place] = nil
      }
      guard state.healing.count < RepairLimits.concurrentHealsMax * RepairLimits.blocksMax else { return .paused }
      state.healing[place] = []
      return .own
    }
  }

  private func wait(for place: DamagePlace) async -> Bool {
    await withCheckedContinuation { continuation in
      let isOver = self.state.withLock { state in
        if state.healing[place] == nil { return true }
        state.healing[place]?.append(continuation)
        return false
      }
      if isOver { continuation.resume(returning: true) }
    }
  }

  /// Whether all of them are whole.
  private func end(_ places: [DamagePlace], with results: [DamagePlace: Healing]) -> Bool {
    let waiting = self.state.withLock { state in
      places.flatMap { place in
        let isWhole = results[place]?.isWhole ?? false
        // One that was not even tried may be tried by the next.
        if !isWhole, results[place] != nil {
          if state.paused.count >= RepairLimits.pausedMax { state.paused.removeAll() }
          state.paused[place] = .now + RepairLimits.pause
        }
        return (state.healing.removeValue(forKey: place) ?? []).map { ($0, isWhole) }
      }
    }
    for (continuation, isWhole) in waiting { continuation.resume(returning: isWhole) }
    return places.allSatisfy { results[$0]?.isWhole ?? false }
  }

  // MARK: For everybody

  /// Heals as many of these places as can be. One that fails keeps no other from being healed.
  package func heal(_ places: [DamagePlace]) async -> [DamagePlace: Healing] {
    guard !places.isEmpty else { return [:] }
    var results: [DamagePlace: Healing] = [:]
    var wanted: [DamagePlace: WantedBlock] = [:]
    for place in places {
      switch await self.repair(place) {
      case .done(let healing): results[place] = healing
      case .needs(let block): wanted[place] = block
      }
    }
    await self.heal(wanted, &results)
    let (whole, all) = (results.values.count { $0 == .healed }, results.values.count { !$0.isWhole })
    self.state.withLock { state in
      state.counts.healed += UInt64(whole)
      state.counts.unhealed += UInt64(all)
    }
    return results
  }

  private enum Repair {
    case done(Healing)
    case needs(WantedBlock)
  }

  private func repair(_ place: DamagePlace) async -> Repair {
    do throws(StoreError) {
      return Self.healing(try await self.store.repair(place))
    } catch {
      return .done(.waits(.busy))
    }
  }

  private static func healing(_ outcome: RepairOutcome) -> Repair {
    switch outcome {
    case .repaired: .done(.healed)
    case .unneeded: .done(.unneeded)
    case .waits: .done(.waits(.store))
    case .needsBlock(let block): .needs(block)
    case .failed: .done(.failed)
    case .needsNewStore: .done(.needsNewStore)
    }
  }

  /// Asks one member after the other for what is still missing.
  private func heal(_ all: [DamagePlace: WantedBlock], _ results: inout [DamagePlace: Healing]) async {
    var wanted = all
    var isSomebodyMissing = false
    for peer in self.peers() {
      guard !wanted.isEmpty, !Task.isCancelled else { break }
      let blocks = wanted.sorted { ($0.value.inode, $0.value.index) < ($1.value.inode, $1.value.index) }
      let found: [[UInt8]?]
      do { found = try await self.fetch(blocks.map(\.value), peer) } catch {
        isSomebodyMissing = true
        continue
      }
      for ((place, block), bytes) in zip(blocks, found) {
        guard let bytes else { continue }
        let healing = await self.put(bytes, block)
        // Another member may send better ones.
        results[place] = healing
        if healing != .failed { wanted[place] = nil }
      }
    }
    for place in wanted.keys where results[place] == nil {
      results[place] = isSomebodyMissing || Task.isCancelled ? .waits(.unreachable) : .lost
    }
  }

  private func put(_ bytes: [UInt8], _ block: WantedBlock) async -> Healing {
    do throws(StoreError) {
      switch Self.healing(try await self.store.repair(block, with: bytes)) {
      case .done(let healing): return healing
      // It is another block by now; whoever asks again gets that one.
      case .needs: return .waits(.store)
      }
    } catch {
      return .waits(.busy)
    }
  }
}

extension SectorHealer {
  /// The other members of a group, its leader first.
  package static func peers(of group: SectorGroup) -> [MemberPeer] {
    let leader = group.replica.leader
    let members = group.replica.status.membership.members.filter { $0 != group.replica.member }
    let sorted = members.filter { $0 == leader } + members.filter { $0 != leader }
    return sorted.compactMap { member in
      guard let path = group.path(of: member) else { return nil }
      return MemberPeer(id: member, path: path, addresses: group.addresses(of: path))
    }
  }
}
