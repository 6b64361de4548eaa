// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import Routes
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Which processes are looked for.
public enum FindKind: Hashable, Sendable {
  /// All whose credentials lie directly in the scope.
  case contained
  /// Those in the closest directory at or above the scope that has any.
  case nearest
}

/// A process that was found.
public struct FoundProcess: Hashable, Sendable {
  /// Of its credential.
  public var path: String
  /// The names of those that it hosts.
  public var services: [String]
  /// Where it says that it can be reached, `host:port`.
  public var addresses: [String]
}

/// Processes of one directory.
public struct FoundProcesses: Hashable, Sendable {
  /// Nil when there are none.
  public var directory: String?
  public var processes: [FoundProcess]
  /// For how long this may be remembered.
  public var lifetime: Duration
  /// Whether it comes from a copy that could not be compared with the directory's own cluster.
  public var isStale: Bool
}

/// A step on the way to an answer.
public struct FindStep: Hashable, Sendable {
  public enum Event: Hashable, Sendable {
    /// Processes of the directory are asked, as a route leads there that was known before, or else a redirect.
    case asking(isKnown: Bool)
    /// They say that those of this directory know more, for so long; and how many processes they name.
    case redirected(to: String, processCount: Int, lifetime: Duration)
    /// None of them could be reached.
    case unreachable(String)
    /// They have answered.
    case answered
    /// The answer of a former find is remembered, for so long: nobody is asked.
    case remembered(lifetime: Duration)
    /// They know of none; what another one has said on the way holds.
    case fallback(to: String)
  }

  public var directory: String
  /// Who answered.
  public var process: String?
  public var event: Event

  public init(directory: String, process: String?, event: Event) {
    self.directory = directory
    self.process = process
    self.event = event
  }
}

/// What a query found, and how.
public struct FindResult: Hashable, Sendable {
  public var found: FoundProcesses
  public var steps: [FindStep]
}

/// A route that a process remembers.
public struct KnownRoute: Hashable, Sendable {
  /// The directory.
  public var scope: String
  public var service: String
  /// None: it is known that nobody hosts the service there.
  public var processes: [FoundProcess]
  /// For how long it is still remembered.
  public var lifetime: Duration
}

extension Client {
  /// Finds processes that host a service.
  ///
  /// What was found is remembered for as long as the answer says: up to 30 seconds, and 2 when there was nobody. Until
  /// then nobody is asked again, unless a process of the directory could not be reached by this client. Equal queries at
  /// the same time are asked once.
  ///
  /// - Parameters:
  ///   - service: its name; nil for any.
  ///   - scope: a path, of a file or directory.
  ///   - refresh: whether to ask anew, whatever is remembered: for when the processes that were found do not serve.
  public func find(
    _ kind: FindKind, service: String?, scope: String, refresh: Bool = false
  ) async throws -> FindResult {
    let path = try self.treePath(scope)
    guard let parsed = try? TreePath(parsing: path) else { throw BlocktreeError.invalidPath("malformed", path: scope) }
    let named = service.flatMap { try? Service($0) }
    // It is for the others to say what they think of names that are none.
    guard service == nil || named != nil else { return try await self.ask(kind, service, path, parsed).result }
    let query = FindQuery(kind: kind == .contained ? .contained : .nearest, service: named, scope: parsed)
    return try await self.core.shared.answers.find(query, timeout: self.timeout, refresh: refresh) {
      try await self.ask(kind, service, path, parsed)
    }
  }

  private func ask(
    _ kind: FindKind, _ service: String?, _ path: String, _ parsed: TreePath
  ) async throws -> FindAnswers.Answer {
    var query = Query(kind: kind, service: service, path: path)
    var search = RouteSearch(parsed)
    var found = try await self.ask(&query, &search)
    // A route that was known has led past those who would have said what there is above.
    if kind == .nearest, found.processes.isEmpty, query.above == nil, let first = query.first, !first.isRoot {
      search = RouteSearch(parsed, avoiding: [first])
      found = try await self.ask(&query, &search)
    }
    var steps = query.steps
    var lifetime = query.emptyLifetime
    if kind == .nearest, found.processes.isEmpty, let above = query.above, let directory = above.directory {
      steps.append(FindStep(directory: query.asked, process: nil, event: .fallback(to: directory)))
      found = above
    } else if found.processes.isEmpty, let above = query.above {
      lifetime = min(above.lifetime, lifetime ?? above.lifetime)
    }
    if let directory = found.directory.flatMap({ try? TreePath(parsing: $0) }) {
      let isInScope = kind == .contained ? directory == parsed : directory.isSameOrAncestor(of: parsed)
      guard isInScope else { throw BlocktreeError.malformedAnswer("directory") }
    }
    var learned: (Found, top: TreePath)?
    if query.isOnTheWay, let top = query.top { learned = Found(found, within: lifetime).map { ($0, top) } }
    return FindAnswers.Answer(result: FindResult(found: found, steps: steps), learned: learned)
  }

