// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Node
import Testing
import Transport
import Trust

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

@Suite("A node's directory", .timeLimit(.minutes(5)))
struct DirectoryTests {
  private static let anywhere = ListenAddress(host: "127.0.0.1", port: 0)

  @Test("is closed to others, with everything in it")
  func modes() async throws {
    let node = try await NodeUnderTest.initialized()
    var paths = [node.directory]
    for name in try FileManager.default.subpathsOfDirectory(atPath: node.directory) {
      paths.append("\(node.directory)/\(name)")
    }
    for path in paths {
      var status = stat()
      #expect(lstat(path, &status) == 0)
      #expect(status.st_mode & 0o077 == 0, "\(path)")
    }
    let names = Set(try FileManager.default.contentsOfDirectory(atPath: node.directory))
    #expect(
      names == ["root.pem", "root-key.pem", "key.pem", "credential", "node.json", "generation-1", "profile"])
  }

  @Test("is not made where there is something")
  func occupied() async throws {
    let node = try NodeUnderTest()
    try FileManager.default.createDirectory(atPath: node.directory, withIntermediateDirectories: false)
    try Data().write(to: URL(fileURLWithPath: "\(node.directory)/something"))
    await #expect(throws: NodeError.self) {
      try await DomainCreation(listen: Self.anywhere).run(at: NodeDirectory(node.directory))
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: node.directory) == ["something"])
    #expect(try FileManager.default.contentsOfDirectory(atPath: node.scratch.path) == ["node"])
  }

  @Test("takes the place of an empty one, and of what a crash left unfinished")
  func leftovers() async throws {
    let node = try NodeUnderTest()
    let unfinished = "\(node.scratch.path)/.node.incomplete"
    for path in [node.directory, unfinished] {
      try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    }
    try Data("half".utf8).write(to: URL(fileURLWithPath: "\(unfinished)/key.pem"))
    _ = try await DomainCreation(listen: Self.anywhere).run(at: NodeDirectory(node.directory))
    #expect(try FileManager.default.contentsOfDirectory(atPath: node.scratch.path) == ["node"])
    _ = try node.profile
  }

  @Test("is not made in a place that somebody else may have prepared")
  func planted() async throws {
    let node = try NodeUnderTest()
    let unfinished = "\(node.scratch.path)/.node.incomplete"
    let elsewhere = "\(node.scratch.path)/elsewhere"
    func refusal() async throws -> String {
      let error = await #expect(throws: NodeError.self) {
        try await DomainCreation(listen: Self.anywhere).run(at: NodeDirectory(node.directory))
      }
      #expect(!FileManager.default.fileExists(atPath: node.directory))
      return try #require(error).description
    }
    for path in [elsewhere, unfinished] {
      try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o777])
      try Data("mine".utf8).write(to: URL(fileURLWithPath: "\(path)/file"))
    }
    // Open to others.
    #expect(try await refusal().contains("\(unfinished) is open to others"))
    #expect(FileManager.default.fileExists(atPath: "\(unfinished)/file"))
    // A link to somewhere else, even to a place that is closed to others.
    #expect(chmod(elsewhere, 0o700) == 0)
    try FileManager.default.removeItem(atPath: unfinished)
    try FileManager.default.createSymbolicLink(atPath: unfinished, withDestinationPath: elsewhere)
    #expect(try await refusal().contains("\(unfinished) is in the way"))
    #expect(FileManager.default.fileExists(atPath: "\(elsewhere)/file"))
    // No directory.
    try FileManager.default.removeItem(atPath: unfinished)
    try Data().write(to: URL(fileURLWithPath: unfinished))
    #expect(try await refusal().contains("\(unfinished) is in the way"))
  }

  @Test("holds a profile whose person has an authority for the whole tree")
  func profile() async throws {
    let node = try await NodeUnderTest.initialized()
    let profile = try node.profile
    #expect(profile.path == "/owner")
    let authority = try #require(profile.authority)
    let usable = try CertificateAuthority(
      key: authority.keys.signing, chain: authority.chain, root: profile.root, at: .now)
    #expect(usable.path == .root)
  }

  @Test("is refused for names and sizes that can not be")
  func settings() async throws {
    let node = try NodeUnderTest()
    let creations = [
      DomainCreation(listen: Self.anywhere, processName: "a/b"),
      DomainCreation(listen: Self.anywhere, processName: ""),
      DomainCreation(listen: Self.anywhere, processName: "same", userName: "same"),
      DomainCreation(listen: Self.anywhere, sectorSize: 5_000),
      DomainCreation(listen: Self.anywhere, sectorSize: 2_048),
    ]
    for creation in creations {
      await #expect(throws: NodeError.self) { try await creation.run(at: NodeDirectory(node.directory)) }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: node.scratch.path).isEmpty)
  }

  @Test("of a new process comes about by request, issue and join; it becomes a member of the cluster, and serves")
  func enrollment() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let second = try NodeUnderTest()
    let enrollment = Enrollment(NodeDirectory(second.directory))
    let request = try await enrollment.request(listen: Self.anywhere, advertise: nil)
    let package = try await withClient(node.profile) { client in
      try await client.issueCredential(
        .process(services: ["sector", "filesystem"]), at: "/node2", request: request, lifetime: .seconds(3_600))
    }
    let file = "\(second.scratch.path)/package"
    try package.pemRepresentation.write(toFile: file, atomically: false, encoding: .utf8)
    // A package for other keys is refused, and changes nothing.
    let other = try NodeUnderTest()
    _ = try await Enrollment(NodeDirectory(other.directory)).request(listen: Self.anywhere, advertise: nil)
    #expect(try await other.run(["join", "--dir", other.directory, "--credential", file]) == .exited(1))
    #expect(other.logText.contains("the credential is not for this node"), "\(other.logText)")
    #expect(!FileManager.default.fileExists(atPath: "\(other.directory)/credential"))

    let join = try second.launch(["join", "--dir", second.directory, "--credential", file])
    #expect(try await join.line(within: NodeUnderTest.patience) == "joined as /node2", "\(second.logText)")
    #expect(try await join.end(within: NodeUnderTest.patience) == .exited(0))
    let names = Set(try FileManager.default.contentsOfDirectory(atPath: second.directory))
    #expect(names == ["root.pem", "key.pem", "credential", "node.json"])
    let running = try second.launch(["run", "--dir", second.directory])
    let ready = try await running.line(within: NodeUnderTest.patience)
    #expect(ready?.hasPrefix("ready ") == true && ready?.contains(" /node2 ") == true, "\(second.logText)")

    // The same steps renew a credential: the same keys, a newer certificate.
    let renewal = try await enrollment.request(listen: nil, advertise: nil)
    let renewed = try await withClient(node.profile) { client in
      try await client.issueCredential(
        .process(services: ["sector", "filesystem"]), at: "/node2", request: renewal, lifetime: .seconds(7_200),
        replaces: true)
    }
    #expect(try enrollment.join(renewed) == TreePath(parsing: "/node2"))
    #expect(throws: NodeError.self) { try enrollment.join(package) }
    #expect(process.pollEnd() == nil && running.pollEnd() == nil)
  }

  @Test("is renewed for the first process, too, which then serves with the new credential")
  func renewal() async throws {
    let node = try await NodeUnderTest.initialized()
    let process = try await node.start()
    let enrollment = Enrollment(NodeDirectory(node.directory))
    let request = try await enrollment.request(listen: nil, advertise: nil)
    let package = try await withClient(node.profile) { client in
      try await client.issueCredential(
        .process(services: ["sector", "filesystem"]), at: "/node1", request: request, lifetime: .seconds(7_200),
        replaces: true)
    }
    _ = try enrollment.join(package)
    process.signal(SIGTERM)
    #expect(try await process.end(within: NodeUnderTest.patience) == .exited(0), "\(node.logText)")
    let next = try await node.start()
    try await withClient(node.profile) { client in
      try await client.write([1, 2, 3], to: "/after")
      #expect(try await client.readAll("/after").bytes == [1, 2, 3])
    }
    #expect(next.pollEnd() == nil)
  }
}
