// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import GRPCProtobuf
import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing
import Trust

@testable import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

// MARK: Certificates

/// A domain with its root key, to certify whatever a test needs.
struct TestDomain {
  let authority: CertificateAuthority

  init() throws {
    self.authority = try CertificateAuthority(newRoot: SigningKey(), at: .now)
  }

  var root: RootCertificate { self.authority.root }

  func identity(
    _ kind: Credential.Kind, _ path: String, lifetime: Duration = .seconds(3600)
  ) throws -> TransportSecurity.Identity {
    try self.identity(kind, path, validity: Validity(from: .now, lifetime: lifetime))
  }

  func identity(
    _ kind: Credential.Kind, _ path: String, validity: Validity
  ) throws -> TransportSecurity.Identity {
    let key = SigningKey()
    let chain = try self.authority.issueCredential(
      kind, at: TreePath(parsing: path), key: key.verifyingKey, validity: validity)
    return TransportSecurity.Identity(chain: chain, key: key)
  }

  /// A credential at `path` that an authority for `directory` has issued, though that is not above `path`.
  func stray(_ path: String, issuedBy directory: String) throws -> TransportSecurity.Identity {
    let validity = Validity(from: .now, lifetime: .seconds(3600))
    let authorityKey = SigningKey()
    func authority(_ path: TreePath) throws -> CertificateAuthority {
      let chain = try self.authority.issueAuthority(for: path, key: authorityKey.verifyingKey, validity: validity)
      return try CertificateAuthority(key: authorityKey, chain: chain, root: self.root, at: .now)
    }
    let path = try TreePath(parsing: path)
    let key = SigningKey()
    let rightful = try authority(#require(path.parent))
    let leaf = try rightful.issueCredential(.user, at: path, key: key.verifyingKey, validity: validity).certificates[0]
    let sibling = try #require(try authority(TreePath(parsing: directory)).chain)
    return try TransportSecurity.Identity(chain: CertificateChain([leaf] + sibling.certificates), key: key)
  }
}

// MARK: Messages

struct BytesCoder: MessageSerializer, MessageDeserializer {
  func serialize<Bytes: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Bytes { Bytes(message) }
  func deserialize<Bytes: GRPCContiguousBytes>(_ bytes: Bytes) throws -> [UInt8] {
    bytes.withUnsafeBytes { Array($0) }
  }
}

enum TestMethod {
  static let echo = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Echo")
  static let caller = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Caller")
  static let metadata = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Metadata")
  static let onLoop = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "OnLoop")
  static let fail = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Fail")
  static let hold = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Hold")
  static let collect = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Collect")
  static let flood = MethodDescriptor(fullyQualifiedService: "test.Bytes", method: "Flood")
}

/// Something that a test waits for: until it is set, or the test gives up.
final class Flag: Sendable {
  private let setting = Eventual<Void>()
  private let state = Atomic(false)

  var isSet: Bool { self.state.load(ordering: .acquiring) }

  func set() {
    self.state.store(true, ordering: .releasing)
    self.setting.settle(.success(()))
  }

  func wait() async { try? await self.setting.value }
}

final class Counter: Sendable {
  private let count = Atomic(0)
  var value: Int { self.count.load(ordering: .relaxed) }
  func add(_ count: Int) { self.count.add(count, ordering: .relaxed) }
}

struct TestFailure: Error, StatusConvertible {
  var status: GoogleRPCStatus {
    GoogleRPCStatus(
      .aborted, "The file changed.", reason: "CONFLICT", ["current": "7"], retryAfter: .milliseconds(1500))
  }
}

/// Bytes in, bytes out: the methods that the tests call, and what they observe of them.
final class BytesService: RegistrableRPCService {
  typealias Request = StreamingServerRequest<[UInt8]>
  typealias Response = StreamingServerResponse<[UInt8]>

  /// `Hold` has begun, may answer, has ended.
  let holding = Flag()
  let release = Flag()
  let held = Flag()
  /// `Collect` may begin to read; so many wait for that, or have gone on.
  let mayCollect = Flag()
  let collecting = Counter()
  /// What `Flood` has written so far.
  let flooded = Counter()

  func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
    func register(
      _ method: MethodDescriptor, _ handler: @escaping @Sendable (Request, ServerContext) async throws -> Response
    ) {
      router.registerHandler(
        forMethod: method, deserializer: BytesCoder(), serializer: BytesCoder(), handler: handler)
    }
    @Sendable func answer(_ text: String) -> Response {
      Response { writer in
        try await writer.write(Array(text.utf8))
        return [:]
      }
    }
    register(TestMethod.echo) { request, _ in
      Response { writer in
        for try await message in request.messages { try await writer.write(message) }
        return [:]
      }
    }
    register(TestMethod.caller) { _, context in
      switch context.caller {
      case .anonymous: answer("anonymous")
      case .credential(let credential): answer("\(credential.kind) \(credential.path)")
      }
    }
    register(TestMethod.metadata) { request, _ in
      answer(request.metadata.map { "\($0.key)" }.sorted().joined(separator: " "))
    }
    register(TestMethod.onLoop) { _, _ in
      answer("\(MultiThreadedEventLoopGroup.currentEventLoop != nil)")
    }
    register(TestMethod.fail) { _, _ in throw TestFailure() }
    register(TestMethod.hold) { request, _ in
      Response { writer in
        defer { self.held.set() }
        self.holding.set()
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            for try await _ in request.messages {}
          }
          try await group.next()
        }
        await self.release.wait()
        try await writer.write([1])
        return [:]
      }
    }
    register(TestMethod.collect) { request, _ in
      self.collecting.add(1)
      await self.mayCollect.wait()
      var byteCount = 0
      for try await message in request.messages { byteCount += message.count }
      return answer("\(byteCount)")
    }
    register(TestMethod.flood) { _, _ in
      Response { writer in
        let message = [UInt8](repeating: 1, count: 64 << 10)
        while true {
          try await writer.write(message)
          self.flooded.add(message.count)
        }
      }
    }
  }
}

