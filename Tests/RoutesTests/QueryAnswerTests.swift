// SPDX-License-Identifier: Apache-2.0

import Routes
import Testing
import Trust

/// What a cluster knows, and how often it was asked.
private final class CountingView: ClusterView {
  let home: TreePath
  let directories: [TreePath: [RouteProcess]]
  private(set) var lookups: [TreePath] = []

  init(home: String, _ directories: [String: [RouteProcess]]) {
    self.home = path(home)
    self.directories = Dictionary(uniqueKeysWithValues: directories.map { (path($0.key), $0.value) })
  }

  func processes(in directory: TreePath) -> [RouteProcess] {
    self.lookups.append(directory)
    return self.directories[directory] ?? []
  }
}

private let all = QueryRights(mayRead: true, mayFollow: true)
private let principal = QueryRights(mayRead: false, mayFollow: true)
private let stranger = QueryRights(mayRead: false, mayFollow: false)

@Suite("Answers to queries")
struct QueryAnswerTests {
  /// The root's cluster: two delegated directories, one with data on machines that must not read it, and a program.
  private let root = CountingView(
    home: "/",
    [
      "/": [process("/n1"), process("/n2", [.sector, .filesystem, .relay])],
      "/a": [process("/a/n1"), process("/a/n2", [.sector])],
      "/vault": [process("/vault/n1", [.sector])],
      "/apps": [process("/apps/thumbs", [.relay])],
    ])
  /// The cluster of /a, with copies of its members' credentials, and a delegated directory of its own.
  private let site = CountingView(
    home: "/a",
    ["/a": [process("/a/n1"), process("/a/n2", [.sector])], "/a/b": [process("/a/b/n1")]])

  private func outcome(
    _ kind: FindKind, _ service: Service?, _ scope: String, at view: CountingView, _ rights: QueryRights = all
  ) -> QueryOutcome {
    QueryAnswer(view).outcome(of: FindQuery(kind: kind, service: service, scope: path(scope)), rights: rights)
  }

  private func found(_ outcome: QueryOutcome) -> [String]? {
    guard case .answer(.found(let found)) = outcome else { return nil }
    return found.processes.map(\.path.description)
  }

  private func redirect(_ outcome: QueryOutcome) -> Redirect? {
    guard case .answer(.redirect(let redirect)) = outcome else { return nil }
    return redirect
  }

  @Test("for directories that the cluster stores come from it")
  func own() {
    #expect(self.found(self.outcome(.contained, .filesystem, "/", at: root)) == ["/n1", "/n2"])
    #expect(self.found(self.outcome(.contained, .relay, "/", at: root)) == ["/n2"])
    #expect(self.found(self.outcome(.contained, nil, "/apps", at: root)) == ["/apps/thumbs"])
    #expect(self.found(self.outcome(.contained, .filesystem, "/nothing/here", at: root)) == [])
    #expect(self.found(self.outcome(.nearest, .filesystem, "/nothing/here", at: root)) == ["/n1", "/n2"])
    #expect(self.found(self.outcome(.nearest, .relay, "/apps/x", at: root)) == ["/apps/thumbs"])
    #expect(self.found(self.outcome(.nearest, .discovery, "/apps/x", at: root)) == ["/n1"])
  }

  @Test("for a delegated directory itself come from the cluster above, and from its own")
  func delegated() {
    for view in [root, site] {
      #expect(self.found(self.outcome(.contained, .sector, "/a", at: view)) == ["/a/n1", "/a/n2"])
      #expect(self.found(self.outcome(.nearest, .filesystem, "/a", at: view)) == ["/a/n1"])
    }
  }

  @Test("for what is below a delegated directory are redirects to those of its processes that can answer")
  func below() {
    let redirect = self.redirect(self.outcome(.nearest, .relay, "/a/b/c", at: root))
    #expect(redirect?.directory == path("/a"))
    #expect(redirect?.processes.map(\.path.description) == ["/a/n1"])
    #expect(redirect?.nearestAbove?.processes.map(\.path.description) == ["/n2"])
    #expect(self.redirect(self.outcome(.contained, nil, "/a/b/c", at: site))?.directory == path("/a/b"))
    #expect(self.redirect(self.outcome(.contained, nil, "/a/b", at: site)) == nil)
    // Nobody there can read; they are named all the same.
    #expect(self.redirect(self.outcome(.contained, nil, "/vault/x", at: root))?.processes.count == 1)
  }

  @Test("say who is nearest above, and that nobody is, and nothing where that may not be told")
  func nearestAbove() {
    let inA = self.redirect(self.outcome(.nearest, .filesystem, "/a/x", at: root))
    #expect(inA?.nearestAbove?.directory == path("/a"))
    let nobody = self.redirect(self.outcome(.nearest, .relay, "/a/b/x", at: site))
    #expect(nobody?.nearestAbove == .nobody(for: .seconds(2)))
    let untold = self.redirect(self.outcome(.nearest, .relay, "/a/x", at: root, principal))
    #expect(untold != nil && untold?.nearestAbove == nil)
    #expect(self.redirect(self.outcome(.contained, .relay, "/a/x", at: root))?.nearestAbove == nil)
  }

