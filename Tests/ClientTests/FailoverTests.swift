// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Synchronization
import Testing
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("A client of a cluster", .timeLimit(.minutes(2)))
struct FailoverTests {
  private static let content: [UInt8] = (0..<(9 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 11) }

  private func write(_ content: [UInt8], _ name: String, in directory: String) throws -> String {
    let path = "\(directory)/\(name)"
    try Data(content).write(to: URL(fileURLWithPath: path))
    return path
  }

  @Test("goes to the process that is named as the leader, though its profile does not know it")
  func hint() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.leader = 2 }
      try await cluster.withClient(knowing: [0]) { client in
        for _ in 0..<3 {
          let generation = try await client.statFilesystem().generation
          #expect(generation == 3)
        }
        // It is remembered: the others are not asked again.
        #expect(cluster.state.withLock { $0.declinations } == [1, 0, 0])
      }
    }
  }

  @Test("asks the others when nobody is named, until one leads")
  func election() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { state in
        state.leader = nil
        state.election = (declinations: 7, winner: 1)
      }
      try await cluster.withClient { client in
        let generation = try await client.statFilesystem().generation
        #expect(generation == 2)
        let declinations = cluster.state.withLock { $0.declinations }
        #expect(declinations.reduce(0, +) >= 7)
        #expect(declinations.allSatisfy { $0 >= 2 }, "\(declinations)")
      }
    }
  }

  @Test("does not follow a hint to a process with another certificate, and finds the leader all the same")
  func impostor() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { state in
        state.leader = 2
        // Who answers there is /node2.
        state.rumour = (path: "/node9", addresses: "\(cluster.members[1].address)")
      }
      try await cluster.withClient { client in
        let generation = try await client.statFilesystem().generation
        #expect(generation == 3)
      }
    }
  }

  @Test("moves on at once from a process whose port is closed")
  func refused() async throws {
    try await TestCluster.run { cluster in
      await cluster.members[0].end()
      cluster.state.withLock { $0.leader = 1 }
      // No patience at all with processes that can not be reached.
      let configuration = ClientConfiguration(connectionPatience: .zero, reconnectionPatience: .zero)
      try await cluster.withClient(configuration: configuration) { client in
        let generation = try await client.statFilesystem().generation
        #expect(generation == 2)
      }
    }
  }

  @Test("gives up on a process that says nothing long before its call is over")
  func silent() async throws {
    try await TestCluster.run { cluster in
      let silent = try SilentPort()
      cluster.state.withLock { state in
        state.leader = 1
        state.rumour = nil
      }
      let keys = PrincipalKeys()
      let file = try cluster.domain.credential(.user, "/ann", keys: keys)
      try await withDirectory { directory in
        try Profile.create(
          at: "\(directory)/profile", root: cluster.domain.authority.root, credential: file.chain, keys: keys,
          path: TreePath(parsing: "/ann"),
          processes: [
            .init(path: "/node8", addresses: ["\(silent.address)"]),
            .init(path: "/node2", addresses: ["\(cluster.members[1].address)"]),
          ])
        // The transport itself would wait for ten seconds.
        let configuration = ClientConfiguration(timeout: .seconds(8))
        try await withClient(Profile(contentsOf: "\(directory)/profile"), configuration: configuration) { client in
          let generation = try await client.statFilesystem().generation
          #expect(generation == 2)
        }
      }
    }
  }

  @Test("notices that a process has stopped in the middle of a call, and repeats the call elsewhere")
  func stopped() async throws {
    try await TestCluster.run { cluster in
      try await cluster.withClient { client in
        try await client.makeDirectory("/first")
        cluster.members[0].freeze()
        cluster.state.withLock { $0.leader = 1 }
        // Less than the transport's keepalive.
        var client = client
        client.timeout = .seconds(25)
        try await client.makeDirectory("/second")
        #expect(cluster.state.withLock { $0.appliedCount } == 2)
      }
    }
  }

  @Test("does a change once whose answer was lost with the leader")
  func repeated() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.diesAfterApplying = true }
      try await cluster.withClient { client in
        let info = try await client.makeDirectory("/a")
        #expect(cluster.state.withLock { $0.appliedCount } == 1)
        #expect(cluster.state.withLock { $0.files["/a"]?.inode } == info.id.inode)
        // And goes on where it found the new one.
        try await client.makeDirectory("/b")
        #expect(cluster.state.withLock { $0.appliedCount } == 2)
      }
    }
  }

  @Test("ends with its time when no leader comes")
  func leaderless() async throws {
    try await TestCluster.run(2) { cluster in
      cluster.state.withLock { $0.leader = nil }
      let configuration = ClientConfiguration(timeout: .seconds(1))
      try await cluster.withClient(knowing: [0, 1], configuration: configuration) { client in
        let error = await #expect(throws: BlocktreeError.self) { try await client.makeDirectory("/a") }
        // The time may end while nobody leads, or while one is being connected to or asked.
        #expect(error?.code == .unavailable || error?.code == .deadlineExceeded, "\(String(describing: error))")
        #expect(cluster.state.withLock { $0.appliedCount } == 0)
      }
    }
  }

  @Test("has a session that moves with the leader, and does each operation once")
  func session() async throws {
    try await TestCluster.run { cluster in
      try await cluster.withClient { client in
        try await client.withFileSession { session in
          try await session.makeDirectory("/first")
          cluster.state.withLock { $0.leader = 2 }
          try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<100 { group.addTask { try await session.makeDirectory("/\(number)") } }
            try await group.waitForAll()
          }
          #expect(cluster.state.withLock { $0.appliedCount } == 101)
          cluster.state.withLock { state in
            state.diesAfterApplying = true
            state.winner = 0
          }
          try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 100..<200 { group.addTask { try await session.makeDirectory("/\(number)") } }
            try await group.waitForAll()
          }
          #expect(cluster.state.withLock { $0.appliedCount } == 201)
          #expect(cluster.state.withLock { $0.files.count } == 201)
        }
      }
    }
  }

  @Test("finishes the upload of a file", arguments: [TestCluster.Disaster.Kind.death, .deposition])
  func upload(disaster: TestCluster.Disaster.Kind) async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.disaster = .init(kind: disaster, byteCount: 5 << 20) }
      try await withDirectory { directory in
        let local = try self.write(Self.content, "local", in: directory)
        try await cluster.withClient { client in
          let info = try await client.upload(fromFile: local, to: "/file")
          #expect(info.size == UInt64(Self.content.count))
        }
      }
      #expect(cluster.state.withLock { $0.disaster == nil })
      #expect(cluster.state.withLock { $0.files["/file"]?.bytes } == Self.content)
      #expect(cluster.state.withLock { $0.appliedCount } == 1)
    }
  }

  @Test("repeats what came through a pipe, if it is small")
  func pipe() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.disaster = .init(kind: .death, byteCount: 1 << 19) }
      let content = Array(Self.content[..<(1 << 20)])
      var ends: [CInt] = [0, 0]
      try #require(Glibc.pipe(&ends) == 0)
      let (read, write) = (ends[0], ends[1])
      defer { close(read) }
      try await cluster.withClient { client in
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            try await LocalFile.onThread {
              try LocalFile.write(write, Data(content))
              LocalFile.close(write)
            }
          }
          try await client.upload(fromDescriptor: read, to: "/file")
          try await group.waitForAll()
        }
      }
      #expect(cluster.state.withLock { $0.disaster == nil })
      #expect(cluster.state.withLock { $0.files["/file"]?.bytes } == content)
    }
  }

  @Test("sends what can be sent only once to the leader alone")
  func once() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.leader = 2 }
      try await cluster.withClient(knowing: [0]) { client in
        let content = Self.content
        let begun = Atomic(0)
        try await client.write(to: "/file") { file in
          begun.add(1, ordering: .relaxed)
          try await file.write(content)
        }
        #expect(begun.load(ordering: .relaxed) == 1)
      }
      #expect(cluster.state.withLock { $0.files["/file"]?.bytes } == Self.content)
    }
  }

  @Test("never begins in the middle of what it can not read twice")
  func unrepeatable() async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { $0.disaster = .init(kind: .deposition, byteCount: 5 << 20) }
      try await cluster.withClient { client in
        let content = Self.content
        let begun = Atomic(0)
        await #expect(throws: BlocktreeError.self) {
          try await client.write(to: "/file") { file in
            begun.add(1, ordering: .relaxed)
            try await file.write(content)
          }
        }
        #expect(begun.load(ordering: .relaxed) == 1)
      }
      #expect(cluster.state.withLock { $0.files["/file"] == nil })
    }
  }

  @Test("goes on reading where it was", arguments: [TestCluster.Disaster.Kind.death, .deposition])
  func reading(disaster: TestCluster.Disaster.Kind) async throws {
    try await TestCluster.run { cluster in
      cluster.state.withLock { state in
        state.files["/file"] = .init(inode: 9, bytes: Self.content)
        state.disaster = .init(kind: disaster, byteCount: 5 << 20)
      }
      try await cluster.withClient { client in
        let read = try await client.read("/file", from: 100, count: UInt64(Self.content.count - 1000)) { file in
          var bytes: [UInt8] = []
          for try await part in file { bytes += part }
          return bytes
        }
        #expect(read == Array(Self.content[100..<(Self.content.count - 900)]))
        #expect(cluster.state.withLock { $0.disaster == nil })
      }
    }
  }

  @Test("does not mix two versions of a file that it reads")
  func changed() async throws {
    try await TestCluster.run { cluster in
      let changed = Self.content.reversed() as [UInt8]
      func prepare() {
        cluster.state.withLock { state in
          state.leader = 0
          state.winner = 0
          state.files["/file"] = .init(inode: 9, bytes: Self.content)
          state.disaster = .init(kind: .deposition, byteCount: 5 << 20)
          state.disasterChanges = ("/file", changed)
        }
      }
      try await cluster.withClient { client in
        prepare()
        let error = await #expect(throws: BlocktreeError.self) {
          try await client.read("/file") { file in
            for try await _ in file {}
          }
        }
        #expect(error?.reason == .conflict)
        // A copy is begun again.
        prepare()
        try await withDirectory { directory in
          try await client.download("/file", toFile: "\(directory)/copy")
          let copy = try Data(contentsOf: URL(fileURLWithPath: "\(directory)/copy"))
          #expect(copy == Data(changed))
        }
      }
    }
  }
}

/// A port where connections are accepted by the kernel, and nobody ever says anything.
final class SilentPort: Sendable {
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
    let listens = name.withUnsafeMutableBytes { bytes in
      bytes.withMemoryRebound(to: sockaddr.self) { name in
        var size = socklen_t(16)
        return bind(socket, name.baseAddress, size) == 0 && listen(socket, 16) == 0
          && getsockname(socket, name.baseAddress, &size) == 0
      }
    }
    try #require(listens)
    self.address = try NetworkAddress(host: "127.0.0.1", port: UInt16(name[2]) << 8 | UInt16(name[3]))
  }

  deinit { close(self.socket) }
}
