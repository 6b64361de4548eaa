// SPDX-License-Identifier: Apache-2.0

package import Filesystem
package import Routes
package import Trust

/// Answers queries from the credential files that one cluster knows, within what the caller may know.
///
/// What is not there and what is not the caller's to know is found out in the same way, and answered in the same words.
package struct DiscoveryAnswers: Sendable {
  private let cluster: any AnsweringCluster
  /// Says who may read what; nil in a process that can not read directories.
  private let filesystem: Filesystem?
  /// Says who knows what this cluster does not.
  private let routes: NodeRoutes
  private let refusalStep: Duration

  /// - Parameter refusalStep: refusals come at whole multiples of this after the question, as what is looked at for the
  ///   first time takes longer than what is in memory, and that must not be told from outside.
  package init(
    cluster: any AnsweringCluster, filesystem: Filesystem?, routes: NodeRoutes,
    refusalStep: Duration = DiscoveryLimits.refusalStep
  ) {
    self.cluster = cluster
    self.filesystem = filesystem
    self.routes = routes
    self.refusalStep = refusalStep
  }

  /// - Throws: `permissionDenied`, whether or not there is anything.
  package func find(_ query: FindQuery, by caller: Caller) async throws(DiscoveryError) -> FindAnswer {
    let start = ContinuousClock.now
    try self.requireConfirmed(caller)
    guard self.cluster.home.isSameOrAncestor(of: query.scope) else {
      return try await self.answerElsewhere(query, caller)
    }
    let isCurrent = await self.cluster.isCurrent()
    let answer = try await self.cluster.answer(to: query)
    let rights: QueryRights
    switch answer {
    case .redirect(let redirect):
      // Delegation points are no secret from principals: whether the scope may be asked about is judged behind them.
      // Who is nearest above is for those who may ask about the delegation point itself; and who is nobody is only led
      // on from what it can see.
      let mustRead = caller == .anonymous || query.kind == .nearest
      let mayRead = mustRead ? try await self.mayRead(redirect.directory, caller) : false
      rights = QueryRights(mayRead: mayRead, mayFollow: mayRead || caller != .anonymous)
    case .found:
      rights = QueryRights(mayRead: try await self.mayRead(query.scope, caller), mayFollow: true)
    }
    guard let permitted = rights.permitted(answer) else {
      await self.waitForStep(after: start)
      throw .permissionDenied
    }
    return isCurrent ? permitted : permitted.stale
  }

  /// For principals of the domain.
  package func readCredential(_ path: TreePath, by caller: Caller) async throws(DiscoveryError) -> CredentialAnswer {
    guard caller != .anonymous else { throw .permissionDenied }
    try self.requireConfirmed(caller)
    // A member that the others have gone on without would confirm whom they have removed.
    guard await self.cluster.isCurrent() else { throw .notServing }
    switch try await self.cluster.credential(at: path) {
    case .answer(let answer): return answer
    case .above:
      let query = FindQuery(kind: .contained, service: nil, scope: path.parent ?? path)
      // Not who is there: who goes on towards it.
      guard case .redirect(let redirect)? = self.routes.answerElsewhere(query, mayRead: false) else {
        throw .parentUnreachable(nil)
      }
      return .redirect(redirect)
    case .absent: return try await self.readCredentialAbove(path, caller)
    }
  }

  /// What lies directly in a delegated home is stored by the cluster above, and what lay below it before may be: for
  /// whoever has not asked there, that is done here. (Of the processes in the home there are copies here.)
  private func readCredentialAbove(_ path: TreePath, _ caller: Caller) async throws(DiscoveryError) -> CredentialAnswer
  {
    let home = self.cluster.home
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
  func credentialDigest(_ path: TreePath) -> Digest32? { self.cluster.credentialDigest(path) }

  /// Whether somebody looks after this process: owns the directory that its credential lies in, or is a process there
  /// or above.
  ///
  /// - Throws: `permissionDenied` for everybody else.
  package func requireOwner(_ caller: Caller) async throws(DiscoveryError) {
    try self.requireConfirmed(caller)
    guard let credential = caller.credential else { throw .permissionDenied }
    if credential.kind == .process, credential.directory.isSameOrAncestor(of: self.cluster.home) { return }
    guard let filesystem else { throw .permissionDenied }
    do throws(FilesystemError) {
      if try await filesystem.homeOwner() == credential.path { return }
    } catch {
      throw DiscoveryError(error)
    }
    throw .permissionDenied
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
    guard self.cluster.confirms(credential) else { throw .permissionDenied }
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
    return credential.directory.isSameOrAncestor(of: scope) && self.cluster.isFilesystemService(credential)
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
