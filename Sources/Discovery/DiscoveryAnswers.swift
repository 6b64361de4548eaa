// SPDX-License-Identifier: Apache-2.0

package import Filesystem
internal import Inodes
package import Routes
package import Sectors
package import Trust

/// Answers queries from the credential files that one cluster knows, within what the caller may know.
///
/// What is not there and what is not the caller's to know is found out in the same way, and answered in the same words.
package struct DiscoveryAnswers: Sendable {
  private let group: SectorGroup
  /// Says who may read what; nil in a process that can not read directories.
  private let filesystem: Filesystem?
  /// Says who knows what this cluster does not.
  private let routes: NodeRoutes
  private let refusalStep: Duration

  /// - Parameter refusalStep: refusals come at whole multiples of this after the question, as what is looked at for the
  ///   first time takes longer than what is in memory, and that must not be told from outside.
  package init(
    group: SectorGroup, filesystem: Filesystem?, routes: NodeRoutes,
    refusalStep: Duration = DiscoveryLimits.refusalStep
  ) {
    self.group = group
    self.filesystem = filesystem
    self.routes = routes
    self.refusalStep = refusalStep
  }

  private var queries: QueryAnswer<CredentialView> { QueryAnswer(CredentialView(self.group)) }

  /// - Throws: `permissionDenied`, whether or not there is anything.
  package func find(_ query: FindQuery, by caller: Caller) async throws(DiscoveryError) -> FindAnswer {
    let start = ContinuousClock.now
    try self.requireConfirmed(caller)
    let isCurrent = await self.isCurrent()
    let queries = self.queries
    let boundary = queries.boundary(of: query.scope)
    let rights: QueryRights
    if !self.group.home.path.isSameOrAncestor(of: query.scope) {
      rights = QueryRights(mayRead: false, mayFollow: true)
    } else if let boundary, boundary != query.scope {
      // Delegation points are no secret from principals: whether the scope may be asked about is judged behind them.
      // Who is nearest above is for those who may ask about the delegation point itself; and who is nobody is only led
      // on from what it can see.
      let mustRead = caller == .anonymous || query.kind == .nearest
      let mayRead = mustRead ? try await self.mayRead(boundary, caller) : false
      rights = QueryRights(mayRead: mayRead, mayFollow: mayRead || caller != .anonymous)
    } else {
      rights = QueryRights(mayRead: try await self.mayRead(query.scope, caller), mayFollow: true)
    }
    switch queries.outcome(of: query, rights: rights) {
    case .answer(let answer): return isCurrent ? answer : answer.stale
    case .denied:
      await self.waitForStep(after: start)
      throw .permissionDenied
    case .above: return try await self.answerElsewhere(query, caller)
    }
  }

  /// For principals of the domain.
  package func readCredential(_ path: TreePath, by caller: Caller) async throws(DiscoveryError) -> CredentialAnswer {
    guard caller != .anonymous else { throw .permissionDenied }
    try self.requireConfirmed(caller)
    // A member that the others have gone on without would confirm whom they have removed.
    guard await self.isCurrent() else { throw .notServing }
    // First of all, as what lay below a directory before that was handed to others has stayed.
    if let entry = self.group.credentials.entry(path) {
      return .file(
        StoredCredential(bytes: entry.credential.bytes, file: entry.fileID, directory: entry.directory),
        lifetime: AnswerLifetime.positive)
    }
    switch self.queries.place(ofCredential: path) {
    case .redirect(let redirect): return .redirect(redirect)
    case .above:
      let query = FindQuery(kind: .contained, service: nil, scope: path.parent ?? path)
      // Not who is there: who goes on towards it.
      guard case .redirect(let redirect)? = self.routes.answerElsewhere(query, mayRead: false) else {
        throw .parentUnreachable(nil)
      }
      return .redirect(redirect)
    case .here: return try await self.readCredentialAbove(path, caller)
    }
  }

  /// What lies directly in a delegated home is stored by the cluster above, and what lay below it before may be: for
  /// whoever has not asked there, that is done here. (Of the processes in the home there are copies here.)
  private func readCredentialAbove(_ path: TreePath, _ caller: Caller) async throws(DiscoveryError) -> CredentialAnswer
  {
    let home = self.group.home.path
    // Those who are here, too, and those above, ask there themselves; otherwise two could ask each other for ever.
    if home.isRoot || caller.credential?.directory.isSameOrAncestor(of: home) != false {
      guard path.parent == home, caller.credential?.directory == home, let above = self.routes.processesAbove else {
        return .absent(lifetime: AnswerLifetime.negative)
      }
      return .redirect(above)
    }
    do {
      guard let (bytes, lifetime) = try await self.routes.readCredential(path) else {
        return .absent(lifetime: AnswerLifetime.negative)
      }
      return .file(StoredCredential(bytes: bytes, file: nil, directory: nil), lifetime: lifetime)
    } catch {
      throw .parentUnreachable(self.routes.processesAbove?.directory)
    }
  }

  /// SHA-256 of the credential file at a path, as far as it is known here.
  func credentialDigest(_ path: TreePath) -> Digest32? {
    self.group.credentials.entry(path).map { Digest32(sha256: $0.credential.bytes) }
  }

  /// Whether somebody looks after this process: owns the directory that its credential lies in, or is a process there
  /// or above.
  ///
  /// - Throws: `permissionDenied` for everybody else.
  package func requireOwner(_ caller: Caller) async throws(DiscoveryError) {
    try self.requireConfirmed(caller)
    guard let credential = caller.credential else { throw .permissionDenied }
    if credential.kind == .process, credential.directory.isSameOrAncestor(of: self.group.home.path) { return }
    guard let filesystem else { throw .permissionDenied }
    do throws(FilesystemError) {
      if try await filesystem.homeOwner() == credential.path { return }
    } catch {
      throw DiscoveryError(error)
    }
    throw .permissionDenied
  }

  /// Whether this member has all that its cluster has. Otherwise the credential files that it has may be old.
  private func isCurrent() async -> Bool {
    do { try await self.group.confirmRead() } catch { return false }
    return true
  }

  // MARK: Permission

  private func waitForStep(after start: ContinuousClock.Instant) async {
    guard self.refusalStep > .zero else { return }
    let steps = ((ContinuousClock.now - start) / self.refusalStep).rounded(.up)
    // Whoever is gone does not wait, and hears nothing.
    try? await Task.sleep(until: start + self.refusalStep * max(1, steps), clock: .continuous)
  }

  private func requireConfirmed(_ caller: Caller) throws(DiscoveryError) {
    guard let credential = caller.credential else { return }
    guard self.group.confirms(credential) else { throw .permissionDenied }
  }

  /// Whether the caller may ask about a scope that is at or below the home, and not behind other processes.
  private func mayRead(_ scope: TreePath, _ caller: Caller) async throws(DiscoveryError) -> Bool {
    if let credential = caller.credential, self.hasStanding(credential, at: scope) { return true }
    guard let filesystem else { throw .notServing }
    do throws(FilesystemError) { return try await filesystem.mayQuery(scope, by: caller.identity).isPermitted } catch {
      throw DiscoveryError(error)
    }
  }

  /// Whether it is clear from who somebody is: a process asks about its own directory and those above, and a filesystem
  /// service about everything below, of which it has the keys. Nothing above a credential is ever renamed, so paths say
  /// what is above what.
  private func hasStanding(_ credential: Credential, at scope: TreePath) -> Bool {
    guard credential.kind == .process else { return false }
    if scope.isSameOrAncestor(of: credential.directory) { return true }
    return credential.directory.isSameOrAncestor(of: scope)
      && self.group.filesystemDirectory(of: credential) != nil
  }

  /// Answers a query about what is neither at nor below the home.
  private func answerElsewhere(_ query: FindQuery, _ caller: Caller) async throws(DiscoveryError) -> FindAnswer {
    if let credential = caller.credential {
      let mayRead = credential.kind == .process && query.scope.isSameOrAncestor(of: credential.directory)
      guard let answer = self.routes.answerElsewhere(query, mayRead: mayRead) else { throw .parentUnreachable(nil) }
      return answer
    }
    // Who is nobody is led back only the way that it could have come.
    guard let filesystem else { throw .permissionDenied }
    do throws(FilesystemError) {
      guard try await filesystem.isLetPass(.anonymous) else { throw FilesystemError.permissionDenied }
    } catch {
      throw DiscoveryError(error)
    }
    guard let above = self.routes.processesAbove else { throw .parentUnreachable(nil) }
    return .redirect(above)
  }
}

