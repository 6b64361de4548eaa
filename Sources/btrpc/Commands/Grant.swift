// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `r`, `rw`, `rx` and so on, as an argument.
package struct PermissionArgument: ExpressibleByArgument, Hashable, Sendable {
  /// 4 read, 2 write, 1 execute.
  package let bits: UInt8

  package init(bits: UInt8) { self.bits = bits }

  package init?(argument: String) {
    var bits: UInt8 = 0
    for letter in argument {
      let bit: UInt8 =
        switch letter {
        case "r": 4
        case "w": 2
        case "x": 1
        case "-": 0
        default: 8
        }
      guard bit < 8, bit == 0 || bits & bit == 0 else { return nil }
      bits |= bit
    }
    guard bits > 0 else { return nil }
    self.bits = bits
  }
}

/// `btrpc grant`
package struct Grant: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Give a user, process or group permission for a file or directory, and perhaps its key.",
    usage: """
      btrpc grant <path> <principal> [--permission <permission>] [--key] [--group]
      btrpc grant <path> --parent
      """,
    discussion: """
      The permission takes the place of the one that the principal had in the access list. With --key it is also given the \
      key, sealed to it: it can read what is there, and all that is below, from whoever stores it, and decrypt it by itself \
      (see 'btrpc cat --sealed').

      With --parent, a directory that was cut off is joined to the directory above again. It takes a process of the \
      directory above that was granted the key before.

      It takes the owner of the file, or of the root directory.

      EXAMPLES:
        btrpc grant /projects/x /people/bob --permission rwx
        btrpc grant /projects/x /people/bob --key
        btrpc grant /projects/x/notes.txt /people --group
        btrpc grant /site-b --parent
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(
    help: ArgumentHelp(
      "Some of r, w and x (default: r for a file, rx for a directory).", valueName: "permission"))
  var permission: PermissionArgument?

  @Flag(help: "Give the principal the key, too.")
  var key = false

  @Flag(help: "The principal is a directory: all below it are meant.")
  var group = false

  @Flag(help: "Join the directory to the one above again.")
  var parent = false

  @Argument(help: "A file or directory.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  @Argument(
    help: "The path of a credential, or with --group of a directory.", completion: RemotePath.completion,
    transform: RemotePath.parse)
  var principal: RemotePath?

  package init() {}

  package func validate() throws {
    if self.parent {
      guard self.principal == nil, self.permission == nil, !self.key, !self.group else {
        throw ValidationError("--parent stands alone: the directory above is meant.")
      }
    } else if self.principal == nil {
      throw ValidationError("Name a principal, or use --parent.")
    }
    guard !(self.key && self.group) else { throw ValidationError("A group can have no key.") }
    if self.key, let permission, permission.bits & 4 == 0 {
      throw ValidationError("With the key goes the permission to read.")
    }
  }

  package func run(_ client: Client) async throws {
    let path = self.path.text
    let info = try await about(path) {
      guard let principal else { return try await client.setCutOff(path, false) }
      let bits: UInt8
      if let permission {
        bits = permission.bits
      } else {
        bits = try await client.stat(path).type == .directory ? 5 : 4
      }
      return try await client.grant(
        path, to: principal.text, isGroup: self.group, permission: bits, withKey: self.key)
    }
    if self.options.json { try JSONOutput.print(FileJSON(path: path, info: info)) }
  }
}

/// A file with what is done for it in the background.
struct ChangedFileJSON: Encodable {
  var file: FileJSON
  var task: TaskJSON?
}

/// `btrpc revoke`
package struct Revoke: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Take back what was granted, and the key with it.",
    usage: """
      btrpc revoke <path> <principal> [--group] [--wait]
      btrpc revoke <path> --parent
      """,
    discussion: """
      If the principal had the key, a new one is drawn: what is written from now on, there and below, the former key does \
      not open. What was written before is sealed anew in the background; see 'btrpc tasks'. What somebody has read, or \
      copied while he had the key, can not be taken back.

      With --parent, a directory is cut off from the directory above: its key stands there no longer, and those who serve \
      the directories above can not read it. Somebody else must have the key, by a readcap. To be able to join it again, \
      grant the key to a process of the directory above first.

      It takes the owner of the file, or of the root directory.

      EXAMPLES:
        btrpc revoke /projects/x /people/bob
        btrpc revoke /projects/x /people/bob --wait
        btrpc revoke /site-b --parent
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(help: "The principal is a directory.")
  var group = false

  @Flag(help: "Cut the directory off from the one above.")
  var parent = false

  @OptionGroup var waiting: WaitOptions

  @Argument(help: "A file or directory.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  @Argument(
    help: "The path of a credential, which need not be there any more, or with --group of a directory.",
    completion: RemotePath.completion, transform: RemotePath.parse)
  var principal: RemotePath?

  package init() {}

  package func validate() throws {
    if self.parent {
      guard self.principal == nil, !self.group, !self.waiting.wait else {
        throw ValidationError("--parent stands alone: the directory above is meant.")
      }
    } else if self.principal == nil {
      throw ValidationError("Name a principal, or use --parent.")
    }
  }

  package func run(_ client: Client) async throws {
    let path = self.path.text
    guard let principal else {
      let info = try await Self.keepingReaders(path) { try await client.setCutOff(path, true) }
      if self.options.json { try JSONOutput.print(ChangedFileJSON(file: FileJSON(path: path, info: info))) }
      return
    }
    let (info, task) = try await Self.keepingReaders(path) {
      try await client.revoke(path, from: principal.text, isGroup: self.group)
    }
    try await self.waiting.finish(task, of: path, client, json: self.options.json) {
      ChangedFileJSON(file: FileJSON(path: path, info: info), task: $0)
    }
  }
}

extension Revoke {
  /// What is cut off, and read by nobody, would be lost: that is refused.
  fileprivate static func keepingReaders<Result>(
    _ path: String, _ body: () async throws -> Result
  ) async throws -> Result {
    do {
      return try await about(path, body)
    } catch let failure as PathFailure {
      guard let error = failure.error as? BlocktreeError, error.reason == .invalidRequest,
        let field = error.metadata["field"], field == "principal" || field == "is_cut_off"
      else { throw failure }
      throw CommandFailure("\(path): nobody else would have the key, and all of it would be lost; grant it first")
    }
  }
}

/// `btrpc rekey`
package struct Rekey: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Give a file or directory, and all that is below, new keys.",
    discussion: """
      What is written from now on, the former keys do not open. What was written before is sealed anew in the background; \
      see 'btrpc tasks'. Whoever was granted the key has the new one.

      It takes the owner of the file, or of the root directory.

      EXAMPLES:
        btrpc rekey /projects/x --wait
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var waiting: WaitOptions

  @Argument(help: "A file or directory.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  package func run(_ client: Client) async throws {
    let path = self.path.text
    let (info, task) = try await about(path) { try await client.rekey(path) }
    try await self.waiting.finish(task, of: path, client, json: self.options.json) {
      ChangedFileJSON(file: FileJSON(path: path, info: info), task: $0)
    }
  }
}
