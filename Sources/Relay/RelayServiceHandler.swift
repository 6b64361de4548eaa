// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import GRPCCore
internal import SwiftProtobuf
internal import Transport
package import Trust

/// The relay service as gRPC clients see it.
package struct RelayServiceHandler: Blocktree_V1_RelayService.SimpleServiceProtocol {
  /// Who somebody is to the process.
  package struct Judge: Sendable {
    /// Whether the credential stands in the tree with this key, as far as is known here.
    package let confirms: @Sendable (Credential) -> Bool
    /// Whether somebody may host a service here.
    package let mayHost: @Sendable (Credential, Service) async throws -> Bool

    package init(
      confirms: @escaping @Sendable (Credential) -> Bool,
      mayHost: @escaping @Sendable (Credential, Service) async throws -> Bool
    ) {
      self.confirms = confirms
      self.mayHost = mayHost
    }
  }

  private let hub: MessageHub
  private let judge: Judge

  package init(_ hub: MessageHub, _ judge: Judge) {
    self.hub = hub
    self.judge = judge
  }

  private func caller(_ context: ServerContext) throws(MessageError) -> Credential {
    guard let credential = context.caller.credential, self.judge.confirms(credential) else { throw .permissionDenied }
    return credential
  }

  package func call(
    request: Blocktree_V1_CallRequest, context: ServerContext
  ) async throws -> Blocktree_V1_CallResponse {
    let caller = try self.caller(context)
    let answer = try await self.hub.call(
      Service(message: request.service), in: TreePath(message: request.scope), from: caller.path,
      MessagePayload(request.payload),
      within: try Duration(timeout: request.timeoutMs) ?? MessageLimits.timeoutDefault)
    return .with { $0.payload = answer.message }
  }

  package func send(
    request: Blocktree_V1_SendRequest, context: ServerContext
  ) async throws -> Blocktree_V1_SendResponse {
    let caller = try self.caller(context)
    try self.hub.send(
      Service(message: request.service), in: TreePath(message: request.scope), from: caller.path,
      MessagePayload(request.payload), lifetime: try Duration(timeout: request.timeoutMs))
    return .init()
  }

  package func attach(
    request: RPCAsyncSequence<Blocktree_V1_AttachRequest, any Error>,
    response: RPCWriter<Blocktree_V1_AttachResponse>, context: ServerContext
  ) async throws {
    let caller = try self.caller(context)
    // The stream would outlast the process's other calls.
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await self.host(request, response, caller) }
      group.addTask {
        await self.hub.ended()
        throw MessageError.stopped
      }
      defer { group.cancelAll() }
      try await group.next()
    }
  }

  private func host(
    _ request: RPCAsyncSequence<Blocktree_V1_AttachRequest, any Error>,
    _ response: RPCWriter<Blocktree_V1_AttachResponse>, _ caller: Credential
  ) async throws {
    var requests = request.makeAsyncIterator()
    guard case .registration(let registration)? = try await requests.next()?.request else {
      throw MessageError.invalid(field: "registration")
    }
    let services = try await self.services(registration, of: caller)
    let concurrency = registration.concurrency == 0 ? MessageLimits.concurrencyDefault : Int(registration.concurrency)
    guard concurrency <= MessageLimits.concurrencyMax else { throw MessageError.invalid(field: "concurrency") }
    // Before any message can come.
    let scope = self.hub.scope
    try await response.write(.with { $0.registered.scope = scope.description })
    try await self.hub.attaching(
      services, of: caller.path, concurrency: concurrency,
      hand: { message, call in try await response.write(.with { $0.message = message.message(call: call) }) }
    ) { attachment in
      while let next = try await requests.next(isolation: #isolation) { try Self.take(next, for: attachment) }
    }
  }

  private static func take(_ request: Blocktree_V1_AttachRequest, for attachment: Attachment) throws(MessageError) {
    guard case .reply(let reply)? = request.request else { throw .invalid(field: "request") }
    switch reply.reply {
    case .payload(let payload): attachment.reply(.payload(try MessagePayload(payload)), to: reply.call)
    case .refusal(let why):
      guard why.utf8.count <= MessageLimits.refusalByteCountMax else {
        throw .tooLarge(field: "refusal", limit: MessageLimits.refusalByteCountMax, found: why.utf8.count)
      }
      attachment.reply(.refusal(why), to: reply.call)
    case nil: throw .invalid(field: "reply")
    }
  }

  private func services(
    _ registration: Blocktree_V1_Registration, of caller: Credential
  ) async throws -> [Service] {
    guard (1...MessageLimits.servicesMax).contains(registration.services.count) else {
      throw MessageError.invalid(field: "services")
    }
    var services: [Service] = []
    for name in registration.services {
      let service = try Service(message: name)
      guard !Service.all.contains(service), !services.contains(service) else {
        throw MessageError.invalid(field: "services")
      }
      guard try await self.judge.mayHost(caller, service) else { throw MessageError.permissionDenied }
      services.append(service)
    }
    return services
  }
}

extension Service {
  fileprivate init(message name: String) throws(MessageError) {
    do { self = try Service(name) } catch { throw .invalid(field: "service") }
  }
}

extension TreePath {
  fileprivate init(message text: String) throws(MessageError) {
    do { self = try TreePath(parsing: text) } catch { throw .invalid(field: "scope") }
  }
}

extension Duration {
  /// Nil when nothing is said.
  fileprivate init?(timeout milliseconds: UInt32) throws(MessageError) {
    guard milliseconds > 0 else { return nil }
    self = .milliseconds(Int64(milliseconds))
    guard self <= MessageLimits.timeoutMax else { throw .invalid(field: "timeout_ms") }
  }
}

extension MessagePayload {
  init(_ message: Blocktree_V1_Payload) throws(MessageError) {
    let (name, data) = (message.typeName, message.data)
    guard name.utf8.count <= MessageLimits.typeNameByteCountMax else {
      throw .tooLarge(field: "type_name", limit: MessageLimits.typeNameByteCountMax, found: name.utf8.count)
    }
    guard data.count <= MessageLimits.payloadByteCountMax else {
      throw .tooLarge(field: "data", limit: MessageLimits.payloadByteCountMax, found: data.count)
    }
    self.init(typeName: name, bytes: Array(data))
  }

  var message: Blocktree_V1_Payload {
    .with {
      $0.typeName = self.typeName
      $0.data = Data(self.bytes)
    }
  }
}

extension IncomingMessage {
  fileprivate func message(call: UInt64) -> Blocktree_V1_Message {
    .with {
      $0.call = call
      $0.service = self.service.name
      $0.sender = self.sender.description
      $0.payload = self.payload.message
      guard let deadline else { return }
      let left = ContinuousClock.now.duration(to: deadline).components
      let milliseconds = left.seconds * 1_000 + left.attoseconds / 1_000_000_000_000_000
      $0.timeLeftMs = UInt32(clamping: max(1, milliseconds))
    }
  }
}
