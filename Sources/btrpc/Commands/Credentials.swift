// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import Trust

/// `btrpc process`
package struct ProcessCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "process", abstract: "Add, list and remove the processes of the domain.",
    subcommands: [ProcessAdd.self, ProcessList.self, ProcessRemove.self, ProcessDrain.self])

  package init() {}
}

/// `btrpc user`
package struct UserCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "user", abstract: "Add and list the users of the domain.",
    subcommands: [UserAdd.self, UserList.self])

  package init() {}
}

/// How long a new credential holds, and where its join package goes.
package struct IssueOptions: ParsableArguments {
  @Option(help: "How many days the credential holds; never longer than the authority's own.")
  var days = 365

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the join package to this file instead of printing it.", valueName: "file"),
    completion: .file())
  var output: String?

  package init() {}

  package func validate() throws {
    guard (1...36_500).contains(self.days) else { throw ValidationError("A credential holds for 1 to 36500 days.") }
  }

  @Flag(help: "Replace a credential that is there; whoever holds the keys of that one is locked out.")
  var replace = false

  var lifetime: Duration { .seconds(self.days * 86_400) }

  func issue(_ kind: CredentialKind, at path: RemotePath, request: String, _ client: Client) async throws -> JoinPackage
  {
    do {
      return try await client.issueCredential(
        kind, at: path.text, request: request, lifetime: self.lifetime, replaces: self.replace)
    } catch let error as BlocktreeError where error.reason == .alreadyExists && !self.replace {
      throw CommandFailure(
        "\(path): the name is taken; to give a credential new keys and lock out the old, use --replace")
    } catch {
      throw PathFailure(path: path.text, error: error)
    }
  }

  private struct Issued: Encodable {
    var path: String
    var kind: String
    var output: String?
    var profile: String?
    var joinPackage: String?
  }

  /// Hands over what was issued.
  func deliver(_ package: JoinPackage, kind: String, json: Bool) async throws {
    let text = package.pemRepresentation
    if let output, output != "-" {
      try await LocalFile.onThread {
        try LocalFile.writeWhole(Array(text.utf8), to: output, mode: 0o644, modified: nil)
      }
      if json { try JSONOutput.print(Issued(path: package.path, kind: kind, output: output)) }
    } else if json {
      try JSONOutput.print(Issued(path: package.path, kind: kind, joinPackage: text))
    } else {
      try Standard.write(text)
    }
  }

  static func report(_ package: JoinPackage, profile: String, json: Bool) throws {
    if json { return try JSONOutput.print(Issued(path: package.path, kind: "user", profile: profile)) }
    try Standard.line("made \(package.path), with its profile in \(profile)")
  }

  /// Reads a file of text, or standard input.
  static func read(_ path: String) async throws -> String {
    let bytes = try await LocalFile.onThread {
      var bytes: [UInt8] = []
      let descriptor = path == "-" ? 0 : try LocalFile.open(path, 0)
      while true {
        let part = try LocalFile.read(descriptor, count: 64 << 10)
        bytes.append(contentsOf: part)
        if part.isEmpty || bytes.count > 4 << 20 { return bytes }
      }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw CommandFailure("\(path): this is not text") }
    return text
  }
}

