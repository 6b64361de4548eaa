// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// One try of an operation, at one cluster.
struct ClusterAttempt {
  let cluster: ClusterCore
  /// What to ask for there: symbolic links may have led on from what the caller has named.
  let path: String
  /// What is left of the operation's time; nil for no limit.
  let timeout: Duration?
  var trace: CallTrace

  /// Makes a call there, again if need be; see ``ClusterCore/call(timeout:isRepeatable:isReplayable:_:)``.
  mutating func call<Result>(
    isRepeatable: () -> Bool = { true }, isReplayable: () -> Bool = { true },
    _ body: (NodeConnection, CallOptions) async throws -> Result
  ) async throws -> Result {
    try await self.cluster.call(
      timeout: self.timeout, &self.trace, isRepeatable: isRepeatable, isReplayable: isReplayable, body)
  }
}

/// Others answer: what a process says in an answer that is no error.
struct RedirectedAnswer: Error {
  let redirection: ClientRedirection
}

/// What happens on an operation's way.
enum RouteEvent {
  /// - `isKnown`: whether a route led there that was known before; otherwise a redirect did.
  case asking(TreePath, isKnown: Bool)
  case redirected(ClientRedirection, by: TreePath?)
  case unreachable(BlocktreeError)
  case answered(by: TreePath?)
}

extension ClientCore {
  /// Performs an operation on a path at the cluster that serves it, following redirects.
  ///
  /// - Parameters:
  ///   - levels: see ``RouteSearch/init(_:levels:)``.
  ///   - timeout: for everything together; nil for no limit.
  ///   - isMutation: whether it changes something. It is done by one cluster then, or by none.
  ///   - attempt: does it at one cluster. It is called again, with another one, when nothing was done there.
  func routed<Result>(
    _ path: String, levels: Int = 0, timeout: Duration?, isMutation: Bool,
    _ attempt: (inout ClusterAttempt) async throws -> Result
  ) async throws -> Result {
    guard let parsed = try? TreePath(parsing: path) else { throw BlocktreeError.invalidPath("malformed", path: path) }
    var search = RouteSearch(parsed, levels: levels)
    return try await self.routed(&search, timeout: timeout, isMutation: isMutation, attempt)
  }

  /// The same.
  ///
  /// - Parameters:
  ///   - search: says afterwards which way the operation went.
  ///   - observe: hears of it meanwhile.
  func routed<Result>(
    _ search: inout RouteSearch, _ kind: CallKind = .files, timeout: Duration?, isMutation: Bool,
    observe: (RouteEvent) -> Void = { _ in }, _ attempt: (inout ClusterAttempt) async throws -> Result
  ) async throws -> Result {
    let deadline = timeout.map { ContinuousClock.now + $0 }
    if isMutation { search.confine() }
    var hasBootstrapped = false
    while true {
      guard let (step, cluster) = self.next(search, kind) else { throw BlocktreeError.closed }
      let remaining = deadline.map { $0 - ContinuousClock.now }
      if let remaining, remaining <= .zero { throw BlocktreeError.deadlineExceeded }
      observe(.asking(step.directory, isKnown: !search.isRedirected))
      // Where nobody can be reached, others may be found by DNS: that is not to be waited for.
      let mayBootstrap = !hasBootstrapped && self.mayBootstrap(kind)
      var now = ClusterAttempt(
        cluster: cluster, path: search.path.description, timeout: remaining,
        trace: CallTrace(isPatient: step.isPatient && !mayBootstrap, isMutation: isMutation))
      do {
        let result = try await attempt(&now)
        self.identify()
        if !search.isRedirected { self.confirmed(step, kind) }
        observe(.answered(by: now.trace.process))
        return result
      } catch let answer as RedirectedAnswer {
        self.identify()
        try search.redirected(answer.redirection, by: cluster.scope)
        observe(.redirected(answer.redirection, by: now.trace.process))
        self.learn(answer.redirection, by: cluster.scope, kind)
      } catch let error as BlocktreeError {
        self.identify()
        if mayBootstrap, now.trace.isUnreachable, !(isMutation && now.trace.mayBeDone) {
          observe(.unreachable(error))
          hasBootstrapped = true
          self.supposeRoot(kind)
          _ = search.failed(RouteSearch.Step(directory: step.directory, isPatient: false))
          continue
        }
        try self.proceed(after: error, at: step, kind, now, &search, observe)
      }
    }
  }

