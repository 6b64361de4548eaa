// SPDX-License-Identifier: Apache-2.0

package import Trust

/// What a cluster knows of processes: the credential files of the directories that it stores, and those of its members.
package protocol ClusterView {
  /// The directory that the cluster serves.
  var home: TreePath { get }
  /// The processes whose credential files lie directly in a directory, as far as this cluster stores them or has
  /// copies.
  func processes(in directory: TreePath) -> [RouteProcess]
}

/// What the caller may be told. Decided by whoever answers, before the answer is made.
package struct QueryRights: Hashable, Sendable {
  /// Who is there: the caller may read the scope, as far as this cluster can tell.
  package let mayRead: Bool
  /// Who goes on with the query: a principal of the domain, or somebody who may read the way.
  package let mayFollow: Bool

  package init(mayRead: Bool, mayFollow: Bool) {
    self.mayRead = mayRead
    self.mayFollow = mayFollow
  }

  /// What of an answer may be told; nil when nothing.
  package func permitted(_ answer: FindAnswer) -> FindAnswer? {
    switch answer {
    case .found: self.mayRead ? answer : nil
    case .redirect(let redirect):
      self.mayFollow
        ? .redirect(
          Redirect(
            directory: redirect.directory, processes: redirect.processes, lifetime: redirect.lifetime,
            nearestAbove: self.mayRead ? redirect.nearestAbove : nil)) : nil
    }
  }
}

/// What comes of a query at one cluster.
package enum QueryOutcome: Hashable, Sendable {
  case answer(FindAnswer)
  /// The caller may not know, whether or not there is anybody.
  case denied
  /// The scope is not at or below the cluster's home: clusters above know (`RouteBook.answer`).
  case above
}

/// Where a credential file is stored.
package enum CredentialPlace: Hashable, Sendable {
  /// In the asked cluster, if it is anywhere.
  case here
  case redirect(Redirect)
  /// In a cluster above, or reached from there.
  case above
}

/// Answers queries for one cluster, from what that knows. Deeper delegated directories have clusters of their own, to
/// which it redirects.
///
/// The credentials of a delegated directory lie in the cluster above. So that cluster answers for the directory
/// itself, and redirects for what is below.
package struct QueryAnswer<View: ClusterView> {
  private let view: View

  package init(_ view: View) {
    self.view = view
  }

  /// The deepest delegated directory, other than the cluster's home, at or above a scope, as this cluster knows. What
  /// is below it is in other hands. Nil when there is none.
  package func boundary(of scope: TreePath) -> TreePath? {
    self.way(to: scope).last { directory in
      directory != self.view.home && self.view.processes(in: directory).contains { $0.hosts(.sector) }
    }
  }

  /// The answer for whoever may know all of it: a redirect to the deepest delegated directory above the scope, or who
  /// was found. Nil when the scope is not at or below the cluster's home. Does the same whether there is anybody or not.
  package func answer(to query: FindQuery) -> FindAnswer? {
    guard self.view.home.isSameOrAncestor(of: query.scope) else { return nil }
    let contained = self.matching(query.service, in: query.scope)
    let nearest = self.nearest(query.service, at: query.scope)
    if let boundary = self.boundary(of: query.scope), boundary != query.scope {
      return .redirect(self.redirect(to: boundary, nearestAbove: query.kind == .nearest ? nearest : nil))
    }
    return .found(query.kind == .contained ? contained : nearest)
  }

  /// Does the same whether or not the caller may know; then decides what of the answer to tell.
  package func outcome(of query: FindQuery, rights: QueryRights) -> QueryOutcome {
    guard let answer = self.answer(to: query) else { return .above }
    return rights.permitted(answer).map { .answer($0) } ?? .denied
  }

  /// Where the credential file at a path is.
  package func place(ofCredential path: TreePath) -> CredentialPlace {
    // A credential of a delegated directory lies in the cluster above, which knows it by the directory.
    guard let directory = path.parent else { return self.view.home.isRoot ? .here : .above }
    guard self.view.home.isSameOrAncestor(of: directory) else { return .above }
    guard let boundary = self.boundary(of: directory), boundary != directory else { return .here }
    return .redirect(self.redirect(to: boundary, nearestAbove: nil))
  }

  /// Some of the processes of a delegated directory: those that answer queries, if any says that it does.
  package func redirect(to directory: TreePath, nearestAbove: Found?) -> Redirect {
    let all = self.view.processes(in: directory)
    // Queries are answered where there are filesystem services.
    let able = all.filter { $0.hosts(.discovery) || $0.hosts(.filesystem) }
    return Redirect(
      directory: directory, processes: able.isEmpty ? all.filter { $0.hosts(.sector) } : able,
      lifetime: AnswerLifetime.positive, nearestAbove: nearestAbove)
  }

  private func nearest(_ service: Service?, at scope: TreePath) -> Found {
    // All of them, also when the first is good: the time that it takes says nothing.
    let found = self.way(to: scope).map { self.matching(service, in: $0) }
    return found.last { !$0.isEmpty } ?? .nobody(for: AnswerLifetime.negative)
  }

  private func matching(_ service: Service?, in directory: TreePath) -> Found {
    let matching = self.view.processes(in: directory).filter { $0.hosts(service) }
    guard !matching.isEmpty else { return .nobody(for: AnswerLifetime.negative) }
    return Found(
      directory: directory, processes: Array(matching.sorted { $0.path < $1.path }.prefix(Route.processCountMax)),
      lifetime: AnswerLifetime.positive)
  }

  /// The directories from the cluster's home down to a scope in it.
  private func way(to scope: TreePath) -> [TreePath] {
    guard self.view.home.isSameOrAncestor(of: scope) else { return [] }
    return scope.ancestors.filter { self.view.home.isSameOrAncestor(of: $0) } + [scope]
  }
}
