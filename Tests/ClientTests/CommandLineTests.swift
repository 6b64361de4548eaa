// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlocktreeClient
import BlocktreeSchema
import Foundation
import SwiftProtobuf
import Testing
import btrpc

@Suite("The command line")
struct CommandLineTests {
  private func exitCode(_ arguments: [String]) -> Int32 {
    do {
      _ = try Btrpc.parseAsRoot(arguments)
      return 0
    } catch {
      return Btrpc.exitCode(for: error).rawValue
    }
  }

  @Test("takes the common options before and after the command's name")
  func commonOptions() throws {
    for arguments in [
      ["--profile", "/p", "--json", "ls", "-l", "/a"], ["ls", "--profile", "/p", "--json", "-l", "/a"],
      ["--profile", "/p", "ls", "-l", "/a", "--json"],
    ] {
      let command = try #require(try Btrpc.parseAsRoot(arguments) as? Ls)
      #expect(command.options.profileDirectory == "/p" && command.options.json, "\(arguments)")
    }
    let nested = try #require(
      try Btrpc.parseAsRoot(["--json", "sector", "verify", "1:2", "--profile", "/p"]) as? SectorVerify)
    #expect(nested.options.json && nested.options.profile == "/p")
  }

  @Test("takes what the manual shows")
  func examples() {
    let examples = [
      "ls", "ls -l /home/ann", "stat /a /b", "cat --offset 1048576 --count 4096 /disk.img", "get /home/ann/report.pdf",
      "get -r /home/ann/photos /tmp", "get /backup/shop.sql -", "put report.pdf /home/ann", "put -r photos /home/ann",
      "put - /backup/shop.sql", "put -m 0600 - /secret", "mkdir -p -m 0700 /home/ann/private/keys", "rm -r /build",
      "rm -f /a /b", "mv /inbox/1 /inbox/2 /archive", "ln /data/report.pdf /home/ann/report.pdf",
      "ln -s ../data /home/ann/data", "chmod 0600 /a", "chmod -R go-rwx /a", "chmod -- -x /a",
      "chmod u=rw,g-w,o=,+X /a", "chown /home/bob /a", "chown -R /home/bob:/teams/x /a", "chown :/teams/x /a", "df",
      "tree -L 2 -s /", "status", "sector inode 1:2", "sector read 1:17 --index 0 --output sealed.bin",
      "sector verify 1:17 /a", "process add /node2 --services sector,filesystem --request node2.request",
      "process add /site/node3 --services sector --request - --days 30", "process list /site1",
      "user add /people/bob --create-profile bob", "user add /people/eve --request eve.request", "user list",
      "profile show", "profile request dir", "profile join dir --credential ann.join", "rpc --list",
      "rpc blocktree.v1.FilesystemService/Stat {}", "rpc grpc.health.v1.Health/Check",
      "--anonymous --timeout 5 --address a:1 --address b:2 ls /", "cat --sealed /a/b", "get --sealed /a/b c",
      "grant /a /people/bob", "grant /a /people/bob --permission rwx", "grant /a /people --group", "grant /a --parent",
      "grant /a /people/bob --key --permission rx", "revoke /a /people/bob --wait", "revoke /a /people --group",
      "revoke /a --parent", "rekey /a --wait", "tasks", "tasks /a --wait --quiet", "process drain /site-b --wait",
      "process drain /site-b --cancel",
    ]
    for example in examples {
      #expect(self.exitCode(example.split(separator: " ").map(String.init)) == 0, "\(example)")
    }
  }

  @Test("answers wrong usage with 64")
  func wrongUsage() {
    let wrong = [
      "nonsense", "ls relative", "ls --nonsense", "cat", "put a", "put a b", "put - a /b", "get relative", "rm /",
      "mv /a", "chmod 99 /a", "chmod u+q /a", "chmod", "chown bob /a", "ln target /link", "tree -L 0", "rpc",
      "rpc no.such/Call", "sector read 1:0", "sector read 1:2 --count 0", "user add /a",
      "user add /a --request r --create-profile d", "process add /a --request r", "user add /a --request r --days 0",
      "--timeout 0 ls", "--timeout -1 ls", "get -r --sealed /a", "grant /a", "grant /a /b --permission rq",
      "grant /a /b --permission -", "grant /a /b --permission rr", "grant /a /b --key --group", "grant /a /b --parent",
      "grant /a /b --key --permission w", "revoke /a", "revoke /a /b --parent", "revoke /a --parent --wait", "rekey",
      "process drain",
    ]
    for example in wrong {
      #expect(self.exitCode(example.split(separator: " ").map(String.init)) == 64, "\(example)")
    }
  }

  @Test("has a help text for each command, with examples")
  func help() {
    let commands: [any ParsableCommand.Type] = [
      Btrpc.self, Ls.self, Stat.self, Cat.self, Get.self, Put.self, Mkdir.self, Rm.self, Mv.self, Ln.self, Chmod.self,
      Chown.self, Df.self, TreeCommand.self, StatusCommand.self, SectorRead.self, SectorInode.self, SectorVerify.self,
      ProcessAdd.self, ProcessList.self, UserAdd.self, UserList.self, ProfileRequest.self, ProfileJoin.self, Rpc.self,
      Grant.self, Revoke.self, Rekey.self, TasksCommand.self, ProcessDrain.self,
    ]
    for command in commands {
      let text = Btrpc.helpMessage(for: command)
      #expect(text.contains("USAGE:") && text.contains("EXAMPLES:"), "\(command)")
    }
  }

  @Test("completes in the shells", arguments: [CompletionShell.bash, .zsh, .fish])
  func completions(shell: CompletionShell) {
    #expect(Btrpc.completionScript(for: shell).contains("process"))
  }
}

