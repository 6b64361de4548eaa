// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
internal import GRPCCore
internal import SwiftProtobuf
private import Synchronization
internal import Transport
internal import Trust

/// What is said to a service, or answered.
public struct MessagePayload: Hashable, Sendable {
  /// The full name of a protobuf message, or whatever tells those who understand it what the bytes are; at most 255
  /// bytes.
  public var typeName: String
  /// At most 1 MiB.
  public var bytes: [UInt8]

  public init(typeName: String = "", bytes: [UInt8]) {
    self.typeName = typeName
    self.bytes = bytes
  }
}

/// A message that a program is given.
public struct ReceivedMessage: Hashable, Sendable {
  public var service: String
  /// The path of the principal that sent it, as the process has verified it.
  public var sender: String
  public var payload: MessagePayload
  /// Whether the sender waits for a reply.
  public var isCall: Bool
  /// For how long the sender waits, or the message is of use; nil for no limit.
  public var timeLeft: Duration?
}

/// What a service throws that does not answer a call: the caller gets ``BlocktreeError/Reason/messageRefused``.
public struct MessageRefusal: Error, Hashable, Sendable {
  /// For people to read, at most 1,024 bytes.
  public var reason: String

  public init(_ reason: String) { self.reason = reason }
}

extension Client {
  /// Asks a service that a program hosts, and waits for its answer. It is handled once at most.
  ///
  /// The processes of the scope are asked in turn whether the service is hosted there, beginning with any; for the
  /// nearest ones, then those of the directories above.
  ///
  /// - Parameters:
  ///   - scope: a directory for `contained`, any path for `nearest`.
  ///   - patience: how long the answer may take, at most ten minutes.
  /// - Throws: ``BlocktreeError``, with the reason ``BlocktreeError/Reason/noSuchService`` when nobody hosts it;
  ///   `mailboxFull`, `messageExpired`, `actorStopped` or `messageRefused`.
  public func call(
    _ service: String, _ kind: FindKind = .contained, scope: String, _ payload: MessagePayload,
    patience: Duration = .seconds(10)
  ) async throws -> MessagePayload {
    let milliseconds = Self.milliseconds(patience)
    let answer = try await self.message(service, kind, scope, timeout: patience) { connection, scope, options in
      let request = Blocktree_V1_CallRequest.with {
        $0.scope = scope
        $0.service = service
        $0.payload = payload.message
        $0.timeoutMs = milliseconds
      }
      return try await connection.relay.call(request, options: options).payload
    }
    return MessagePayload(answer)
  }

  /// Tells a service something. When this returns, the message waits for whoever hosts the service.
  ///
  /// - Parameters:
  ///   - lifetime: for how long it is of use, at most ten minutes; nil for as long as it takes.
  /// - Throws: as `call`.
  public func send(
    _ service: String, _ kind: FindKind = .contained, scope: String, _ payload: MessagePayload,
    lifetime: Duration? = nil
  ) async throws {
    let milliseconds = lifetime.map { Self.milliseconds($0) } ?? 0
    try await self.message(service, kind, scope, timeout: self.timeout) { connection, scope, options in
      let request = Blocktree_V1_SendRequest.with {
        $0.scope = scope
        $0.service = service
        $0.payload = payload.message
        $0.timeoutMs = milliseconds
      }
      _ = try await connection.relay.send(request, options: options)
    }
  }

  private static func milliseconds(_ duration: Duration) -> UInt32 {
    UInt32(
      clamping: max(1, duration.components.seconds * 1_000 + duration.components.attoseconds / 1_000_000_000_000_000))
  }

  /// Longer than the process waits, so that its own word comes first.
  private static let margin = Duration.seconds(2)
  /// Directories that are looked at for the nearest ones.
  private static let directoryCountMax = 64