/// `btrpc process add`
package struct ProcessAdd: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Issue a credential for a new process.",
    discussion: """
      Takes what 'btnode request' printed on the new machine, signs it with the profile's authority, puts the credential \
      into the tree, and prints the join package that 'btnode join' wants there. A process with a filesystem service is \
      added to those of the profile, too, so that the domain is found there when others are gone.

      EXAMPLES:
        btnode request --dir D --listen 10.0.0.2:7001 > node2.request
        btrpc process add /node2 --services sector,filesystem --request node2.request > node2.join
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: ArgumentHelp("The services that the process hosts, with commas between.", valueName: "services"))
  var services: String

  @Option(help: ArgumentHelp("The new process's request, or -.", valueName: "file"), completion: .file())
  var request: String

  @OptionGroup var issue: IssueOptions

  @Argument(
    help: "The path of the new credential; the process serves the directory that it lies in.", completion: .file(),
    transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  package func run(_ client: Client) async throws {
    let request = try await IssueOptions.read(self.request)
    let services = self.services.split(separator: ",").map { String($0.filter { !$0.isWhitespace }) }
    let package = try await self.issue.issue(
      .process(services: services), at: self.path, request: request, client)
    try await self.issue.deliver(package, kind: "process", json: self.options.json)
    // One that only stores answers nothing that a profile's owner asks first.
    if let process = package.newProcess, services.contains("filesystem") {
      await self.options.updateProfile { try Profile.add(process, in: $0) }
    }
  }
}

/// `btrpc process remove`
package struct ProcessRemove: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "remove",
    abstract: "Take a process's credential out of the tree.",
    discussion: """
      The others go on without the process first. Then it is no member of the domain any more: nobody believes it, its \
      connections are closed, and it is struck out of the profile. What it has on its disk stays there. While too few of \
      the others run, it stays.

      EXAMPLES:
        btrpc process remove /node2
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(
    help: "The path of the process's credential.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  private struct Removed: Encodable {
    var path: String
  }

  package func run(_ client: Client) async throws {
    let path = self.path.inDomain
    try await about(self.path.text) {
      let info = try await client.stat(self.path.text, followsLink: false)
      guard info.type == .credential, try await CredentialListing(client, .process).isListed(info.id, at: self.path)
      else {
        throw CommandFailure("\(self.path): this is no credential of a process; see 'btrpc process list'")
      }
      try await client.removeCredential(self.path.text)
    }
    await self.options.updateProfile { try Profile.removeProcess(at: path, in: $0) }
    if self.options.json { try JSONOutput.print(Removed(path: path)) }
  }
}

/// `btrpc user add`
package struct UserAdd: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "add",
    abstract: "Issue a credential for a person or program.",
    discussion: """
      For somebody at another machine, take the request that 'btrpc profile request' made there, and send the join \
      package back. For somebody at this machine, make the whole profile with --create-profile.

      EXAMPLES:
        btrpc user add /people/bob --create-profile bob-profile
        btrpc user add /people/eve --request eve.request > eve.join
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: ArgumentHelp("The user's request, or -.", valueName: "file"), completion: .file())
  var request: String?

  @Option(
    help: ArgumentHelp("Make keys and a profile in this new directory.", valueName: "dir"), completion: .directory)
  var createProfile: String?

  @OptionGroup var issue: IssueOptions

  @Argument(help: "The path of the new credential.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  package func validate() throws {
    guard (self.request == nil) != (self.createProfile == nil) else {
      throw ValidationError("Give either --request or --create-profile.")
    }
  }

  package func run(_ client: Client) async throws {
    let request: String
    if let createProfile {
      request = try await LocalFile.onThread { try Profile.makeRequest(at: createProfile) }
    } else {
      request = try await IssueOptions.read(self.request ?? "-")
    }
    let package: JoinPackage
    do {
      package = try await self.issue.issue(.user, at: self.path, request: request, client)
    } catch {
      // Keys for a credential that may exist after all are kept.
      if let createProfile, Self.wasRefused(error) {
        try? await LocalFile.onThread { try Profile.discardRequest(at: createProfile) }
      }
      throw error
    }
    if let createProfile {
      try await LocalFile.onThread { try Profile.join(package, in: createProfile) }
      try IssueOptions.report(package, profile: createProfile, json: self.options.json)
    } else {
      try await self.issue.deliver(package, kind: "user", json: self.options.json)
    }
  }

  private static func wasRefused(_ error: any Error) -> Bool {
    guard let error = (error as? PathFailure)?.error as? BlocktreeError else { return true }
    if error.reason == .peerUnreachable || error.reason == .peerNotTrusted { return true }
    return ![.deadlineExceeded, .unavailable, .unknown, .internalError].contains(error.code)
  }
}
