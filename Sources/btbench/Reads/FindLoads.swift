// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient

/// Looks for processes in directories that were delegated one inside the other.
struct FindLoads: Sendable {
  let depth: Int
  let scale: Scale

  private static let freshCount = 3

  /// Hands further directories to processes of their own, one in each, below the one that there is.
  ///
  /// - Parameter rounds: in each of which every depth has its turn.
  func measure(_ domain: inout ReadsDomain, rounds: Int, _ figures: inout Figures) async throws {
    var scopes = [ReadWay.site]
    while scopes.count < self.depth {
      ReadsBench.progress("delegation \(scopes.count + 1) of \(self.depth)")
      let scope = "\(scopes.last ?? "")/inner"
      try await domain.delegate(scope, to: 1)
      scopes.append(scope)
    }
    let profile = try domain.profile(startingIn: "/")
    ReadsBench.progress("finds")
    for _ in 0..<rounds {
      for (index, scope) in scopes.enumerated() {
        try Task.checkCancellation()
        try await self.measure(scope, index + 1, profile, &figures)
      }
    }
  }

  private func measure(_ scope: String, _ depth: Int, _ profile: Profile, _ figures: inout Figures) async throws {
    for _ in 0..<Self.freshCount {
      let begin = ContinuousClock.now
      try await withClient(profile) { client in
        let trips = try await Self.find(scope, client)
        figures.add("find.cold.\(depth)", (ContinuousClock.now - begin) / .milliseconds(1), "ms")
        figures.add("find.cold.\(depth).trips", Double(trips), "round trips")
      }
    }
    for (name, refresh) in [("warm", false), ("again", true)] {
      let (seconds, trips) = try await withClient(profile) { client in
        _ = try await Self.find(scope, client)
        return try await client.onEventLoop {
          var seconds: [Double] = []
          var trips = 0
          let deadline = ContinuousClock.now + self.scale.loadDuration
          repeat {
            let begin = ContinuousClock.now
            trips = max(trips, try await Self.find(scope, client, refresh: refresh))
            seconds.append((ContinuousClock.now - begin) / .seconds(1))
          } while ContinuousClock.now < deadline
          return (seconds, trips)
        }
      }
      figures.add("find.\(name).\(depth)", Series(name: "", unit: "", values: seconds).median * 1e6, "µs")
      figures.add("find.\(name).\(depth).trips", Double(trips), "round trips")
    }
  }

  /// Finds those in a directory.
  ///
  /// - Parameter refresh: whether to ask, whatever is remembered.
  /// - Returns: how many round trips that took.
  private static func find(_ scope: String, _ client: Client, refresh: Bool = false) async throws -> Int {
    let result = try await client.find(.contained, service: "filesystem", scope: scope, refresh: refresh)
    guard result.found.directory == scope else { throw BenchFailure("nobody was found in \(scope)") }
    return result.steps.count { step in
      if case .asking = step.event { return true }
      return false
    }
  }
}