/// What a cluster answers to its own processes, who may know all of it.
package struct GroupAnswers: OwnCluster {
  private let view: CredentialView

  package init(_ group: SectorGroup) { self.view = CredentialView(group) }

  package var home: TreePath { self.view.home }

  package func answer(_ query: FindQuery) -> FindAnswer? {
    switch QueryAnswer(self.view).outcome(of: query, rights: QueryRights(mayRead: true, mayFollow: true)) {
    case .answer(let answer): answer
    case .denied, .above: nil
    }
  }

  package func redirect(toCredential path: TreePath) -> FindAnswer? {
    guard case .redirect(let redirect) = QueryAnswer(self.view).place(ofCredential: path) else { return nil }
    return .redirect(redirect)
  }
}

extension FindAnswer {
  /// The same, from what may be old.
  fileprivate var stale: FindAnswer {
    switch self {
    case .found(let found): .found(found.stale)
    case .redirect(let redirect):
      .redirect(
        Redirect(
          directory: redirect.directory, processes: redirect.processes, lifetime: redirect.lifetime,
          nearestAbove: redirect.nearestAbove?.stale))
    }
  }
}

extension Found {
  fileprivate var stale: Found {
    Found(directory: self.directory, processes: self.processes, lifetime: self.lifetime, isStale: true)
  }
}

/// The credential files of a cluster, as answers are made from them.
private struct CredentialView: ClusterView, Sendable {
  let home: TreePath
  let credentials: CredentialIndex

  init(_ group: SectorGroup) {
    self.home = group.home.path
    self.credentials = group.credentials
  }

  func processes(in directory: TreePath) -> [RouteProcess] {
    self.credentials.processes(in: directory).map { entry in
      RouteProcess(
        path: entry.path, services: entry.credential.marks.services,
        addresses: entry.credential.addresses?.addresses.addresses ?? [])
    }
  }
}
