// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Keys, permissions and tasks as people and scripts use them, against a real node that counts its calls.
@Suite(
  "btrpc for keys", .serialized, .scene(["BLOCKTREE_METRICS_LISTEN": "127.0.0.1:\(metricsPort)"]),
  .timeLimit(.minutes(5)))
struct KeyCommandTests {
  private let scene: Scene
  private let scratch: Scratch

  init() throws {
    self.scene = try Scene.current
    self.scratch = try Scratch()
  }

  private var owner: Shell { Shell(directory: self.scratch.path, profile: "\(self.scene.directory)/node/profile") }
  private var alice: Shell { Shell(directory: self.scratch.path, profile: "\(self.scene.directory)/alice") }

  private struct File: Decodable {
    struct Access: Decodable, Hashable {
      var path: String
      var isGroup: Bool
      var permission: Int
    }

    var type: String
    var access: [Access]
    var keyEpoch: Int?
    var readcaps: [String]?
    var isCutOff: Bool?
  }

  private struct Changed: Decodable {
    struct Task: Decodable {
      var kind: String
      var path: String
      var state: String
      var problem: String?
    }

    var file: File
    var task: Task?
  }

  /// How often a method of the schema was called so far.
  private func callCount(_ method: String) async throws -> Int {
    let page = try await self.owner.succeed(
      """
      exec 3<>/dev/tcp/127.0.0.1/\(metricsPort)
      printf 'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
      cat <&3
      """)
    let lines = page.split(whereSeparator: \.isNewline).filter {
      $0.hasPrefix("blocktree_calls_total{") && $0.contains("\"blocktree.v1.\(method)\"")
    }
    return lines.reduce(0) { $0 + (($1.split(separator: " ").last).flatMap { Double($0) }.map { Int($0) } ?? 0) }
  }

  @Test("grants permission to users and groups, with the bits that fit")
  func grant() async throws {
    try await self.owner.succeed("btrpc mkdir -m 0700 /granted && printf text | btrpc put -m 0600 - /granted/file")
    #expect(try await self.alice.run("btrpc cat /granted/file").status == 1)
    // On the file itself: though not on what is above.
    let file = try await self.owner.run("btrpc --json grant /granted/file /alice").json(File.self)
    #expect(file.access == [.init(path: "/alice", isGroup: false, permission: 4)] && file.readcaps == nil)
    #expect(try await self.alice.succeed("btrpc cat /granted/file") == "text")
    let directory = try await self.owner.run("btrpc --json grant /granted / --group").json(File.self)
    #expect(directory.access == [.init(path: "/", isGroup: true, permission: 5)])
    try await self.owner.succeed("btrpc grant /granted /alice --permission rwx")
    try await self.alice.succeed("btrpc ls /granted && btrpc mkdir /granted/of-alice")
    let text = try await self.owner.succeed("btrpc stat /granted")
    #expect(text.contains(/(?m)^access: +rwx principal \/alice$/) && text.contains(/(?m)^access: +r-x group \/$/))
    #expect(text.contains(/(?m)^key: +epoch 1$/) && !text.contains("readcap:"))
    try await self.owner.succeed("btrpc revoke /granted /alice && btrpc revoke /granted / --group")
    #expect(try await self.owner.run("btrpc --json stat /granted").json(File.self).access == [])
    #expect(try await self.alice.run("btrpc ls /granted").status == 1)
    // Only who owns it may do that.
    let refused = try await self.alice.run("btrpc grant /granted/file /alice --permission rw")
    #expect(refused.status == 1 && refused.errors.contains("ask the owner"))
    let unknown = try await self.owner.run("btrpc grant /granted /nobody --key")
    #expect(unknown.status == 1 && unknown.errors.hasPrefix("btrpc: /granted: "))
  }

