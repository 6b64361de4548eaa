// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import Foundation

/// Reads of the same file on several ways, which take turns.
struct ReadsBench: Sendable {
  let scale: Scale
  let roundCount: Int
  let memberCount: Int
  let depth: Int
  /// On the disk to be measured; must not exist.
  let directory: String
  /// The programs.
  let node: String
  let tool: String

  static let full = Scale(
    loadMilliseconds: 200, transferByteCount: 64 << 20, fileCount: 0, readInodeCount: 0, syncedByteCount: 0)
  static let quick = Scale(
    loadMilliseconds: 40, transferByteCount: 4 << 20, fileCount: 0, readInodeCount: 0, syncedByteCount: 0)

  /// What is promised.
  static let targets =
    ReadLoad.allCases.map { Target(name: "\($0.rawValue).warm-to-own", kind: .atMostInMedian(1.1)) }
    + (1...8).map { Target(name: "find.cold.\($0).trips", kind: .atMostInMedian(Double($0))) }

  /// Reads of each client that are compared before the next one's turn.
  private static let turnCount = 16
  /// Fresh clients on each way in a round.
  private static let freshCount = 3

  func run() async throws -> Report {
    var domain = try ReadsDomain(
      2 * self.memberCount + self.depth, node: self.node, tool: self.tool, directory: self.directory)
    do {
      let figures = try await self.measure(&domain)
      try await domain.stop()
      return Report(scale: self.scale, runCount: self.roundCount, figures: figures, notes: [])
    } catch {
      throw BenchFailure("\(error)\(Program.tail(of: domain.log))")
    }
  }

  private func measure(_ domain: inout ReadsDomain) async throws -> Figures {
    var figures = Figures()
    try await domain.start(self.memberCount)
    try await domain.delegate(ReadWay.site, to: self.memberCount)
    try await domain.delegate(ReadWay.store, to: 1, services: "sector")
    try await withClient(domain.profile(startingIn: "/")) { client in
      try await client.makeDirectory(ReadWay.plain)
      for directory in [ReadWay.site, ReadWay.store, ReadWay.plain] {
        try await client.write(Noise.bytes(FileLoads.smallByteCount), to: "\(directory)/small")
        try await FileLoads(client: client, directory: directory, scale: self.scale)
          .writeLarge(to: "\(directory)/large")
      }
    }
    for round in 0..<self.roundCount {
      try Task.checkCancellation()
      Self.progress("reads, round \(round + 1) of \(self.roundCount)")
      try await self.reads(round, domain, &figures)
      try await self.freshReads(domain, &figures)
    }
    try await FindLoads(depth: self.depth, scale: self.scale).measure(&domain, rounds: self.roundCount, &figures)
    return figures
  }

  static func progress(_ text: String) {
    FileHandle.standardError.write(Data("\(text)\n".utf8))
  }

  // MARK: Warm

  /// One round. Its clients are new, so that what one connection has to itself does not weigh on all rounds.
  private func reads(_ round: Int, _ domain: ReadsDomain, _ figures: inout Figures) async throws {
    let profiles = try ReadWay.allCases.map { try domain.profile(startingIn: $0.start) }
    figures = try await Self.withClients(profiles[...]) { [figures] clients in
      var figures = figures
      var readers = zip(ReadWay.allCases, clients).map { ReadLoads(way: $0, client: $1, scale: self.scale) }
      for reader in readers { try await reader.warmUp() }
      let offset = round % readers.count
      readers = Array(readers[offset...] + readers[..<offset])
      try await self.passing(readers, domain, &figures)
      for load in ReadLoad.allCases {
        let times =
          load == .small ? try await self.alternating(readers) : try await Self.inTurn(readers, load)
        self.add(times, of: load, &figures)
      }
      return figures
    }
  }

  /// Seconds a read.
  private typealias Times = [ReadWay: Double]

  private static func inTurn(_ readers: [ReadLoads], _ load: ReadLoad) async throws -> Times {
    var times: Times = [:]
    for reader in readers { times[reader.way] = try await reader.seconds(load) }
    return times
  }

  /// One read at a time, a few of one client and then of the next: the machine's moods meet all of them.
  private func alternating(_ readers: [ReadLoads]) async throws -> Times {
    var times: [ReadWay: [Double]] = [:]
    let deadline = ContinuousClock.now + self.scale.loadDuration * readers.count
    repeat {
      for reader in readers { times[reader.way, default: []] += try await reader.seconds(ofEach: Self.turnCount) }
    } while ContinuousClock.now < deadline
    return times.mapValues { Series(name: "", unit: "", values: $0).median }
  }

