// SPDX-License-Identifier: Apache-2.0

import Discovery
import Filesystem
import Foundation
import GRPCCore
import GRPCProtobuf
import Inodes
import Routes
import Sectors
import Testing
import Transport
import Trust

@Suite("A refusal")
struct SecrecyTests {
  /// A closed directory with things in it, and next to each a place where nothing is.
  private static let pairs: [(there: String, missing: String)] = [
    ("/closed/file", "/closed/none"),
    ("/closed/inner", "/closed/outer"),
    ("/closed/inner/deep", "/closed/inner/none"),
    ("/closed/inner/deep/more", "/closed/none/deep/more"),
    ("/closed/inner/p3", "/closed/inner/p4"),
    ("/open/secret", "/open/secret/none"),
  ]

  private func fill(_ tree: TestTree) async throws {
    try await tree.makeDirectory("/open")
    try await tree.put("/open/secret", mode: 0o600)
    try await tree.makeDirectory("/closed")
    try await tree.put("/closed/file")
    try await tree.makeDirectory("/closed/inner")
    try await tree.makeDirectory("/closed/inner/deep")
    try await tree.add(.process, "/closed/inner/p3", [.relay])
    try await tree.makeDirectory("/closed/inner/deep/more")
    try await tree.close("/closed")
    try await tree.add(.user, "/ann")
    try await tree.add(.process, "/open/p1", [.relay])
  }

  /// All that a caller gets to see of an error: code, message, and the details as bytes.
  private func refusal(
    _ tree: TestTree, _ kind: FindKind, _ scope: String, _ caller: Caller
  ) async throws -> [String] {
    try await self.refusal(
      tree.root, FindQuery(kind: kind, service: .relay, scope: TestTree.path(scope)), caller)
  }

  private func refusal(_ side: TestTree.Side, _ query: FindQuery, _ caller: Caller) async throws -> [String] {
    do {
      let answer = try await side.answers.find(query, by: caller)
      Issue.record("\(query) was answered: \(answer)")
      return []
    } catch {
      let seen = RPCError(error)
      return ["\(seen.code)", seen.message] + seen.metadata.map { "\($0.key)=\($0.value)" }.sorted()
    }
  }

  @Test("has the same words, bit for bit, and costs the same look-ups, whether there is something or nothing")
  func words() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let callers: [Caller] = [.anonymous, try tree.caller("/ann"), try tree.caller("/open/p1")]
      var seen: Set<[String]> = []
      for (there, missing) in Self.pairs where there.hasPrefix("/closed") {
        for caller in callers {
          for kind in [FindKind.contained, .nearest] {
            seen.insert(try await self.refusal(tree, kind, there, caller))
            seen.insert(try await self.refusal(tree, kind, missing, caller))
          }
          let judged = try await tree.root.filesystem.mayQuery(TestTree.path(there), by: caller.identity)
          let other = try await tree.root.filesystem.mayQuery(TestTree.path(missing), by: caller.identity)
          #expect(judged == other, "\(there) and \(missing) for \(caller.identity)")
          #expect(judged.lookCount > 0)
        }
      }
      // One refusal for all of it.
      #expect(seen.count == 1)
      #expect(seen.first?.contains("permissionDenied") == true)
    }
  }

  @Test("costs as many look-ups as the scope has components and one more, where somebody may own what lies there")
  func lookUps() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let ann = CallerIdentity.principal(TestTree.path("/ann"))
      for (there, missing) in Self.pairs {
        for scope in [there, missing] {
          let path = TestTree.path(scope)
          let judged = try await tree.root.filesystem.mayQuery(path, by: ann)
          #expect(judged.lookCount == path.depth + 1, "\(scope)")
        }
      }
      // For anonymous callers nothing behind a closed directory can matter, and nothing there is looked at.
      let closed = try await tree.root.filesystem.mayQuery(TestTree.path("/closed/inner/deep"), by: .anonymous)
      #expect(!closed.isPermitted && closed.lookCount == 2)
    }
  }

  @Test(
    "costs the same at a process of a delegated directory, and says the same when the cluster above is out of reach")
  func site() async throws {
    try await TestTree.with { tree in
      try await tree.makeDirectory("/site/closed", mode: 0o700)
      try await tree.makeDirectory("/site/closed/deep")
      try await tree.add(.user, "/ann")
      let identity = CallerIdentity.principal(TestTree.path("/ann"))
      let ann = try tree.caller("/ann")
      guard let credential = ann.credential else { return }
      tree.site.group.guests.confirm(
        .init(path: credential.path, keyID: credential.keyID, kind: .user, services: []), for: .seconds(3_600))
      try await tree.close("/site", mode: 0o711)
      for isReachable in [true, false] {
        if isReachable {
          try await tree.site.filesystem.refreshAncestors()
          _ = try await tree.site.filesystem.mayQuery(TestTree.path("/site/closed"), by: identity)
        } else {
          tree.siteVolumes.remove(.root)
        }
        let before = tree.siteVolumes.count
        var refusals: Set<[String]> = []
        for scope in ["/site/closed", "/site/nothing", "/site/closed/deep", "/site/nothing/deep", "/site/closed/none"] {
          let path = TestTree.path(scope)
          let judged = try await tree.site.filesystem.mayQuery(path, by: identity)
          #expect(!judged.isPermitted)
          #expect(judged.lookCount == path.depth, "\(scope)")
          refusals.insert(
            try await self.refusal(tree.site, FindQuery(kind: .nearest, service: .relay, scope: path), ann))
        }
        #expect(refusals.count == 1)
        // The other cluster was asked for none of them.
        #expect(tree.siteVolumes.count == before)
      }
    }
  }

  /// The primary statistic is the number of look-ups, above. This one is about the clock: of many trials in turn, the
  /// medians of the two kinds differ by less than the trials of one kind do among themselves. (The statistic is the
  /// difference of the medians over the interquartile range of all trials.)
  @Test("takes as long whether there is something or nothing")
  func time() async throws {
    try await TestTree.with { tree in
      try await self.fill(tree)
      let ann = try tree.caller("/ann")
      let scopes = ["/closed/inner/deep", "/closed/inner/none"].map {
        FindQuery(kind: .nearest, service: .relay, scope: TestTree.path($0))
      }
      // As it is before refusals are made to wait.
      let answers = DiscoveryAnswers(
        cluster: GroupAnswers(tree.root.group), filesystem: tree.root.filesystem, routes: tree.root.routes,
        refusalStep: .zero)
      func trial(_ query: FindQuery) async throws -> Double {
        let start = ContinuousClock.now
        await #expect(throws: DiscoveryError.permissionDenied) { try await answers.find(query, by: ann) }
        return (ContinuousClock.now - start) / .microseconds(1)
      }
      // What is read for the first time is remembered afterwards.
      for _ in 0..<50 { for query in scopes { _ = try await trial(query) } }
      var times: [[Double]] = [[], []]
      for round in 0..<1_500 {
        // Neither is always the first.
        for index in round.isMultiple(of: 2) ? [0, 1] : [1, 0] {
          times[index].append(try await trial(scopes[index]))
        }
      }
      let medians = times.map { self.quantile(0.5, of: $0) }
      let all = times.flatMap { $0 }
      let spread = self.quantile(0.75, of: all) - self.quantile(0.25, of: all)
      #expect(abs(medians[0] - medians[1]) < max(spread, 0.25 * medians[1]), "medians \(medians), spread \(spread)")
    }
  }

  private func quantile(_ part: Double, of values: [Double]) -> Double {
    let sorted = values.sorted()
    return sorted[min(sorted.count - 1, Int(part * Double(sorted.count)))]
  }
}
