// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import BlocktreeSchema
import Foundation
import GRPCCore
import NIOPosix
import Testing
import Transport
import Trust

/// Which way the bytes of a file go, by what the processes say that they have handed out.
@Suite("A file's bytes", .timeLimit(.minutes(3)))
struct AccessCasesTests {
  /// What each process has handed out so far.
  private struct Sent {
    var plain: [Int: Double] = [:]
    var sealed: [Int: Double] = [:]

    static func now(_ cluster: TestCluster, _ members: [Int]) async throws -> Sent {
      var sent = Sent()
      for member in members {
        sent.plain[member] = try await cluster.metric("blocktree_plain_bytes_sent_total", of: member)
        sent.sealed[member] = try await cluster.metric("blocktree_sealed_bytes_sent_total", of: member)
      }
      return sent
    }

    func since(_ former: Sent) -> Sent {
      Sent(
        plain: self.plain.merging(former.plain) { $0 - $1 }, sealed: self.sealed.merging(former.sealed) { $0 - $1 })
    }
  }

  /// A domain with a process at the root (0), one of `/site` (1), and one that stores `/vault` and has no key of it (2).
  private struct Scene {
    let cluster: TestCluster
    let ann: Profile
    let bob: Profile
    let members = [0, 1, 2]

    /// What is handed out while `body` runs.
    func sent(_ body: () async throws -> Void) async throws -> Sent {
      let before = try await Sent.now(self.cluster, self.members)
      try await body()
      // What is sent is counted before it is.
      return try await Sent.now(self.cluster, self.members).since(before)
    }

    func sent(reading path: String, by client: Client) async throws -> Sent {
      try await self.sent {
        let bytes = try await client.readAll(path).bytes
        #expect(bytes == AccessCasesTests.bytes)
      }
    }
  }

  private static let marker = "the-plain-text-that-must-not-be-there\n"
  fileprivate static let bytes = Array(String(repeating: Self.marker, count: (1 << 20) / Self.marker.utf8.count).utf8)
  private static var byteCount: Double { Double(Self.bytes.count) }
  /// Of directories and records, which are read besides. A file is much larger.
  private static let besides: Double = 131_072

  private static func withScene(_ body: (Scene) async throws -> Void) async throws {
    try await TestCluster.with(1, metrics: true) { cluster in
      let ann = try await cluster.addUser("/ann")
      let bob = try await cluster.addUser("/bob")
      try await cluster.withClient { client in
        for name in ["/site", "/vault"] { try await client.makeDirectory(name) }
      }
      try await cluster.add(1, to: "/site")
      try await cluster.add(1, to: "/vault", services: "sector")
      try await body(Scene(cluster: cluster, ann: ann, bob: bob))
    }
  }

  @Test("go the way that the caller's rights say, and are plain nowhere else")
  func cases() async throws {
    try await Self.withScene { scene in
      let cluster = scene.cluster
      try await cluster.withClient { client in
        for name in ["/site/file", "/vault/file"] { try await client.write(Self.bytes, to: name) }
        try await client.makeDirectory("/vault/for-ann", mode: 0o700)
        try await client.write(Self.bytes, to: "/vault/for-ann/file")
        try await client.grant("/vault/for-ann", to: "/ann", permission: 5, withKey: true)
        try await client.makeDirectory("/vault/closed", mode: 0o700)
        try await client.write(Self.bytes, to: "/vault/closed/file")
        try await client.grant("/vault/closed/file", to: "/bob", permission: 4)
      }
      try await Self.ownCluster(scene)
      try await Self.onlyStored(scene)
      try await Self.readcap(scene)
      try await Self.permission(scene)
      try await Self.anonymous(scene)
      try Self.expectNoPlainText(on: 2, of: cluster)
    }
  }

  /// A process that stores the file serves it by itself.
  private static func ownCluster(_ scene: Scene) async throws {
    try await scene.cluster.withClient { client in
      let sent = try await scene.sent(reading: "/site/file", by: client)
      #expect(sent.plain == [0: 0, 1: Self.byteCount, 2: 0])
      for member in scene.members { #expect(sent.sealed[member] ?? 0 < Self.besides, "\(member): \(sent)") }
    }
  }

  /// A process with the key, above, reads sealed sectors of those that store them, and opens them.
  private static func onlyStored(_ scene: Scene) async throws {
    try await scene.cluster.withClient { client in
      let sent = try await scene.sent(reading: "/vault/file", by: client)
      #expect(sent.plain == [0: Self.byteCount, 1: 0, 2: 0])
      #expect(sent.sealed[2] ?? 0 >= Self.byteCount && sent.sealed[1] ?? 0 < Self.besides, "\(sent)")
    }
    // There is no other way: whoever only stores has no filesystem service.
    let error = await #expect(throws: RPCError.self) {
      let profile = try Profile(contentsOf: scene.cluster.profileDirectory)
      let identity = profile.caller.map { TransportSecurity.Identity(chain: $0.credential.chain, key: $0.keys.signing) }
      let security = try TransportSecurity(root: profile.root, identity: identity)
      try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
        .withConnection(to: scene.cluster.networkAddress(of: 2)) { connection in
          var request = Blocktree_V1_StatRequest()
          request.path = "/vault"
          _ = try await Blocktree_V1_FilesystemService.Client(wrapping: connection.client).stat(request)
        }
    }
    #expect(error?.code == .unimplemented, "\(String(describing: error))")
  }