  /// A query and what has become of it.
  private struct Query {
    let kind: FindKind
    let service: String?
    let path: String
    var steps: [FindStep] = []
    /// Who is asked at the moment, and was first.
    var asked = ""
    var first: TreePath?
    /// What has been said on the way, in case nobody deeper knows a nearer one.
    var above: FoundProcesses?
    /// The highest directory whose processes have said who is nearest there.
    var top: TreePath?
    /// Whether all who have answered are at or above the scope. What others say of it is not remembered.
    var isOnTheWay = true
    /// How long it may be remembered that there is nobody where there was none.
    var emptyLifetime: Duration?

    mutating func answered(by directory: TreePath, at scope: TreePath) {
      guard directory.isSameOrAncestor(of: scope) else { return self.isOnTheWay = false }
      self.top = self.top.map { $0.depth < directory.depth ? $0 : directory } ?? directory
    }

    mutating func note(_ event: RouteEvent) {
      if case .asking(let directory, _) = event {
        self.asked = "\(directory)"
        if self.first == nil { self.first = directory }
      }
      self.steps.append(FindStep(event, at: self.asked))
    }
  }

  private func ask(_ query: inout Query, _ search: inout RouteSearch) async throws -> FoundProcesses {
    let request = Blocktree_V1_FindRequest.with {
      $0.scope = query.path
      $0.service = query.service ?? ""
      $0.kind = query.kind == .contained ? .contained : .nearest
    }
    let scope = search.original
    return try await self.core.routed(
      &search, .queries, timeout: self.timeout, isMutation: false, observe: { query.note($0) }
    ) { attempt in
      let response = try await attempt.call { connection, options in
        try await connection.discovery.find(request, options: options)
      }
      switch response.answer {
      case .found(let answer):
        let found = try FoundProcesses(answer)
        // Of those above, whoever answers knows nothing.
        let isBelievable = query.kind == .contained || found.isBelievable(from: attempt.cluster.scope)
        query.answered(by: attempt.cluster.scope, at: scope)
        if found.processes.isEmpty || !isBelievable {
          query.emptyLifetime = min(found.lifetime, query.emptyLifetime ?? found.lifetime)
        }
        return isBelievable ? found : found.none
      case .redirect(let redirect):
        if query.kind == .nearest, redirect.hasNearestAbove {
          let above = try FoundProcesses(redirect.nearestAbove)
          if above.isBelievable(from: attempt.cluster.scope) {
            query.above = above
            query.answered(by: attempt.cluster.scope, at: scope)
          }
        }
        throw RedirectedAnswer(redirection: try ClientRedirection(redirect))
      case nil: throw BlocktreeError.malformedAnswer("answer")
      }
    }
  }

  /// What the process that answers remembers of who serves what. For whoever owns the directory that its credential lies
  /// in.
  ///
  /// - Parameter count: routes at most, up to 1,000.
  public func knownRoutes(_ count: Int = 1000) async throws -> (routes: [KnownRoute], total: UInt64) {
    let response = try await self.core.call(timeout: self.timeout) { connection, options in
      try await connection.discovery.listRoutes(.with { $0.count = UInt32(clamping: count) }, options: options)
    }
    guard response.routes.count <= 1000 else { throw BlocktreeError.malformedAnswer("routes") }
    let routes = try response.routes.map { (route) throws(BlocktreeError) in
      KnownRoute(
        scope: route.scope, service: route.service, processes: try FoundProcess.all(route.processes),
        lifetime: .milliseconds(Int64(route.lifetimeMs)))
    }
    return (routes, response.total)
  }

