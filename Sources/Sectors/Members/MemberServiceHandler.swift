// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
package import GRPCCore
package import Raft
package import SectorStore
internal import SwiftProtobuf
internal import Transport
package import Trust

/// What a member serves to the others of its group: takes their messages, and hands them to the receiver on the event
/// loop that they came in on.
///
/// Callers are processes that the cluster admits, known by the verified certificate of their connection. A stream names
/// the member that sends, and is refused when that one is known to be another process, so that no member can speak for
/// another one.
package struct MemberServiceHandler: Blocktree_V1_MemberService.SimpleServiceProtocol {
  /// What the handler needs to know of the process. All functions are called on event loops and must answer from memory.
  package struct Configuration: Sendable {
    package var generation: UInt64
    /// Of the store that changes are meant for.
    package var store: StoreConfiguration
    /// Who this process is; nil when it does not serve. Asked for each call.
    package var identity: @Sendable () -> MemberIdentity?
    /// Whether a process may speak here. Asked for each message of a stream, too: a stream may outlive a credential.
    package var admits: @Sendable (Credential) -> Bool
    /// The member that the process at a path is known as; nil if none is known. Then it is who it says.
    package var memberID: @Sendable (TreePath) -> MemberID?
    /// Refuses whoever belongs to a life of the group that is over.
    package var lives: LifeGuard
    /// Lets the member at a path leave its store behind. Nil where there is no cluster yet. May wait.
    package var release: (@Sendable (TreePath, MemberID?) async throws -> Void)?

    package init(
      generation: UInt64, store: StoreConfiguration, identity: @escaping @Sendable () -> MemberIdentity?,
      admits: @escaping @Sendable (Credential) -> Bool, memberID: @escaping @Sendable (TreePath) -> MemberID?,
      lives: LifeGuard
    ) {
      self.generation = generation
      self.store = store
      self.identity = identity
      self.admits = admits
      self.memberID = memberID
      self.lives = lives
    }
  }

  private let configuration: Configuration
  private let receiver: MemberReceiver
  private let budget = AssemblyBudget()

  package init(_ configuration: Configuration, receiver: MemberReceiver) {
    self.configuration = configuration
    self.receiver = receiver
  }

  package func introduce(
    request: Blocktree_V1_IntroduceRequest, context: ServerContext
  ) async throws -> Blocktree_V1_IntroduceResponse {
    _ = try self.caller(context)
    guard request.hasCaller else { throw MemberError.invalid(field: "caller") }
    let other = try MemberIdentity(request.caller)
    try self.check(generation: other.generation)
    try self.configuration.lives.check(incarnation: other.incarnation.rawValue, warrant: other.warrant)
    guard let identity = self.configuration.identity() else { throw MemberError.notServing }
    return .with { $0.member = .init(identity) }
  }

  package func release(
    request: Blocktree_V1_ReleaseRequest, context: ServerContext
  ) async throws -> Blocktree_V1_ReleaseResponse {
    let caller = try self.caller(context)
    try self.check(generation: request.generation)
    guard let release = self.configuration.release else { throw MemberError.notServing }
    try await release(caller.path, request.member == 0 ? nil : MemberID(request.member))
    return Blocktree_V1_ReleaseResponse()
  }

  package func deliver(
    request: RPCAsyncSequence<Blocktree_V1_DeliverRequest, any Error>, context: ServerContext
  ) async throws -> Blocktree_V1_DeliverResponse {
    let caller = try self.caller(context)
    return try await withThrowingTaskGroup(of: UInt64.self) { tasks in
      tasks.addTask { try await self.receive(request, from: caller) }
      tasks.addTask {
        // The stream would hold up a server that shuts down.
        try await context.cancellation.cancelled
        throw MemberError.notServing
      }
      defer { tasks.cancelAll() }
      let count = try await tasks.next() ?? 0
      return .with { $0.messages = count }
    }
  }

  /// Hands over what comes in, until the sender ends the stream. Returns how many messages that were.
  private func receive(
    _ requests: RPCAsyncSequence<Blocktree_V1_DeliverRequest, any Error>, from caller: Credential
  ) async throws -> UInt64 {
    var assembly = MemberAssembly(self.configuration.store, budget: self.budget)
    var sender: MemberID?
    for try await request in requests {
      guard self.configuration.admits(caller) else { throw MemberError.permissionDenied }
      guard request.hasHeader == (sender == nil) else { throw MemberError.invalid(field: "header") }
      let member = try sender ?? self.sender(request.header, caller)
      sender = member
      try assembly.receive(request) { message, payloads in self.receiver.received(message, payloads, member) }
    }
    return assembly.count
  }

  private func caller(_ context: ServerContext) throws(MemberError) -> Credential {
    guard case .credential(let credential) = context.caller, credential.kind == .process,
      self.configuration.admits(credential)
    else { throw .permissionDenied }
    return credential
  }

  private func check(generation: UInt64) throws(MemberError) {
    guard generation == self.configuration.generation else { throw .wrongGeneration(self.configuration.generation) }
  }

  /// The member that sends, if both ends are who the header says.
  private func sender(
    _ header: Blocktree_V1_DeliverHeader, _ caller: Credential
  ) throws(MemberError) -> MemberID {
    try self.check(generation: header.generation)
    try self.configuration.lives.check(
      incarnation: header.incarnation, warrant: MemberIdentity.warrant(header.warrant))
    guard header.sender != 0 else { throw .invalid(field: "sender") }
    guard header.receiver != 0 else { throw .invalid(field: "receiver") }
    guard let own = self.configuration.identity()?.member else { throw .notServing }
    guard header.receiver == own.rawValue else { throw .wrongMember(.receiver, expected: own) }
    let sender = MemberID(header.sender)
    let known = self.configuration.memberID(caller.path)
    guard sender != own, known == nil || known == sender else { throw .wrongMember(.sender, expected: known) }
    return sender
  }
}