  /// Returns when there is another step to take; throws what the operation fails with.
  private func proceed(
    after error: BlocktreeError, at step: RouteSearch.Step, _ kind: CallKind, _ attempt: ClusterAttempt,
    _ search: inout RouteSearch, _ observe: (RouteEvent) -> Void
  ) throws(BlocktreeError) {
    let mayBeDone = attempt.trace.isMutation && attempt.trace.mayBeDone
    // One that leads nowhere has been found to already, where the operation is one of several.
    if error.metadata["rule"] == nil, let redirection = try ClientRedirection(error) {
      // A former try, at a process that did not answer, may have done it: then it must not be done elsewhere as well.
      if mayBeDone { throw BlocktreeError.unsettled(search.original) }
      try search.redirected(redirection, by: attempt.cluster.scope)
      observe(.redirected(redirection, by: attempt.trace.process))
      return self.learn(redirection, by: attempt.cluster.scope, kind)
    }
    if attempt.trace.isUnreachable, !mayBeDone {
      observe(.unreachable(error))
      self.lost(step, kind)
      if search.failed(step) { return }
    }
    let named = search.path == search.original ? error : error.naming(search.original, insteadOf: search.path)
    throw attempt.trace.isUnreachable ? named.unreachable(of: attempt.cluster.scope) : named
  }

  /// Finds the process that does a change at a path before a call is made that can not be made twice.
  ///
  /// - Returns: the path to ask for: links may have led on.
  func settle(_ path: String, timeout: Duration?) async throws -> String {
    guard let parsed = try? TreePath(parsing: path) else { throw BlocktreeError.invalidPath("malformed", path: path) }
    var search = RouteSearch(parsed, isConfined: true)
    do {
      _ = try await self.routed(&search, timeout: timeout, isMutation: false) { attempt in
        let path = attempt.path
        return try await attempt.call { connection, options in
          try await connection.filesystem.statFilesystem(.with { $0.path = path }, options: options)
        }
      }
    } catch let error as BlocktreeError where !error.isTransient && error.code != .deadlineExceeded {
      // Whoever has an opinion is the one.
      if error.reason == .redirected { throw error }
    }
    return search.path.description
  }
}

extension BlocktreeError {
  /// Says which directory it is whose processes can not be reached.
  fileprivate func unreachable(of directory: TreePath) -> BlocktreeError {
    var metadata = self.metadata
    metadata["directory"] = "\(directory)"
    return BlocktreeError(
      code: self.code, reason: self.reason, message: "no process of \(directory) can be reached: \(self.message)",
      metadata: metadata, retry: self.retry, retryDelay: self.retryDelay)
  }

  /// An operation may have been done by processes that do not answer for its path any more.
  fileprivate static func unsettled(_ path: TreePath) -> BlocktreeError {
    BlocktreeError(
      code: .unavailable, reason: .sessionUnknown,
      message: "The path was handed to another cluster meanwhile; whether this was done can not be told.",
      metadata: ["path": "\(path)"])
  }

  /// The same with the path that the caller knows.
  fileprivate func naming(_ original: TreePath, insteadOf path: TreePath) -> BlocktreeError {
    guard self.metadata["path"] == "\(path)" else { return self }
    var metadata = self.metadata
    metadata["path"] = "\(original)"
    return BlocktreeError(
      code: self.code, reason: self.reason, message: self.message, metadata: metadata, retry: self.retry,
      retryDelay: self.retryDelay)
  }
}
