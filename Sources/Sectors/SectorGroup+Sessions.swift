// SPDX-License-Identifier: Apache-2.0

package import Inodes
internal import Replication
internal import SectorStore
internal import Synchronization
package import Trust

/// Whose a session is: a principal's, or that of a principal at another cluster, through the filesystem service that
/// acts for it here. What such a service opens has no bearing on the principal's own sessions.
package struct SessionOwner: Hashable, Sendable {
  let bytes: [UInt8]

  /// - Parameter service: the directory whose processes act for the principal, unless they do for everything that is
  ///   stored here.
  package init(_ principal: TreePath, through service: TreePath? = nil) {
    // No path has such a byte.
    self.bytes = principal.bytes + (service.map(Self.suffix) ?? [])
  }

  private static func suffix(_ service: TreePath) -> [UInt8] { [0] + service.bytes }

  /// Whether a session is of a process itself, or was opened through the services of the directory that it lies in.
  ///
  /// - Parameter owner: as sessions keep it.
  static func isActedFor(_ owner: [UInt8], by process: TreePath) -> Bool {
    if owner == process.bytes { return true }
    guard let suffix = process.parent.map(Self.suffix) else { return false }
    return owner.suffix(suffix.count).elementsEqual(suffix)
  }
}

extension SectorGroup {
  /// As whose owner somebody may open, and look into, the sessions of a principal at another cluster; nil when it may
  /// not.
  package func sessionOwner(_ principal: TreePath, actedForBy service: Credential) -> SessionOwner? {
    if self.coversEverything(service) { return SessionOwner(principal) }
    guard self.filesystemDirectory(of: service) != nil else { return nil }
    return SessionOwner(principal, through: service.path.parent)
  }

  /// Opens a session for a principal. Durable when it returns.
  ///
  /// - Returns: 16 bytes.
  package func openSession(owner: TreePath) async throws(SectorError) -> [UInt8] {
    let session = SessionID.random()
    try await self.open(session, owner: SessionOwner(owner))
    return session.bytes
  }

  /// Opens a session that a principal has at another cluster, unless it is open here already. Durable when it returns.
  /// To be called for a filesystem service, see ``sessionOwner(_:actedForBy:)``.
  ///
  /// - Parameter adopted: 16 bytes.
  /// - Throws: `sessionUnknown` when it is somebody else's.
  /// - Returns: the same session.
  @discardableResult
  package func openSession(owner: SessionOwner, adopting adopted: [UInt8]) async throws(SectorError) -> [UInt8] {
    guard let session = SessionID(adopted) else { throw .invalid(field: "session") }
    try await self.confirmRead()
    if let isOwned = try self.isSession(session, ownedBy: owner) {
      guard isOwned else { throw .sessionUnknown }
      return adopted
    }
    try await self.open(session, owner: owner)
    // Somebody else may have been faster: of two openings, the first counts.
    guard try self.isSession(session, ownedBy: owner) != false else { throw .sessionUnknown }
    return adopted
  }

  private func open(_ session: SessionID, owner: SessionOwner) async throws(SectorError) {
    _ = try await self.lead()
    var change = Change()
    change.sessionsOpened = [
      .init(session: session, owner: owner.bytes, openedAt: self.now() / 1_000_000_000)
    ]
    try await self.finish(Result { () throws(StoreError) in try self.replica.propose(change) })
  }

  /// Nil when there is no such session.
  private func isSession(_ session: SessionID, ownedBy owner: SessionOwner) throws(SectorError) -> Bool? {
    do throws(StoreError) { return try self.store.session(session).map { $0.owner == owner.bytes } } catch {
      throw self.error(error)
    }
  }

  /// Refuses to have operations completed by a filesystem service that does not cover everything here, other than its
  /// own and those of principals that it acts for.
  func requireSession(_ session: SessionID, actedForBy process: TreePath) throws(SectorError) {
    let owner: [UInt8]?
    do throws(StoreError) { owner = try self.store.session(session)?.owner } catch { throw self.error(error) }
    guard let owner, SessionOwner.isActedFor(owner, by: process) else { throw .sessionUnknown }
  }

  /// What is known of an operation: its result when it was applied, nil when it is new.
  package func result(of operation: OperationID, by principal: TreePath) async throws(SectorError) -> [UInt8]? {
    try await self.result(of: operation, by: SessionOwner(principal))
  }

  package func result(of operation: OperationID, by principal: SessionOwner) async throws(SectorError) -> [UInt8]? {
    guard let session = SessionID(operation.session) else { throw .sessionUnknown }
    try await self.confirmRead()
    return try await self.result(of: operation, in: session, ownedBy: principal)
  }

  /// - Parameter owner: whose session it has to be; nil for anybody's.
  func result(
    of operation: OperationID, in session: SessionID, ownedBy owner: SessionOwner?
  ) async throws(SectorError) -> [UInt8]? {
    let status: OperationStatus
    do throws(StoreError) {
      guard let header = try self.store.session(session), owner.map({ $0.bytes == header.owner }) ?? true else {
        throw StoreError.unknownSession(session)
      }
      // Only what may be an old one can make the disk necessary.
      if operation.sequence > header.highest { return nil }
      let store = self.store
      status = try await store.perform { () throws(StoreError) in
        try store.operationStatus(session, sequence: operation.sequence)
      }
    } catch {
      throw SectorError(error, generation: self.generation)
    }
    switch status {
    case .new: return nil
    case .applied(let result): return result
    case .tooOld: throw .operationTooOld
    case .unknownSession: throw .sessionUnknown
    }
  }
}