@Suite("A path on the command line")
struct RemotePathTests {
  @Test(
    "is taken as it was meant",
    arguments: [
      ("/", "/", true), ("/a", "/a", false), ("/a/", "/a", true), ("//a///b//", "/a/b", true),
      ("/ü b/é", "/ü b/é", false), ("bt://abc/a/", "bt://abc/a", true), ("bt://abc/", "bt://abc/", true),
      ("/e\u{301}", "/e\u{301}", false),
    ])
  func normalised(argument: String, text: String, meansDirectory: Bool) throws {
    let path = try #require(RemotePath(argument: argument))
    #expect(Array(path.text.utf8) == Array(text.utf8) && path.meansDirectory == meansDirectory)
  }

  @Test("begins with a slash or names a domain")
  func refused() {
    for argument in ["", "a", "./a", "../a", "-", "bt://abc", "http://x/"] {
      #expect(RemotePath(argument: argument) == nil, "\(argument)")
    }
  }

  @Test("has a last name, except the root")
  func names() throws {
    #expect(RemotePath(argument: "/a/b/")?.name == "b")
    #expect(RemotePath(argument: "/")?.name == nil)
    #expect(RemotePath(argument: "bt://abc/")?.name == nil)
    #expect(RemotePath(argument: "/")?.appending("x").text == "/x")
    #expect(RemotePath(argument: "/a")?.appending("x").text == "/a/x")
    #expect(LocalPath.name(of: "a/b/") == "b" && LocalPath.name(of: "..") == nil && LocalPath.name(of: "/") == nil)
  }

  @Test("may stand for an owner and a group")
  func ownership() {
    #expect(Ownership(argument: "/a")?.owner == "/a")
    #expect(Ownership(argument: ":/g")?.group == "/g")
    #expect(Ownership(argument: "/a:b:/g")?.owner == "/a:b")
    #expect(Ownership(argument: "/a:b:/g")?.group == "/g")
    #expect(Ownership(argument: "a") == nil)
  }
}

@Suite("A mode on the command line")
struct ModeExpressionTests {
  @Test(
    "does what chmod does",
    arguments: [
      ("0640", 0o777, false, 0o640), ("u+x", 0o644, false, 0o744), ("go-rwx", 0o777, false, 0o700),
      ("a=r", 0o777, false, 0o444), ("+X", 0o644, false, 0o644), ("+X", 0o744, false, 0o755),
      ("+X", 0o600, true, 0o711),
      ("u=rw,g=r,o=", 0o777, false, 0o640), ("g=u", 0o740, false, 0o770), ("o+g-x", 0o750, false, 0o754),
      ("u+s", 0o755, false, 0o4755), ("g-s", 0o2755, false, 0o755), ("+t", 0o777, true, 0o1777),
      ("-w", 0o666, false, 0o444),
      ("=", 0o777, false, 0),
    ] as [(String, UInt16, Bool, UInt16)])
  func applied(expression: String, before: UInt16, isDirectory: Bool, after: UInt16) throws {
    let mode = try #require(ModeExpression(argument: expression))
    #expect(mode.applied(to: FileMode(rawValue: before), isDirectory: isDirectory) == FileMode(rawValue: after))
  }

  @Test("is refused when it is none")
  func refused() {
    for argument in ["", "8", "77777", "u", "u+q", "x+r", "u+r,", "rw", "u~x"] {
      #expect(ModeExpression(argument: argument) == nil, "\(argument)")
    }
  }
}

@Suite("What is printed")
struct OutputTests {
  @Test(
    "sizes are short",
    arguments: [
      (0, "0"), (1023, "1023"), (1024, "1.0K"), (1025, "1.1K"), (10_188, "10K"), (10_240, "10K"), (1_048_575, "1.0M"),
      (1 << 30, "1.0G"), (1_500_000_000, "1.4G"), (UInt64.max, "16E"),
    ] as [(UInt64, String)])
  func sizes(byteCount: UInt64, text: String) {
    #expect(Format.size(byteCount) == text)
  }