  private func message<Answer: Sendable>(
    _ service: String, _ kind: FindKind, _ scope: String, timeout: Duration?,
    _ body: @Sendable (NodeConnection, String, CallOptions) async throws -> Answer
  ) async throws -> Answer {
    var next = try self.treePath(scope)
    var options = CallOptions.defaults
    options.timeout = timeout.map { $0 + Self.margin }
    // Of a process that could not be asked it is not known whether the service is there.
    var missed: BlocktreeError?
    for _ in 0..<Self.directoryCountMax {
      let found = try await self.find(kind, service: nil, scope: next).found
      guard let directory = found.directory else { break }
      for process in found.processes.shuffled() {
        guard let connection = try await self.connection(to: process) else {
          missed = BlocktreeError(
            code: .unavailable, reason: .peerUnreachable, message: "can not reach \(process.path)", retry: .elsewhere)
          continue
        }
        do {
          return try await body(connection, directory, options)
        } catch {
          try Task.checkCancellation()
          let error = try BlocktreeError(thrown: error)
          guard error.reason == .noSuchService || error.code == .unimplemented else { throw error }
        }
      }
      guard kind == .nearest, let above = (try? TreePath(parsing: directory))?.parent else { break }
      next = above.description
    }
    if let missed { throw missed }
    throw BlocktreeError(
      code: .notFound, reason: .noSuchService, message: "nobody hosts the service \(service) there",
      metadata: ["scope": scope])
  }

  /// A connection to one process; nil when it answers at none of its addresses.
  private func connection(to process: FoundProcess) async throws -> NodeConnection? {
    guard let path = try? TreePath(parsing: process.path) else { return nil }
    for address in process.addresses.compactMap({ try? NetworkAddress(parsing: $0) }) {
      do { return try await self.core.shared.pool.connection(to: address, expecting: path) } catch {
        try Task.checkCancellation()
      }
    }
    return nil
  }

  // MARK: Hosting

  /// Hosts services at a process of a directory until the task is cancelled. While the process can not be reached, or has
  /// ended, another one is tried, again and again.
  ///
  /// - Parameters:
  ///   - directory: whose processes they are, which is what others know the services by.
  ///   - concurrency: messages that are handled at a time, 1 to 256.
  ///   - attached: called each time that the services can be reached, with the path of the process.
  ///   - handle: answers a message; of what is not a call the answer is dropped. A `MessageRefusal` is passed on to the
  ///     caller; other errors are, too, but not what they say.
  /// - Throws: ``BlocktreeError`` when the caller may not host the services, or there is no such directory;
  ///   `CancellationError`.
  public func host(
    _ services: [String], in directory: String, concurrency: Int = 16,
    attached: @escaping @Sendable (String) -> Void = { _ in },
    _ handle: @escaping @Sendable (ReceivedMessage) async throws -> MessagePayload
  ) async throws {
    let scope = try self.treePath(directory)
    var pause = Self.hostPause
    while true {
      let isAttached = Mutex(false)
      do {
        let found = try await self.find(.contained, service: nil, scope: scope).found
        for process in found.processes.shuffled() {
          guard let connection = try await self.connection(to: process) else { continue }
          do {
            try await self.host(services, concurrency, at: connection, handle) {
              isAttached.withLock { $0 = true }
              attached(process.path)
            }
          } catch {
            try Self.requireTransient(error)
          }
        }
      } catch {
        try Self.requireTransient(error)
      }
      if isAttached.withLock({ $0 }) { pause = Self.hostPause }
      try await Task.sleep(for: pause)
      pause = min(pause * 2, Self.hostPauseMax)
    }
  }

  /// Throws what does not get better by waiting: what is not allowed, is not there, or makes no sense.
  private static func requireTransient(_ error: any Error) throws {
    try Task.checkCancellation()
    let error = try BlocktreeError(thrown: error)
    switch error.code {
    case .permissionDenied, .invalidArgument, .notFound: throw error
    default: break
    }
  }

