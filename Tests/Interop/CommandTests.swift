// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// The program as people and scripts use it, against a real node.
@Suite("btrpc", .serialized, .scene(), .timeLimit(.minutes(5)))
struct CommandTests {
  private let scene: Scene
  /// Where the program has its local files.
  private let scratch: Scratch
  private var local: String { self.scratch.path }

  init() throws {
    self.scene = try Scene.current
    self.scratch = try Scratch()
  }

  // MARK: Files

  @Test("copies a directory tree there and back, with links, modes and times")
  func trees() async throws {
    try await self.shell(
      """
      mkdir -p tree/sub/deep 'tree/a b/é'
      head -c 300000 /dev/urandom > tree/large
      for number in 1 2 3; do echo $number > tree/sub/$number; done
      : > tree/empty
      echo text > 'tree/a b/é/c d'
      ln -s ../large tree/sub/link
      ln -s nowhere tree/dangling
      chmod 0640 tree/sub/1
      chmod 0755 tree/sub/2
      chmod 0700 tree/sub/deep
      touch --date 2001-02-03T04:05:06.789 tree/sub/3 tree/sub/deep

      btrpc mkdir /trees
      btrpc put -r tree /trees
      btrpc get -r /trees/tree back
      diff --recursive --no-dereference tree back
      list() { (cd $1 && find . -printf '%P %y %m %l ' -type f,d -printf '%T@' , -printf '\\n' | sort); }
      list tree > before
      list back > after
      diff before after

      btrpc put tree/large tree/empty /trees
      mkdir some
      btrpc get /trees/large /trees/empty some
      cmp some/large tree/large
      test -f some/empty
      btrpc put -r tree /trees   # Once more, over what is there.
      """)
  }

  @Test("makes no setuid file of one that has the bit in the domain")
  func setuid() async throws {
    try await self.shell(
      """
      mkdir set
      echo >> set/file
      btrpc mkdir /set
      btrpc put set/file /set
      btrpc chmod 6755 /set/file
      btrpc chmod 3777 /set
      btrpc --json stat /set/file | grep --quiet '"mode" : "6755"'
      btrpc get -r /set got
      btrpc get -p /set/file kept
      head -c 300000 /dev/zero | btrpc put -m 4755 - /set/large
      btrpc chmod 4755 /set/large
      btrpc get -p /set/large large
      test "$(stat --format %a got got/file kept large | xargs)" = '777 755 755 755'
      """)
  }

  @Test("copies from standard input and to standard output")
  func streams() async throws {
    try await self.shell(
      """
      head -c 300000 /dev/urandom > large
      btrpc put -m 0600 - /stream < large
      btrpc cat /stream | cmp - large
      btrpc get /stream - | cmp - large
      btrpc cat --offset 299990 --count 100 /stream | cmp - <(tail -c 10 large)
      printf one | btrpc put - /one
      printf two | btrpc put - /two
      test "$(btrpc cat /one /two)" = onetwo
      : | btrpc put - /one
      btrpc cat /one | cmp - /dev/null
      """)
    // A reader that goes away is no error that anybody is told of.
    let end = try await self.run("btrpc cat /stream | head -c 1 > first; exit ${PIPESTATUS[0]}")
    #expect(end.errors.isEmpty)
  }