  @Test("the time left is told where it can be, whatever size the other side claims")
  func timeLeft() {
    #expect(Format.timeLeft(byteCount: 65_000, bytesPerSecond: 1_000) == "1m 05s")
    #expect(Format.timeLeft(byteCount: 0, bytesPerSecond: 1) == "0.0s")
    #expect(Format.timeLeft(byteCount: 350_000, bytesPerSecond: 1) == "97h 13m")
    for (byteCount, rate): (UInt64, Double) in [(.max, 1), (.max, 1e-300), (.max, 0), (0, 0), (360_000, 1), (1, .nan)] {
      #expect(Format.timeLeft(byteCount: byteCount, bytesPerSecond: rate) == nil)
    }
  }

  @Test("exact sizes have both forms")
  func exactSizes() {
    #expect(Format.exactSize(1) == "1 byte")
    #expect(Format.exactSize(1_048_576) == "1.0 MiB (1,048,576 bytes)")
  }

  @Test("modes look as those of ls")
  func modes() {
    #expect(Format.mode(0o755, .directory) == "drwxr-xr-x")
    #expect(Format.mode(0o4644, .file) == "-rwSr--r--")
    #expect(Format.mode(0o1777, .directory, hasAccessList: true) == "drwxrwxrwt+")
  }

  @Test("tables are aligned")
  func tables() {
    #expect(Format.table([["a", "10", "x"], ["bbb", "5", "yy"]], right: [1]) == ["a    10  x", "bbb   5  yy"])
  }

  @Test("names can not move the cursor, change colours or turn text round")
  func escaping() {
    #expect(Terminal.escaped("plain ü … 日本") == "plain ü … 日本")
    #expect(Terminal.escaped("a\u{1b}[31mred\u{7}\n\u{202e}") == "a\\u{1b}[31mred\\u{7}\\n\\u{202e}")
    #expect(Terminal.escaped("\r\t\u{9b}") == "\\r\\t\\u{9b}")
  }

  @Test("errors are one line that says what to do")
  func errors() {
    let denied = BlocktreeError(code: .permissionDenied, reason: .permissionDenied, message: "You may not do this.")
    #expect(ErrorText.line(for: denied).contains("ask the owner"))
    let newlines = BlocktreeError(code: .unavailable, message: "a\nb")
    #expect(!ErrorText.line(for: newlines).contains("\n"))
    let damaged = BlocktreeError(
      code: .dataLoss, reason: .dataLoss, message: "", metadata: ["file": "1:9", "offset": "4096"])
    #expect(ErrorText.line(for: damaged).contains("file 1:9, offset 4096"))
  }

  @Test("files in JSON are exact")
  func json() throws {
    let info = try FileInfo.sample()
    let text = try JSONOutput.text(FileJSON(path: "/a", info: info), pretty: false)
    let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(object["size"] as? UInt64 == 1 << 49)
    #expect(object["mode"] as? String == "0640")
    #expect(object["modified"] as? String == "2024-02-29T23:59:59.123456789Z")
    #expect(object["id"] as? String == "1:17")
    #expect(object["type"] as? String == "file")
    #expect(object["target"] == nil)
  }
}

extension FileInfo {
  static func sample() throws -> FileInfo {
    let time = Timestamp(nanoseconds: 1_709_251_199_123_456_789)
    return FileInfo(
      id: FileID(generation: 1, inode: 17), type: .file, size: 1 << 49, version: 3, linkCount: 1, mode: 0o640,
      owner: "/people/ann", group: "/", access: [], modified: time, changed: time, accessed: time, created: time,
      storedByteCount: 4096)
  }
}

@Suite("The table of calls")
struct RPCTableTests {
  @Test("has each call of the schema, with its messages and streams")
  func complete() throws {
    var expected: Set<String> = []
    for file in SchemaDescriptors.fileSet.file {
      for service in file.service {
        for method in service.method {
          let name = "\(file.package).\(service.name)/\(method.name)"
          expected.insert(name)
          guard let known = RPCTable.method(name) else {
            Issue.record("\(name) is missing")
            continue
          }
          #expect(".\(known.request)" == method.inputType && ".\(known.response)" == method.outputType, "\(name)")
          #expect(known.takesStream == method.clientStreaming, "\(name)")
          #expect(known.answersStream == method.serverStreaming, "\(name)")
        }
      }
    }
    #expect(Set(RPCTable.methods.map(\.name)) == expected && RPCTable.methods.count == expected.count)
  }
}