  private static let hostPause = Duration.milliseconds(250)
  private static let hostPauseMax = Duration.seconds(4)

  private func host(
    _ services: [String], _ concurrency: Int, at connection: NodeConnection,
    _ handle: @escaping @Sendable (ReceivedMessage) async throws -> MessagePayload,
    attached: @escaping @Sendable () -> Void
  ) async throws {
    let concurrency = max(1, concurrency)
    let (replies, reply) = AsyncStream<Blocktree_V1_AttachRequest>.makeStream()
    let registration = Blocktree_V1_AttachRequest.with {
      $0.registration.services = services
      $0.registration.concurrency = UInt32(clamping: concurrency)
    }
    try await connection.relay.attach(options: .defaults) { writer in
      try await writer.write(registration)
      for await reply in replies { try await writer.write(reply) }
    } onResponse: { response in
      defer { reply.finish() }
      try await withThrowingTaskGroup(of: Void.self) { group in
        var count = 0
        for try await next in response.messages {
          switch next.response {
          case .registered: attached()
          case .message(let message):
            // What is only told is not held back by the process: here it is.
            if count >= concurrency {
              try await group.next()
              count -= 1
            }
            count += 1
            group.addTask {
              let answer = await Self.answer(message, handle)
              if let answer { reply.yield(.with { $0.reply = answer }) }
            }
          case nil: throw BlocktreeError.malformedAnswer("response")
          }
        }
        group.cancelAll()
      }
    }
  }

  private static let payloadByteCountMax = 1 << 20

  private static func answer(
    _ message: Blocktree_V1_Message, _ handle: @Sendable (ReceivedMessage) async throws -> MessagePayload
  ) async -> Blocktree_V1_Reply? {
    let received = ReceivedMessage(
      service: message.service, sender: message.sender, payload: MessagePayload(message.payload),
      isCall: message.call != 0,
      timeLeft: message.timeLeftMs == 0 ? nil : .milliseconds(Int64(message.timeLeftMs)))
    var reply = Blocktree_V1_Reply()
    reply.call = message.call
    do {
      let answer = try await handle(received)
      guard answer.bytes.count <= Self.payloadByteCountMax else { throw MessageRefusal("the answer is too large") }
      reply.payload = answer.message
    } catch let refusal as MessageRefusal {
      reply.refusal = String(decoding: refusal.reason.utf8.prefix(1_000), as: UTF8.self)
    } catch {
      reply.refusal = ""
    }
    return message.call == 0 ? nil : reply
  }
}

extension MessagePayload {
  fileprivate init(_ message: Blocktree_V1_Payload) {
    self.init(typeName: message.typeName, bytes: Array(message.data))
  }

  fileprivate var message: Blocktree_V1_Payload {
    .with {
      $0.typeName = self.typeName
      $0.data = Data(self.bytes)
    }
  }
}

extension NodeConnection {
  fileprivate var relay: some Blocktree_V1_RelayService.ClientProtocol {
    Blocktree_V1_RelayService.Client(wrapping: self.client)
  }
}

extension BlocktreeError.Reason {
  /// Nobody hosts the service.
  public static let noSuchService = BlocktreeError.Reason(rawValue: "NO_SUCH_SERVICE")
  /// As many messages wait for whoever hosts the service as may: try again in a moment.
  public static let mailboxFull = BlocktreeError.Reason(rawValue: "MAILBOX_FULL")
  /// No answer came in time. The message may have been handled.
  public static let messageExpired = BlocktreeError.Reason(rawValue: "MESSAGE_EXPIRED")
  /// Whoever hosts the service ended before it answered. The message may have been handled.
  public static let actorStopped = BlocktreeError.Reason(rawValue: "ACTOR_STOPPED")
  /// Whoever hosts the service does not answer this. Metadata: `refusal`, what it says.
  public static let messageRefused = BlocktreeError.Reason(rawValue: "MESSAGE_REFUSED")
}
