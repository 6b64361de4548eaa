// SPDX-License-Identifier: Apache-2.0

package import Routes
package import Trust

/// What a simulated domain looks like.
package struct DomainShape: Hashable, Sendable {
  /// In all, about.
  package var processCount: Int
  /// Of a cluster, each of which has all services of the system but relay.
  package var memberCount: Int
  /// How many directories a cluster delegates to others.
  package var fanOut: Int

  package init(processCount: Int, memberCount: Int = 3, fanOut: Int = 6) {
    self.processCount = processCount
    self.memberCount = memberCount
    self.fanOut = fanOut
  }
}

/// A cluster of a simulated domain, and what it stores of credential files.
package struct SimulatedCluster: ClusterView, Sendable {
  package let home: TreePath
  /// Nil for the root's.
  package let parent: Int?
  package internal(set) var children: [Int] = []
  /// Numbers of processes.
  package internal(set) var members: [Int] = []
  var index: [TreePath: [RouteProcess]] = [:]

  package func processes(in directory: TreePath) -> [RouteProcess] { self.index[directory] ?? [] }
}

/// A domain in which directories are delegated to clusters, to any depth: the tree of clusters, and who is where.
package struct SimulatedDomain: Sendable {
  package struct Member: Sendable {
    package let process: RouteProcess
    package let cluster: Int
    /// Whether it is one of those that serve the cluster's directory; others just lie in a directory of it.
    package let isServing: Bool
  }

  package private(set) var clusters: [SimulatedCluster] = []
  package private(set) var members: [Member] = []
  package private(set) var numbers: [TreePath: Int] = [:]
  /// Everything, for whoever looks for the right answer without asking anybody.
  private var everywhere: [TreePath: [RouteProcess]] = [:]

  package static let thumbnails: Service? = try? Service("thumbnails")

  package init(_ shape: DomainShape, seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    self.clusters.append(SimulatedCluster(home: .root, parent: nil))
    self.populate(0, shape, &random)
    var next = 0
    // Breadth first: so the domain is as flat as its fan-out allows.
    while self.members.count < shape.processCount && next < self.clusters.count {
      for number in 0..<shape.fanOut where self.members.count < shape.processCount {
        // Some lie directly in the home of the cluster above, some further down.
        let names = random.next().isMultiple(of: 3) ? ["areas", "site-\(number)"] : ["site-\(number)"]
        guard let home = self.clusters[next].home.appending(names) else { continue }
        self.clusters.append(SimulatedCluster(home: home, parent: next))
        self.clusters[next].children.append(self.clusters.count - 1)
        self.populate(self.clusters.count - 1, shape, &random)
      }
      next += 1
    }
  }

  /// Puts processes into a new cluster: those that serve it, and sometimes one of a program, in a directory of its own.
  private mutating func populate(_ cluster: Int, _ shape: DomainShape, _ random: inout SeededGenerator) {
    let home = self.clusters[cluster].home
    let hasRelay = cluster == 0 || random.next().isMultiple(of: 8)
    for number in 0..<shape.memberCount {
      var services: [Service] = [.sector, .filesystem]
      if hasRelay { services.append(.relay) }
      self.add("node-\(number)", to: home, services, cluster, isServing: true)
    }
    guard cluster == 0 || random.next().isMultiple(of: 4), let directory = home.appending(["apps"]) else { return }
    self.add("thumbnailer", to: directory, [Self.thumbnails].compactMap { $0 }, cluster, isServing: false)
  }

  private mutating func add(
    _ name: String, to directory: TreePath, _ services: [Service], _ cluster: Int, isServing: Bool
  ) {
    let number = self.members.count
    let host = "10.\(number >> 16 & 255).\(number >> 8 & 255).\(number & 255)"
    guard let path = directory.appending([name]), let address = try? NetworkAddress(host: host, port: 7777)
    else { return }
    let process = RouteProcess(path: path, services: services, addresses: [address])
    self.members.append(Member(process: process, cluster: cluster, isServing: isServing))
    self.numbers[path] = number
    self.everywhere[directory, default: []].append(process)
    // The cluster's copy, or the file itself.
    self.clusters[cluster].index[directory, default: []].append(process)
    guard isServing else { return }
    self.clusters[cluster].members.append(number)
    // A member's credential file lies in the cluster above.
    if let parent = self.clusters[cluster].parent {
      self.clusters[parent].index[directory, default: []].append(process)
    }
  }

  /// The right answer: by looking everywhere.
  package func truth(of query: FindQuery) -> Found {
    var directories = [query.scope]
    if query.kind == .nearest { directories += query.scope.ancestors.reversed() }
    for directory in directories {
      let matching = (self.everywhere[directory] ?? []).filter { $0.hosts(query.service) }
      if !matching.isEmpty {
        return Found(
          directory: directory, processes: matching.sorted { $0.path < $1.path }, lifetime: AnswerLifetime.positive)
      }
    }
    return .nobody(for: AnswerLifetime.negative)
  }

  /// How many clusters there are from the root's to this one, both counted.
  package func level(of cluster: Int) -> Int {
    var count = 1
    var next = self.clusters[cluster].parent
    while let parent = next {
      count += 1
      next = self.clusters[parent].parent
    }
    return count
  }
}

extension TreePath {
  func appending(_ names: [String]) -> TreePath? {
    var path = self
    for name in names {
      guard let next = try? path.appending(name) else { return nil }
      path = next
    }
    return path
  }
}
