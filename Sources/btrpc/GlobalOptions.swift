// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import FoundationEssentials

/// The options that every command takes.
package struct GlobalOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The profile directory (default: $BLOCKTREE_PROFILE, then ~/.config/blocktree).", valueName: "dir"),
    completion: .directory)
  package var profile: String?

  @Option(
    help: ArgumentHelp(
      "Start from this address instead of the profile's; may be given several times.", valueName: "host:port"))
  package var address: [String] = []

  @Option(
    help: ArgumentHelp(
      "Look for processes by this name in DNS, instead of the profile's, when none can be reached.",
      valueName: "name"))
  package var dns: String?

  @Option(help: ArgumentHelp("Give up an operation after so many seconds.", valueName: "seconds"))
  package var timeout: Double = 30

  @Flag(help: "Call without the profile's identity.")
  package var anonymous = false

  @Flag(help: "Print results as JSON.")
  package var json = false

  package init() {}

  package func validate() throws {
    guard self.timeout > 0, self.timeout <= 86_400 else {
      throw ValidationError("The timeout is a number of seconds, at most 86400.")
    }
  }

  /// Where the profile is.
  package var profileDirectory: String {
    self.profile ?? Profile.defaultDirectory(environment: ProcessInfo.processInfo.environment)
  }

  func loadProfile() throws -> Profile {
    var profile = try Profile(contentsOf: self.profileDirectory)
    if self.anonymous { profile = profile.anonymous }
    if !self.address.isEmpty { profile = try profile.starting(from: self.address) }
    if let dns { profile = try profile.finding(by: dns) }
    return profile
  }

  /// Changes the profile after something has changed in the domain. If that fails, it is said, but what was done is done.
  func updateProfile(_ body: @escaping @Sendable (_ directory: String) throws -> Bool) async {
    let directory = self.profileDirectory
    do {
      _ = try await LocalFile.onThread { try body(directory) }
    } catch {
      Standard.complain(Terminal.escaped("btrpc: the profile could not be updated: \(error)"))
    }
  }

  var clientConfiguration: ClientConfiguration {
    // People would rather hear at once that nobody is there.
    ClientConfiguration(
      timeout: .milliseconds(Int64(self.timeout * 1000)), connectionPatience: .zero, dnsServers: Self.dnsServers)
  }

  /// The DNS servers that `$BLOCKTREE_DNS_SERVERS` names, where those of the system are not the right ones.
  private static var dnsServers: [String] {
    let servers = ProcessInfo.processInfo.environment["BLOCKTREE_DNS_SERVERS"] ?? ""
    return servers.split(separator: ",").map(String.init)
  }
}

/// A command that talks to a domain.
package protocol ClientCommand: AsyncParsableCommand {
  var options: GlobalOptions { get }

  func run(_ client: Client) async throws
}

extension ClientCommand {
  package func run() async throws { try await self.connect() }

  /// Connects and does what the command does.
  func connect() async throws {
    try await withClient(self.options.loadProfile(), configuration: self.options.clientConfiguration) { client in
      // On one thread, calls need no hops. What blocks on local files runs elsewhere.
      try await client.onEventLoop { try await self.run(client) }
    }
  }

  /// Does the same to each of several paths; one that fails does not keep the others from being done.
  func forEach<Path>(_ paths: [Path], _ body: (Path) async throws -> Void) async throws {
    var hasFailed = false
    for path in paths {
      do {
        try await body(path)
      } catch {
        if error is CancellationError || error is PipeClosed || paths.count == 1 { throw error }
        Standard.flushQuietly()
        Standard.complain(ErrorText.line(for: error))
        hasFailed = true
      }
    }
    if hasFailed { throw ExitCode.failure }
  }
}