  @Test("reads with a key of one's own: the node hands out sealed sectors, and is asked for no content")
  func sealed() async throws {
    try await self.owner.succeed(
      """
      head -c 300000 /dev/urandom > large
      btrpc mkdir -p -m 0700 /keyed/sub
      btrpc put large /keyed/sub
      printf text | btrpc put - /keyed/file
      : | btrpc put - /keyed/empty
      btrpc ln -s ../file /keyed/sub/link
      btrpc ln -s /granted /keyed/out
      btrpc grant /keyed /alice --key
      btrpc mkdir -p -m 0700 /closed/in && printf inside | btrpc put -m 0600 - /closed/in/file
      btrpc grant /closed/in /alice --key
      btrpc grant /keyed/sub/large /alice --key
      """)
    let info = try await self.owner.run("btrpc --json stat /keyed").json(File.self)
    #expect(info.readcaps == ["/alice"] && info.keyEpoch == 1)
    #expect(try await self.owner.succeed("btrpc stat /keyed").contains(/(?m)^readcap: +\/alice$/))

    let (read, list) = (
      try await self.callCount("FilesystemService/Read"), try await self.callCount("FilesystemService/List")
    )
    let sealed = try await self.callCount("SectorService/ReadSectors")
    try await self.alice.succeed(
      """
      btrpc get --sealed /keyed/sub/large copy
      cmp copy large
      btrpc cat --sealed --offset 100000 --count 5000 /keyed/sub/large | cmp - <(tail -c +100001 large | head -c 5000)
      test "$(btrpc cat --sealed /keyed/file /keyed/sub/link)" = texttext
      test "$(btrpc cat --sealed /closed/in/file)" = inside   # Whatever is closed above.
      btrpc get --sealed /keyed/empty - | cmp - /dev/null
      btrpc --json get --sealed /keyed/file . | grep --quiet '"size" : 4'
      """)
    #expect(try await self.callCount("FilesystemService/Read") == read)
    #expect(try await self.callCount("FilesystemService/List") == list)
    #expect(try await self.callCount("SectorService/ReadSectors") > sealed)
    // Without it, the node reads and decrypts.
    try await self.alice.succeed("btrpc cat /keyed/file")
    #expect(try await self.callCount("FilesystemService/Read") > read)

    for (line, text) in [
      ("cat --sealed /keyed/sub", "this is a directory"), ("cat --sealed /keyed/out", "leads out of /keyed"),
      ("cat --sealed /keyed/missing", "there is no such file"), ("cat --sealed /granted/file", "has no key for this"),
      ("--anonymous cat --sealed /keyed/file", "anonymous"),
    ] {
      let end = try await self.alice.run("btrpc \(line)")
      #expect(end.status == 1 && end.errors.contains(text), "\(line): \(end)")
    }
    #expect(try await self.alice.run("btrpc get -r --sealed /keyed .").status == 64)
  }

  @Test("draws a new key when one is taken back, and seals anew what was written before")
  func revoke() async throws {
    try await self.owner.succeed(
      """
      btrpc mkdir -p -m 0700 /revoked/sub
      for number in 1 2 3; do head -c 20000 /dev/urandom > $number; btrpc put $number /revoked/sub; done
      btrpc grant /revoked /alice --key
      """)
    try await self.alice.succeed("btrpc cat --sealed /revoked/sub/1 | cmp - 1")
    let changed = try await self.owner.run("btrpc --json revoke /revoked /alice --wait").json(Changed.self)
    #expect(changed.file.keyEpoch == 2 && changed.file.readcaps == nil)
    #expect(changed.task?.kind == "rekey" && changed.task?.state == "finished" && changed.task?.problem == nil)
    for path in ["/revoked/sub", "/revoked/sub/1"] {
      #expect(try await self.owner.run("btrpc --json stat \(path)").json(File.self).keyEpoch == 2, "\(path)")
    }
    let refused = try await self.alice.run("btrpc cat --sealed /revoked/sub/1")
    #expect(refused.status == 1 && refused.errors.contains("has no key for this"))
    try await self.owner.succeed("for number in 1 2 3; do btrpc cat /revoked/sub/$number | cmp - $number; done")
    #expect(try await self.owner.run("btrpc --json sector verify /revoked/sub/1").json([Verified].self)[0].isGood)
  }