  /// Whoever has the key by a readcap opens the sectors, and no process does.
  private static func readcap(_ scene: Scene) async throws {
    try await withClient(scene.ann) { client in
      let sent = try await scene.sent {
        var bytes: [UInt8] = []
        for try await part in try await client.openSealed("/vault/for-ann/file").read() { bytes += part }
        #expect(bytes == Self.bytes)
      }
      #expect(sent.plain == [0: 0, 1: 0, 2: 0])
      #expect(sent.sealed[2] ?? 0 >= Self.byteCount, "\(sent)")
      #expect(sent.sealed[0] ?? 0 < Self.besides && sent.sealed[1] ?? 0 < Self.besides, "\(sent)")
    }
    try await withClient(scene.bob) { client in
      _ = await #expect(throws: BlocktreeError.self) { _ = try await client.openSealed("/vault/for-ann/file") }
    }
  }

  /// Whoever only has permission asks a filesystem service, also when no directory above lets them pass.
  private static func permission(_ scene: Scene) async throws {
    try await withClient(scene.bob) { client in
      for name in ["/vault/file", "/vault/closed/file"] {
        let sent = try await scene.sent(reading: name, by: client)
        #expect(sent.plain == [0: Self.byteCount, 1: 0, 2: 0])
        #expect(sent.sealed[2] ?? 0 >= Self.byteCount, "\(sent)")
      }
      let error = await #expect(throws: BlocktreeError.self) { try await client.listPage("/vault/closed") }
      #expect(error?.code == .permissionDenied)
    }
  }

  /// The same without a certificate, and only where every directory on the way is open to others.
  private static func anonymous(_ scene: Scene) async throws {
    try await withClient(scene.cluster.profile.anonymous) { client in
      let sent = try await scene.sent(reading: "/vault/file", by: client)
      #expect(sent.plain == [0: Self.byteCount, 1: 0, 2: 0])
      // The file itself may be open to others.
      try await scene.cluster.btrpc("chmod", "0644", "/vault/closed/file")
      for name in ["/vault/closed/file", "/vault/for-ann/file"] {
        let error = await #expect(throws: BlocktreeError.self) { try await client.readAll(name) }
        #expect(error?.code == .permissionDenied, "\(name): \(String(describing: error))")
      }
      await #expect(throws: BlocktreeError.self) { try await client.write([1], to: "/vault/file") }
      let own = try await scene.sent(reading: "/site/file", by: client)
      #expect(own.plain == [0: 0, 1: Self.byteCount, 2: 0])
    }
  }

  // MARK: What a process holds

  /// Looks through all files of a process and all memory that it can write to.
  private static func expectNoPlainText(on member: Int, of cluster: TestCluster) throws {
    let marker = Data(Self.marker.utf8)
    let directory = cluster.directory(member)
    var byteCount = 0
    for name in try FileManager.default.subpathsOfDirectory(atPath: directory) {
      guard let data = FileManager.default.contents(atPath: "\(directory)/\(name)") else { continue }
      byteCount += data.count
      #expect(data.range(of: marker) == nil, "\(name)")
    }
    #expect(byteCount > 3 * Self.bytes.count)
    let pid = try #require(cluster.pid(of: member))
    guard let memory = FileHandle(forReadingAtPath: "/proc/\(pid)/mem"),
      let maps = try? String(contentsOfFile: "/proc/\(pid)/maps", encoding: .utf8)
    else {
      print("The memory of a process can not be looked at here.")
      return
    }
    for line in maps.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count > 1, fields[1].hasPrefix("rw") else { continue }
      let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
      guard ends.count == 2, ends[1] - ends[0] < 1 << 30, (try? memory.seek(toOffset: ends[0])) != nil,
        let data = try? memory.read(upToCount: Int(ends[1] - ends[0]))
      else { continue }
      #expect(data.range(of: marker) == nil, "\(line)")
    }
  }
}