  /// The credential file at a path, as the cluster that stores it has it: in the encoding of the Trust module; nil when
  /// there is none.
  package func readCredential(_ path: String) async throws -> [UInt8]? {
    let path = try self.treePath(path)
    guard let parsed = try? TreePath(parsing: path) else { throw BlocktreeError.invalidPath("malformed", path: path) }
    var search = RouteSearch(parsed)
    return try await self.core.routed(&search, .queries, timeout: self.timeout, isMutation: false) { attempt in
      let response = try await attempt.call { connection, options in
        try await connection.discovery.readCredential(.with { $0.path = path }, options: options)
      }
      switch response.answer {
      case .credential(let answer): return answer.credential.isEmpty ? nil : Array(answer.credential)
      case .redirect(let redirect): throw RedirectedAnswer(redirection: try ClientRedirection(redirect))
      case nil: throw BlocktreeError.malformedAnswer("answer")
      }
    }
  }
}

extension NodeConnection {
  fileprivate var discovery: some Blocktree_V1_DiscoveryService.ClientProtocol {
    Blocktree_V1_DiscoveryService.Client(wrapping: self.client)
  }
}

extension FindStep {
  fileprivate init(_ event: RouteEvent, at directory: String) {
    switch event {
    case .asking(let directory, let isKnown):
      self.init(directory: "\(directory)", process: nil, event: .asking(isKnown: isKnown))
    case .redirected(let redirection, let process):
      self.init(
        directory: directory, process: process?.description,
        event: .redirected(
          to: "\(redirection.directory)", processCount: redirection.processes.count, lifetime: redirection.lifetime))
    case .unreachable(let error):
      self.init(directory: directory, process: nil, event: .unreachable(error.message))
    case .answered(let process):
      self.init(directory: directory, process: process?.description, event: .answered)
    }
  }
}

// MARK: Schema

extension FoundProcess {
  private static var countMax: Int { 256 }
  private static var serviceCountMax: Int { 64 }
  private static var addressCountMax: Int { 16 }

  fileprivate init(_ message: Blocktree_V1_FoundProcess) throws(BlocktreeError) {
    guard (try? TreePath(parsing: message.path)) != nil else { throw .malformedAnswer("path") }
    guard message.services.count <= Self.serviceCountMax, message.addresses.count <= Self.addressCountMax else {
      throw .malformedAnswer("processes")
    }
    self.init(path: message.path, services: message.services, addresses: message.addresses)
  }

  fileprivate static func all(_ messages: [Blocktree_V1_FoundProcess]) throws(BlocktreeError) -> [FoundProcess] {
    guard messages.count <= Self.countMax else { throw .malformedAnswer("processes") }
    var processes: [FoundProcess] = []
    for message in messages { processes.append(try FoundProcess(message)) }
    return processes
  }
}

extension FoundProcesses {
  /// Whether processes of a directory may know that: it is about this directory or a deeper one, or about none.
  fileprivate func isBelievable(from answering: TreePath) -> Bool {
    guard let directory = self.directory.flatMap({ try? TreePath(parsing: $0) }) else { return true }
    return answering.isSameOrAncestor(of: directory)
  }

  /// That there are none.
  fileprivate var none: FoundProcesses {
    FoundProcesses(directory: nil, processes: [], lifetime: self.lifetime, isStale: self.isStale)
  }

  fileprivate init(_ message: Blocktree_V1_FoundProcesses) throws(BlocktreeError) {
    let processes = try FoundProcess.all(message.processes)
    if !processes.isEmpty {
      guard let directory = try? TreePath(parsing: message.directory),
        processes.allSatisfy({ (try? TreePath(parsing: $0.path))?.parent == directory })
      else { throw .malformedAnswer("directory") }
    }
    self.init(
      directory: processes.isEmpty ? nil : message.directory, processes: processes,
      lifetime: .milliseconds(Int64(message.lifetimeMs)), isStale: message.isStale)
  }
}

extension ClientRedirection {
  fileprivate init(_ message: Blocktree_V1_Redirect) throws(BlocktreeError) {
    guard let directory = try? TreePath(parsing: message.directory) else { throw .malformedAnswer("directory") }
    guard message.processes.count <= Self.processCountMax else { throw .malformedAnswer("processes") }
    var hints: [ProcessHint] = []
    for process in message.processes {
      guard let path = try? TreePath(parsing: process.path), path.parent == directory, process.addresses.count <= 16
      else { throw .malformedAnswer("processes") }
      var addresses: [NetworkAddress] = []
      for text in process.addresses {
        guard let address = try? NetworkAddress(parsing: text) else { throw .malformedAnswer("addresses") }
        addresses.append(address)
      }
      hints.append(ProcessHint(path: path, addresses: addresses))
    }
    self.init(directory: directory, processes: hints, lifetime: .milliseconds(Int64(message.lifetimeMs)))
  }
}