  private struct Verified: Decodable {
    var isGood: Bool
  }

  @Test("gives new keys without taking any back, and says what is done in the background")
  func rekey() async throws {
    try await self.owner.succeed(
      """
      btrpc mkdir -m 0700 /rekeyed
      printf text | btrpc put - /rekeyed/file
      btrpc grant /rekeyed /alice --key
      btrpc rekey /rekeyed --wait | grep --quiet '^/rekeyed: rekey finished'
      btrpc rekey /rekeyed | grep --quiet "see 'btrpc tasks /rekeyed'"
      btrpc tasks /rekeyed --wait | grep --quiet '^rekey  /rekeyed  finished'
      test "$(btrpc tasks /nowhere 2>&1 || true)" != ''
      """)
    let tasks = try await self.owner.run("btrpc --json tasks").json([Changed.Task].self)
    #expect(tasks.contains { $0.kind == "rekey" && $0.path == "/rekeyed" && $0.state == "finished" })
    let info = try await self.owner.run("btrpc --json stat /rekeyed").json(File.self)
    #expect(info.keyEpoch == 3 && info.readcaps == ["/alice"])
    #expect(try await self.alice.succeed("btrpc cat --sealed /rekeyed/file") == "text")
    #expect(try await self.alice.run("btrpc tasks").errors.contains("ask the owner"))
  }

  @Test("cuts a directory off from the one above, and joins it again")
  func cutOff() async throws {
    try await self.owner.succeed("btrpc mkdir -m 0700 /cut && printf text | btrpc put - /cut/file")
    let lost = try await self.owner.run("btrpc revoke /cut --parent")
    #expect(lost.status == 1 && lost.errors.contains("nobody else would have the key"), "\(lost)")
    try await self.owner.succeed("btrpc grant /cut /alice --key")
    let cut = try await self.owner.run("btrpc --json revoke /cut --parent").json(Changed.self)
    #expect(cut.file.isCutOff == true && cut.task == nil)
    #expect(try await self.owner.succeed("btrpc stat /cut").contains("cut off"))
    #expect(try await self.alice.succeed("btrpc cat --sealed /cut/file") == "text")
    let refused = try await self.owner.run("btrpc cat /cut/file")
    #expect(refused.status == 1 && refused.errors.contains("no key"), "\(refused)")
    let joining = try await self.owner.run("btrpc grant /cut --parent")
    #expect(joining.status == 1 && joining.errors.contains("no key"), "\(joining)")
    #expect(try await self.owner.run("btrpc revoke /cut /alice").errors.contains("nobody else would have the key"))

    // Where the process has a readcap itself, it can put the key back.
    try await self.owner.succeed(
      """
      btrpc mkdir -m 0700 /joined && printf text | btrpc put - /joined/file
      btrpc grant /joined /node1 --key && btrpc revoke /joined --parent
      test "$(btrpc cat /joined/file)" = text
      """)
    let joined = try await self.owner.run("btrpc --json grant /joined --parent").json(File.self)
    #expect(joined.isCutOff == nil && joined.keyEpoch == 3)
    #expect(try await self.owner.succeed("btrpc cat --sealed /joined/file") == "text")
  }

  @Test("refuses to drain a directory that has no cluster of its own")
  func drain() async throws {
    try await self.owner.succeed("btrpc mkdir /undrained")
    let refused = try await self.owner.run("btrpc process drain /undrained")
    #expect(refused.status == 1 && refused.errors.contains("no cluster of its own"), "\(refused)")
    #expect(try await self.owner.run("btrpc process drain /undrained --cancel").status == 1)
  }
}

/// Where the node says what it has done: some port that nobody uses, so far as can be told.
private let metricsPort = UInt16.random(in: 20_000..<30_000)
