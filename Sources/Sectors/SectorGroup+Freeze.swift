// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization
package import Trust

/// Whether what a cluster stores may be changed.
package enum FreezeState: UInt8, Hashable, Sendable {
  /// As usual.
  case open = 1
  /// Commits are refused, reads are not.
  case frozen = 2
  /// As `frozen`, for good: what is stored here is or will be stored by the cluster above. The filesystem services of
  /// the cluster's own processes answer no more from it.
  case retired = 3
}

/// The state as the log has it.
struct Freeze: Hashable, Sendable {
  var state: FreezeState
  /// Who has frozen it; nil while it is open.
  var process: TreePath?

  static let open = Freeze(state: .open, process: nil)

  init(state: FreezeState, process: TreePath?) {
    self.state = state
    self.process = process
  }

  static let factKey = "group.freeze"

  /// As a store has it.
  ///
  /// - Throws: `damaged`.
  init(of store: SectorStore) throws(StoreError) {
    guard let bytes = try store.fact(Self.factKey), let first = bytes.first else {
      self = .open
      return
    }
    let path = bytes.count > 1 ? try? TreePath(parsing: Array(bytes.dropFirst())) : nil
    guard let state = FreezeState(rawValue: first), path != nil || state == .open else {
      throw .damaged(.fact(Self.factKey))
    }
    self.init(state: state, process: path)
  }

  /// The fact that keeps it: the state (1 byte) and the path of the process.
  var fact: Change.Fact { .init(key: Self.factKey, value: [self.state.rawValue] + (self.process?.bytes ?? [])) }

  /// What becomes of it when a process asks for another state; nil when that may not be.
  ///
  /// Only who has frozen it, and was not followed by another since, knows that it has everything, and may retire it.
  /// Nothing comes back from that.
  func set(_ new: FreezeState, by process: TreePath) -> Freeze? {
    switch (self.state, new) {
    case (.retired, .retired): self
    case (.retired, _), (.open, .retired): nil
    case (.frozen, .retired): self.process == process ? Freeze(state: .retired, process: process) : nil
    case (_, .frozen): Freeze(state: .frozen, process: process)
    case (_, .open): .open
    }
  }
}

extension SectorGroup {
  /// The state as this member has applied it. It costs no I/O. Right after `confirmRead` it is no older than what was
  /// answered before that.
  package var freeze: FreezeState {
    // The root directory's cluster has nobody above.
    if self.generation == .root { return .open }
    // A store that does not say so can not be read either.
    return (try? Freeze(of: self.store))?.state ?? .open
  }

  package var isRetired: Bool { self.freeze == .retired }

  /// Says whether what is stored here may be changed. Durable when it returns, and in force for all commits that are
  /// answered later: what was judged before is durable by then, or refused. To say the same again changes nothing.
  ///
  /// To be called for a filesystem service above the home, see ``isFilesystemAbove(_:)``.
  ///
  /// - Parameter process: who says so.
  /// - Throws: `invalid` with the field `state` where the present state does not allow it: see ``Freeze/set(_:by:)``.
  package func setFreeze(_ state: FreezeState, by process: TreePath) async throws(SectorError) {
    guard self.generation != .root else { throw .invalid(field: "generation") }
    let term = try await self.lead()
    // The order of commits and of this in the log is the order in which both are entered, as that is under one lock.
    let result = self.state.withLock { group -> Result<PendingChange, SectorError> in
      guard group.term == term else { return .failure(.leadershipLost) }
      guard let new = group.freeze.set(state, by: process) else { return .failure(.invalid(field: "state")) }
      var change = Change()
      change.facts = [new.fact]
      do throws(StoreError) {
        let pending = try self.replica.propose(change, term: term)
        group.freeze = new
        return .success(pending)
      } catch {
        return .failure(self.error(error))
      }
    }
    let pending = try result.get()
    do throws(SectorError) { try await self.finish(.success(pending)) } catch {
      // In another term it is read anew.
      if let stored = try? Freeze(of: self.store) {
        self.state.withLock { group in if group.term == term { group.freeze = stored } }
      }
      throw error
    }
  }

  /// Whether somebody is a filesystem service above the directory that this cluster serves, not one of it.
  package func isFilesystemAbove(_ credential: Credential) -> Bool {
    self.coversEverything(credential) && credential.path.parent?.isAncestor(of: self.home.path) == true
  }

  /// Refuses a commit while nothing may be changed.
  func requireOpen() throws(SectorError) {
    guard self.state.withLock({ $0.freeze.state == .open }) else { throw .frozen(self.generation) }
  }

  // MARK: Generations that were taken back

  /// What keeps that a generation was taken back: no directory is handed to it again.
  static func retiredFact(_ generation: Generation) -> Change.Fact {
    .init(key: "generation-retired.\(generation)", value: [1])
  }

  /// Refuses a generation that was taken back, by what is stored and in flight.
  func requireNotRetired(_ generation: Generation) throws(SectorError) {
    let isRetired: Bool
    do throws(StoreError) { isRetired = try self.store.fact(Self.retiredFact(generation).key) != nil } catch {
      throw self.error(error)
    }
    guard !isRetired, !self.state.withLock({ $0.retired.contains(generation) }) else {
      throw .generationUnknown(generation)
    }
  }
}
