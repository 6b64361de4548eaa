// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization
package import Trust

/// The generations that the root directory's cluster hands out.
struct GenerationNumbers: Sendable {
  /// What of an allocation is on its way.
  struct Claimed: Sendable {
    let generation: Generation
    let pending: PendingChange
  }

  /// The next one to hand out.
  var next: UInt64
  /// By claim, what is not durable yet.
  var claims: [Digest32: Claimed] = [:]
  /// By process, how many it has been given in this term, together with what is stored.
  var counts: [TreePath: UInt64] = [:]

  init(next: UInt64) { self.next = next }
}

extension SectorGroup {
  /// Allocates a generation for a process, the same for the same claim. Durable when it returns. To be called with a
  /// process that hosts the sector service, see ``hostsSectors(_:)``.
  ///
  /// - Parameter claim: 16 bytes.
  /// - Throws: `wrongGeneration` unless this is the root directory's cluster; `limitReached`.
  package func allocateGeneration(claim: [UInt8], for process: TreePath) async throws(SectorError) -> Generation {
    guard self.generation == .root else { throw .wrongGeneration(.root) }
    guard claim.count == SectorLimits.claimByteCount else { throw .invalid(field: "claim") }
    let term = try await self.lead()
    let key = Self.claimDigest(claim, process)
    // The order of numbers and the order in the log are the same, as both are taken under one lock.
    let claimed = self.state.withLock { state -> Result<Claimed, SectorError> in
      do throws(SectorError) { return .success(try self.claim(key, process, term, &state)) } catch {
        return .failure(error)
      }
    }
    switch try claimed.get() {
    case .stored(let generation): return generation
    case .onItsWay(let claimed):
      self.replica.flush()
      let durable: StoreError?
      do throws(StoreError) {
        _ = try await claimed.pending.durable()
        durable = nil
      } catch {
        durable = error
      }
      self.state.withLock { state in
        // Only now, as what is not on its way any more has to be in the store.
        if state.generations.claims[key]?.pending === claimed.pending { state.generations.claims[key] = nil }
      }
      if let durable { throw self.error(durable) }
      return claimed.generation
    }
  }

  private enum Claimed {
    case stored(Generation)
    case onItsWay(GenerationNumbers.Claimed)
  }

  private func claim(
    _ key: Digest32, _ process: TreePath, _ term: UInt64, _ state: inout State
  ) throws(SectorError) -> Claimed {
    guard state.term == term else { throw .leadershipLost }
    if let claimed = state.generations.claims[key] { return .onItsWay(claimed) }
    let stored: UInt64?
    let count: UInt64
    do throws(StoreError) {
      stored = try Self.number(self.store, Self.claimFact(key))
      let known = try Self.number(self.store, Self.claimCountFact(process)) ?? 0
      count = state.generations.counts[process] ?? known
    } catch {
      throw self.error(error)
    }
    if let stored { return .stored(Generation(stored)) }
    guard count < SectorLimits.claimsMax else { throw .limitReached("generations", limit: Int(SectorLimits.claimsMax)) }
    let generation = state.generations.next
    var change = Change()
    change.facts = [
      Self.fact(Self.nextGenerationFact, generation + 1), Self.fact(Self.claimFact(key), generation),
      Self.fact(Self.claimCountFact(process), count + 1),
      .init(key: Self.generationFact(Generation(generation)), value: process.bytes),
    ]
    let pending: PendingChange
    do throws(StoreError) { pending = try self.replica.propose(change, term: term) } catch { throw self.error(error) }
    let claimed = GenerationNumbers.Claimed(generation: Generation(generation), pending: pending)
    state.generations.next = generation + 1
    state.generations.counts[process] = count + 1
    state.generations.claims[key] = claimed
    return .onItsWay(claimed)
  }

  /// Refuses a generation that a directory is to be handed to, unless it was allocated for this process. Clusters other
  /// than the root directory's do not know, and take any.
  func requireAllocated(_ generation: Generation, for process: TreePath) throws(SectorError) {
    guard self.generation == .root else { return }
    let claimant: [UInt8]?
    do throws(StoreError) { claimant = try self.store.fact(Self.generationFact(generation)) } catch {
      throw self.error(error)
    }
    guard claimant == process.bytes else { throw .generationUnknown(generation) }
  }

  /// The next generation to hand out, as the leader sees it, or as this member has applied it; 0 everywhere but in the
  /// root directory's cluster.
  package var nextGeneration: UInt64 {
    guard self.generation == .root else { return 0 }
    let term = self.replica.leadingTerm
    return self.state.withLock { $0.term == term ? $0.generations.next : nil }
      ?? (try? Self.nextGeneration(self.store)) ?? 0
  }

  static func nextGeneration(_ store: SectorStore) throws(StoreError) -> UInt64 {
    max(try self.number(store, self.nextGenerationFact) ?? 0, Generation.root.rawValue + 1)
  }

  private static let nextGenerationFact = "superblock.next-generation"

  /// What keeps the number that a claim was given.
  private static func claimFact(_ key: Digest32) -> String { "generation-claim.\(key)" }

  /// What keeps how many a process was given.
  private static func claimCountFact(_ process: TreePath) -> String {
    "generation-claims.\(Digest32(sha256: process.bytes))"
  }

  /// What keeps which process a generation is for.
  private static func generationFact(_ generation: Generation) -> String { "generation.\(generation)" }

  private static func claimDigest(_ claim: [UInt8], _ process: TreePath) -> Digest32 {
    // The claim has a fixed length, so that no two pairs give the same bytes.
    Digest32(sha256: claim + process.bytes)
  }
}