  @Test("makes, renames, links and removes")
  func names() async throws {
    try await self.shell(
      """
      btrpc mkdir -p -m 0750 /names/a/b
      printf 1 | btrpc put - /names/1
      printf 2 | btrpc put - /names/2
      btrpc mv /names/1 /names/2
      test "$(btrpc cat /names/2)" = 1
      btrpc mv /names/2 /names/a
      btrpc ln /names/a/2 /names/hard
      btrpc ln -s a/2 /names/soft
      test "$(btrpc cat /names/hard /names/soft)" = 11
      btrpc ln -s -f a /names/soft
      """)
    #expect(
      try await self.shell("btrpc tree /names") == """
        /names
        ├── a
        │   ├── 2
        │   └── b
        ├── hard
        └── soft -> a

        2 directories, 3 files

        """)
    #expect(try await self.shell("btrpc ls /names /names/a") == "/names:\na\nhard\nsoft\n\n/names/a:\n2\nb\n")
    try await self.shell(
      """
      btrpc rm /names/soft
      btrpc rm -d /names/a/b
      btrpc rm -r /names
      btrpc rm -f /names
      """)
    #expect(try await self.run("btrpc stat /names").status == 1)
  }

  private struct File: Decodable {
    var path: String?
    var name: String?
    var type: String
    var size: UInt64
    var mode: String
    var owner: String
    var group: String
    var links: Int
    var modified: String
    var target: String?
  }

  @Test("describes files, for people and for programs")
  func descriptions() async throws {
    try await self.shell(
      """
      btrpc mkdir -m 0755 /told
      printf 12345 | btrpc put - /told/file
      btrpc ln -s file /told/link
      btrpc chmod u+x,go-r /told/file
      btrpc chown /alice:/told /told/file
      """)
    let lines = try await self.shell("btrpc ls -l /told").split(separator: "\n")
    #expect(lines.count == 2)
    let row = /^-rwx------  1  \/alice  \/told  5  [0-9-]{10} [0-9:]{5}  file$/
    #expect(lines.first?.contains(row) == true, "\(lines)")
    #expect(lines.last?.hasPrefix("lrwxrwxrwx") == true && lines.last?.hasSuffix("link -> file") == true, "\(lines)")

    let files = try await self.run("btrpc --json ls -l /told").json([File].self)
    #expect(files.map(\.path) == ["/told/file", "/told/link"] && files.map(\.name) == ["file", "link"])
    #expect(files.map(\.type) == ["file", "symbolic-link"] && files.map(\.target) == [nil, "file"])
    let file = try await self.run("btrpc stat --json /told/file").json(File.self)
    #expect(file.size == 5 && file.mode == "0700" && file.owner == "/alice" && file.group == "/told")
    #expect(file.links == 1 && file.modified.contains(/^2[0-9]{3}-.*T.*\.[0-9]{9}Z$/))
    #expect(try await self.run("btrpc stat --json /told /told/link").json([File].self).count == 2)
    #expect(try await self.shell("btrpc stat /told/file").contains(/(?m)^size: +5 bytes$/))

    try await self.shell("btrpc chmod -R go-rx /told && btrpc chown -R /owner /told")
    let changed = try await self.run("btrpc stat --json /told /told/file").json([File].self)
    #expect(changed.map(\.mode) == ["0700", "0700"] && changed.map(\.owner) == ["/owner", "/owner"])
  }

  // MARK: The domain, and what is stored

  private struct Status: Decodable {
    var member: String
    var role: String
    var caller: String?
    var sectorSize: Int
  }

  private struct Room: Decodable {
    var totalBytes: UInt64
    var freeBytes: UInt64
  }

  private struct Report: Decodable {
    var isGood: Bool
    var sectors: Int
    var signers: [String]
  }

  private struct Block: Decodable {
    var index: Int
    var isHole: Bool
    var bytes: Data
  }

  private struct Anything: Decodable {}

  @Test("says how the process is, and how much room there is")
  func status() async throws {
    let status = try await self.run("btrpc status --json").json(Status.self)
    #expect(status.member == "/node1" && status.role == "leader" && status.caller == "/owner")
    #expect(status.sectorSize == 4_096)
    #expect(try await self.run("btrpc --anonymous status").status == 1)
    #expect(try await self.shell("btrpc status").contains("answered by:  /node1, leader of generation 1\n"))
    let rooms = try await self.run("btrpc df --json").json([Room].self)
    #expect(rooms.count == 1 && rooms.allSatisfy { $0.freeBytes > 0 && $0.freeBytes <= $0.totalBytes })
    #expect(try await self.shell("btrpc df /").hasPrefix("Path  Generation"))
    #expect(try await self.shell("btrpc user list").contains("/alice"))
    for command in ["user list", "process list", "profile show", "rpc --list", "tree /"] {
      let end = try await self.run("btrpc --json \(command)")
      #expect(end.status == 0 && (try? JSONSerialization.jsonObject(with: Data(end.output.utf8))) != nil, "\(end)")
    }
  }

  @Test("shows what is stored of a file, and verifies it")
  func sectors() async throws {
    try await self.shell(
      """
      head -c 10000 /dev/zero | btrpc put - /sectors
      btrpc sector read /sectors --index 0 --count 3 --output sealed
      test $(stat --format %s sealed) = 12288
      test $(tr -d '\\0' < sealed | wc -c) -gt 12000   # Nothing of what was written can be seen.
      btrpc sector read /sectors --index 1 | cmp - <(tail -c +4097 sealed | head -c 4096)
      btrpc sector inode /sectors | grep --quiet /owner
      """)
    let blocks = try await self.run("btrpc sector read --json /sectors --index 2 --count 2").json([Block].self)
    #expect(blocks.map(\.index) == [2, 3] && blocks.map(\.isHole) == [false, true])
    #expect(blocks.first?.bytes.count == 4_096)
    let reports = try await self.run("btrpc sector verify --json /sectors /").json([Report].self)
    #expect(reports.map(\.isGood) == [true, true] && reports.first?.sectors == 3)
    #expect(reports.first?.signers.isEmpty == false)
    _ = try await self.run("btrpc sector inode --json /sectors").json(Anything.self)
  }

  @Test("makes any call of the schema, with JSON in and out")
  func calls() async throws {
    let answer = try await self.run(#"btrpc rpc blocktree.v1.FilesystemService/Stat '{"path": "/"}'"#)
    #expect(try answer.json([String: [String: Anything]].self).keys.sorted() == ["info"])
    #expect(try await self.shell("btrpc rpc grpc.health.v1.Health/Check") == #"{"status":"SERVING"}"# + "\n")
    try await self.shell(
      """
      printf '%s\\n' '{"header": {"path": "/called", "writeMode": "WRITE_MODE_CREATE"}}' '{"data": "Y2FsbGVk"}' \\
        | btrpc rpc blocktree.v1.FilesystemService/Write -
      test "$(btrpc cat /called)" = called
      """)
  }

  // MARK: Failures

  @Test("fails with 1 and one line on standard error that says what to do")
  func failures() async throws {
    try await self.shell(
      """
      btrpc mkdir -m 0700 /kept
      printf x | btrpc put -m 0600 - /kept/file
      btrpc ln /kept/file /kept/other
      """)
    let foreign = try "--profile \(self.scene.directory)/foreign/profile --address \(self.scene.address)"
    for (line, text) in [
      ("cat /missing", "/missing: there is no such file"),
      ("ls /missing", "/missing: there is no such file"),
      ("mkdir /kept", "choose another one"),
      ("rm /kept", "use -r"),
      ("get /kept", "use -r"),
      ("get /missing .", "/missing: there is no such file"),
      ("put missing /x", "missing: No such file or directory"),
      ("mv /missing /x", "there is no such file"),
      ("mv -n /kept/file /kept/other", "choose another one"),
      ("ln /missing /x", "there is no such file"),
      ("cat /kept", "/kept: this is a directory"),
      ("ls /a/../b", "names . and .. are not allowed"),
      ("--anonymous cat /kept/file", "ask the owner for access"),
      ("--anonymous rm -r /kept", "ask the owner for access"),
      ("--profile /nonexistent ls", "name a profile directory"),
      ("--address 127.0.0.1:1 ls", "is the process running there"),
      ("\(foreign) ls", "of this domain?"),
      ("rpc blocktree.v1.FilesystemService/Stat '{'", "in JSON"),
      ("rpc blocktree.v1.FilesystemService/Stat '{\"path\": \"/missing\"}'", "there is no such file"),
    ] {
      let end = try await self.run("btrpc --json \(line)")
      #expect(end.status == 1 && end.errors.contains(text), "\(line): \(end)")
      #expect(end.errors.hasPrefix("btrpc: ") && end.errors.dropLast().allSatisfy { $0 != "\n" }, "\(line): \(end)")
    }
    // One failure does not keep the others from being done.
    let some = try await self.run("btrpc cat /missing /kept/file")
    #expect(some.status == 1 && some.output == "x" && some.errors.contains("/missing"))
  }

  @Test("answers wrong usage with 64, before it calls anybody")
  func wrongUsage() async throws {
    for line in ["", "nonsense", "ls relative", "cat", "rm /", "rpc no.such/Call", "--timeout 0 ls", "chmod 99 /a"] {
      let end = try await self.run("BLOCKTREE_PROFILE=/nonexistent btrpc \(line)")
      // Without a command there is help.
      #expect(end.status == (line.isEmpty ? 0 : 64), "\(line): \(end)")
      #expect((line.isEmpty ? end.output : end.errors).uppercased().contains("USAGE:"), "\(line): \(end)")
    }
  }

  // MARK: Running

  private var bash: Shell { Shell(directory: self.local, profile: "\(self.scene.directory)/node/profile") }

  /// Runs lines of bash that have to succeed, each of them, and returns their output.
  @discardableResult
  private func shell(_ lines: String) async throws -> String { try await self.bash.succeed(lines) }

  /// Runs lines of bash in the directory of local files, with the owner's profile.
  private func run(_ lines: String) async throws -> Program.End { try await self.bash.run(lines) }
}