  private func add(_ times: Times, of load: ReadLoad, _ figures: inout Figures) {
    for way in ReadWay.allCases {
      guard let time = times[way] else { continue }
      figures.add("\(load.rawValue).\(way.rawValue)", load.value(time), load.unit)
    }
    for (way, other) in ReadWay.pairs {
      guard let time = times[way], let base = times[other] else { continue }
      figures.add("\(load.rawValue).\(way.rawValue)-to-\(other.rawValue)", time / base, "times as long")
    }
  }

  /// How many of a hundred reads over a warm route ask the processes above.
  private func passing(_ readers: [ReadLoads], _ domain: ReadsDomain, _ figures: inout Figures) async throws {
    guard let reader = readers.first(where: { $0.way == .warm }), let calls = domain.calls["/"] else { return }
    let before = try await calls.count(of: Self.readMethod)
    _ = try await reader.seconds(ofEach: 100)
    figures.add("warm.asked-above", Double(try await calls.count(of: Self.readMethod) - before), "of 100 reads")
  }

  private static let readMethod = "blocktree.v1.FilesystemService/Read"

  // MARK: Cold

  /// A client's first read, with its connections.
  private func freshReads(_ domain: ReadsDomain, _ figures: inout Figures) async throws {
    for _ in 0..<Self.freshCount {
      for way in [ReadWay.own, .warm] {
        let before = try await Self.readCounts(domain)
        let profile = try domain.profile(startingIn: way.start)
        let begin = ContinuousClock.now
        let time = try await withClient(profile) { client in
          try await ReadLoads(way: way, client: client, scale: self.scale).readSmall()
          return ContinuousClock.now - begin
        }
        figures.add("cold.from-\(way == .own ? "own" : "above")", time / .milliseconds(1), "ms")
        // Of more processes than one, another one may have been asked.
        guard way == .warm, self.memberCount == 1 else { continue }
        for (name, (after, before)) in zip(["above", "own"], zip(try await Self.readCounts(domain), before)) {
          figures.add("cold.from-above.calls-\(name)", Double(after - before), "calls")
        }
      }
    }
  }

  /// What the root's first process has been called for, and the delegated directory's.
  private static func readCounts(_ domain: ReadsDomain) async throws -> [Int] {
    var counts: [Int] = []
    for directory in ["/", ReadWay.site] {
      guard let calls = domain.calls[directory] else { throw BenchFailure("nobody serves \(directory)") }
      counts.append(try await calls.count(of: self.readMethod))
    }
    return counts
  }

  /// Calls `body` with a client for each profile.
  private static func withClients<Result>(
    _ profiles: ArraySlice<Profile>, _ clients: [Client] = [], _ body: ([Client]) async throws -> Result
  ) async throws -> Result {
    guard let profile = profiles.first else { return try await body(clients) }
    return try await withClient(profile) { client in
      try await self.withClients(profiles.dropFirst(), clients + [client], body)
    }
  }
}

/// Who reads what.
enum ReadWay: String, CaseIterable, Sendable {
  /// What a directory's own processes store and serve, by a client that began at them.
  case own
  /// The same, by a client that began at the root's.
  case warm
  /// As `own`, once more.
  case again
  /// What the root's processes store and serve.
  case above
  /// What they serve, and others store without being able to read it.
  case stored

  static let site = "/site"
  static let store = "/store"
  static let plain = "/plain"

  static let pairs: [(Self, Self)] = [(.warm, .own), (.again, .own), (.stored, .above)]

  /// Where the client begins.
  var start: String {
    switch self {
    case .own, .again: Self.site
    case .warm, .above, .stored: "/"
    }
  }

  /// Where the files are.
  var directory: String {
    switch self {
    case .own, .warm, .again: Self.site
    case .above: Self.plain
    case .stored: Self.store
    }
  }
}

/// How it is read.
enum ReadLoad: String, CaseIterable, Sendable {
  /// 4 KiB, a call each, one at a time.
  case small = "4k.1"
  /// The same, 16 at a time.
  case many = "4k.16"
  /// The same over a session.
  case session = "4k.session.16"
  /// 64 MiB.
  case large

  var unit: String {
    switch self {
    case .small: "µs"
    case .many, .session: "reads/s"
    case .large: "ms"
    }
  }

  /// In that unit.
  func value(_ seconds: Double) -> Double {
    switch self {
    case .small: seconds * 1e6
    case .many, .session: 1 / max(seconds, 1e-9)
    case .large: seconds * 1e3
    }
  }
}