  @Test("for what is not below the cluster's home are for others to give")
  func above() {
    for scope in ["/", "/b", "/apps", "/ab"] {
      #expect(self.outcome(.contained, nil, scope, at: site) == .above)
      #expect(self.outcome(.nearest, nil, scope, at: site, stranger) == .above)
    }
  }

  @Test("are the same refusal, with the same work, whether or not there is anybody")
  func refusal() {
    for kind in [FindKind.contained, .nearest] {
      var work: Set<[Int]> = []
      for scope in ["/apps/x", "/nobody/x", "/nothing/at-all"] {
        for service in [Service.relay, .discovery] {
          for rights in [all, principal, stranger] {
            let view = CountingView(home: "/", ["/apps": [process("/apps/t", [.relay])], "/nobody": []])
            let outcome = self.outcome(kind, service, scope, at: view, rights)
            if rights != all { #expect(outcome == .denied) }
            work.insert(view.lookups.map(\.depth))
          }
        }
      }
      // One way to look, wherever, whatever and for whoever.
      #expect(work.count == 1)
    }
    #expect(self.outcome(.contained, nil, "/a/x", at: root, stranger) == .denied)
  }

  @Test("of credential files tell the cluster that stores their directory")
  func credentials() {
    let (rootAnswer, siteAnswer) = (QueryAnswer(root), QueryAnswer(site))
    for path in ["/owner", "/n1", "/a", "/a/n1", "/people/ann", "/"] {
      #expect(rootAnswer.place(ofCredential: RoutesTests.path(path)) == .here, "\(path)")
    }
    guard case .redirect(let redirect) = rootAnswer.place(ofCredential: path("/a/people/ann")) else {
      Issue.record("no redirect")
      return
    }
    #expect(redirect.directory == path("/a"))
    #expect(siteAnswer.place(ofCredential: path("/a/people/ann")) == .here)
    #expect(siteAnswer.place(ofCredential: path("/a/n1")) == .here)
    #expect(siteAnswer.place(ofCredential: path("/a/b/n1")) == .here)
    #expect(siteAnswer.place(ofCredential: path("/owner")) == .above)
    #expect(siteAnswer.place(ofCredential: path("/a")) == .above)
    #expect(siteAnswer.place(ofCredential: path("/")) == .above)
  }

  @Test("stop at the deepest delegated directory that the cluster knows of")
  func boundary() {
    #expect(QueryAnswer(root).boundary(of: path("/a/b/c")) == path("/a"))
    #expect(QueryAnswer(root).boundary(of: path("/a")) == path("/a"))
    #expect(QueryAnswer(root).boundary(of: path("/apps/x")) == nil)
    #expect(QueryAnswer(root).boundary(of: path("/")) == nil)
    #expect(QueryAnswer(site).boundary(of: path("/a/x")) == nil)
    #expect(QueryAnswer(site).boundary(of: path("/a/b/c")) == path("/a/b"))
    #expect(QueryAnswer(site).boundary(of: path("/b")) == nil)
  }
}

@Suite("Equal queries at the same time")
struct QueryTableTests {
  @Test("are asked once, and all who wait get the result, in their order")
  func coalescing() {
    var table = QueryTable<String, Int>()
    let roles = [("a", 1), ("a", 2), ("b", 3), ("a", 4)].map { table.join($0.0, as: $0.1) }
    #expect(roles == [.lead, .wait, .lead, .wait])
    let waiters = table.finish("a")
    #expect(waiters == [2, 4])
    #expect(table.queryCount == 1 && table.waiterCount == 0)
    let again = table.join("a", as: 5)
    #expect(again == .lead)
  }

  @Test("are refused beyond the limits")
  func limits() {
    var table = QueryTable<String, Int>(queryCountMax: 2, waiterCountMax: 1)
    let roles = [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)].map { table.join($0.0, as: $0.1) }
    #expect(roles == [.lead, .lead, .full, .wait, .full])
    _ = table.finish("a")
    let role = table.join("c", as: 6)
    #expect(role == .lead)
  }

  @Test("go on without those who do not wait any more")
  func leaving() {
    var table = QueryTable<String, Int>()
    for waiter in 1...3 { _ = table.join("a", as: waiter) }
    let left = table.leave("a") { $0 == 2 }
    let gone = table.leave("a") { $0 == 2 }
    #expect(left == 2 && gone == nil)
    let waiters = table.finish("a")
    #expect(waiters == [3])
    #expect(table.waiterCount == 0)
  }
}