// MARK: Servers and clients

struct TestServer: Sendable {
  let transport: NodeServerTransport
  let server: GRPCServer<NodeServerTransport>
  let service: BytesService
  let address: NetworkAddress
  let group: MultiThreadedEventLoopGroup

  var connections: ConnectionSource { self.transport.connections }
}

/// Runs a server for as long as `body` runs, on an event loop of its own.
func withServer(
  _ security: TransportSecurity, limits: TransportLimits = TransportLimits(),
  _ body: @escaping (TestServer) async throws -> Void
) async throws {
  let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  var logger = Logger(label: "test")
  logger.logLevel = .critical
  let service = BytesService()
  let transport = try NodeServerTransport(
    security: security, listeningOn: [ListenAddress(host: "127.0.0.1", port: 0)], group: group, limits: limits,
    logger: logger)
  let server = GRPCServer(transport: transport, services: [service])
  let result: Result<Void, any Error>
  do {
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await server.serve() }
      let address = try #require(try await transport.listeningAddresses.first)
      try await body(
        TestServer(transport: transport, server: server, service: service, address: address, group: group))
      tasks.cancelAll()
    }
    result = .success(())
  } catch {
    result = .failure(error)
  }
  try await group.shutdownGracefully()
  try result.get()
}

/// A dialler on the event loops that all tests share.
func dialer(_ security: TransportSecurity, limits: TransportLimits = TransportLimits()) -> Dialer {
  Dialer(security, group: MultiThreadedEventLoopGroup.singleton, limits: limits)
}

extension NodeConnection {
  /// One message there, one back.
  func call(
    _ method: MethodDescriptor, _ message: [UInt8] = [], metadata: Metadata = [:]
  ) async throws -> [UInt8] {
    try await self.client.unary(
      request: ClientRequest(message: message, metadata: metadata), descriptor: method, serializer: BytesCoder(),
      deserializer: BytesCoder(), options: .defaults
    ) { try $0.message }
  }

  func text(_ method: MethodDescriptor, metadata: Metadata = [:]) async throws -> String {
    String(decoding: try await self.call(method, metadata: metadata), as: UTF8.self)
  }

  /// A stream of messages there, and all that comes back.
  func stream(
    _ method: MethodDescriptor, _ produce: @escaping @Sendable (RPCWriter<[UInt8]>) async throws -> Void
  ) async throws -> [[UInt8]] {
    try await self.client.bidirectionalStreaming(
      request: StreamingClientRequest(producer: produce), descriptor: method, serializer: BytesCoder(),
      deserializer: BytesCoder(), options: .defaults
    ) { response in
      var messages: [[UInt8]] = []
      for try await message in response.messages { messages.append(message) }
      return messages
    }
  }
}

/// As `#expect(left == right)`, whose closure forgets that it throws where nothing else in it does.
func expectEqual<Value: Equatable>(
  _ left: Value, _ right: Value, sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(left == right, sourceLocation: sourceLocation)
}

/// A port where nobody listens, and nobody else can: it is taken for as long as this lives.
final class DeafPort: Sendable {
  let address: NetworkAddress
  private let socket: CInt

  init() throws {
    let socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    try #require(socket >= 0)
    self.socket = socket
    // A `sockaddr_in`: family, port, address.
    var name = [UInt8](repeating: 0, count: 16)
    withUnsafeBytes(of: sa_family_t(AF_INET)) { name.replaceSubrange(0..<2, with: $0) }
    name.replaceSubrange(4..<8, with: [127, 0, 0, 1])
    let isBound = name.withUnsafeMutableBytes { bytes in
      bytes.withMemoryRebound(to: sockaddr.self) { name in
        var size = socklen_t(16)
        return bind(socket, name.baseAddress, size) == 0 && getsockname(socket, name.baseAddress, &size) == 0
      }
    }
    try #require(isBound)
    self.address = try NetworkAddress(host: "127.0.0.1", port: UInt16(name[2]) << 8 | UInt16(name[3]))
  }

  deinit { close(self.socket) }
}

/// Waits until `condition` holds. Fails the test after a time that only a broken program needs.
func eventually(
  _ comment: Comment? = nil, sourceLocation: SourceLocation = #_sourceLocation, _ condition: () async throws -> Bool
) async throws {
  let clock = ContinuousClock()
  let end = clock.now + .seconds(60)
  while try await !condition() {
    guard clock.now < end else {
      Issue.record(comment ?? "The condition never came true.", sourceLocation: sourceLocation)
      throw CancellationError()
    }
    try await clock.sleep(for: .milliseconds(5))
  }
}
