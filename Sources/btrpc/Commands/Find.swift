// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc find`
package struct FindCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "find", abstract: "Find the processes that host a service, by path.",
    subcommands: [FindContained.self, FindNearest.self])

  package init() {}
}

/// What both queries take.
package struct FindOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The path of a file or directory.", valueName: "path"), completion: RemotePath.completion,
    transform: RemotePath.parse)
  var scope: RemotePath

  @Option(
    help: ArgumentHelp("The service, such as filesystem or sector (default: any).", valueName: "name"))
  var service: String?

  @Flag(help: "Print each process that was asked, and what it said, on standard error.")
  var explain = false

  package init() {}

  func run(_ kind: FindKind, _ client: Client, json: Bool) async throws {
    let result = try await about(self.scope.text) {
      try await client.find(kind, service: self.service, scope: self.scope.text)
    }
    if json { return try JSONOutput.print(FindReport(result, explains: self.explain)) }
    if self.explain {
      for (number, line) in FindReport.lines(result.steps).enumerated() { Standard.complain("\(number + 1). \(line)") }
    }
    let found = result.found
    if found.isStale { Standard.noteStale(found.directory ?? self.scope.text) }
    let header = ["Path", "Services", "Addresses"]
    let rows = found.processes.map {
      [$0.path, $0.services.joined(separator: ","), $0.addresses.joined(separator: ",")].map(Terminal.escaped)
    }
    if !rows.isEmpty { for line in Format.table([header] + rows) { try Standard.line(line) } }
    if rows.isEmpty {
      Standard.flushQuietly()
      Standard.complain("btrpc: no process hosts that there")
      throw ExitCode.failure
    }
  }
}

/// `btrpc find contained`
package struct FindContained: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "contained",
    abstract: "Find all processes directly in a directory.",
    discussion: """
      Ends with status 1 when there are none.

      EXAMPLES:
        btrpc find contained --scope /site-b --service sector
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var find: FindOptions

  package init() {}

  package func run(_ client: Client) async throws {
    try await self.find.run(.contained, client, json: self.options.json)
  }
}

/// `btrpc find nearest`
package struct FindNearest: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "nearest",
    abstract: "Find the processes in the closest directory at or above a path that has any.",
    discussion: """
      Ends with status 1 when there are none.

      EXAMPLES:
        btrpc find nearest --scope /site-b/home/ann --service filesystem
        btrpc find nearest --scope /site-b --service filesystem --anonymous --explain
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var find: FindOptions

  package init() {}

  package func run(_ client: Client) async throws {
    try await self.find.run(.nearest, client, json: self.options.json)
  }
}

/// What a query found, as it is printed.
package struct FindReport: Encodable {
  struct Process: Encodable {
    var path: String
    var services: [String]
    var addresses: [String]

    init(_ process: FoundProcess) {
      self.path = process.path
      self.services = process.services
      self.addresses = process.addresses
    }
  }

  package struct Step: Encodable {
    var directory: String
    /// Who answered.
    var process: String?
    /// `asking`, `redirected`, `unreachable`, `answered`, `remembered` or `fallback`.
    var event: String
    /// Whether a route led there that was known before.
    var isKnown: Bool?
    /// Where it goes on.
    var to: String?
    var processCount: Int?
    var lifetimeMilliseconds: Int64?
    var error: String?

    init(_ step: FindStep) {
      self.directory = step.directory
      self.process = step.process
      switch step.event {
      case .asking(let isKnown):
        self.event = "asking"
        self.isKnown = isKnown
      case .redirected(let to, let processCount, let lifetime):
        self.event = "redirected"
        self.to = to
        self.processCount = processCount
        self.lifetimeMilliseconds = lifetime.milliseconds
      case .unreachable(let error):
        self.event = "unreachable"
        self.error = error
      case .answered: self.event = "answered"
      case .remembered(let lifetime):
        self.event = "remembered"
        self.lifetimeMilliseconds = lifetime.milliseconds
      case .fallback(let to):
        self.event = "fallback"
        self.to = to
      }
    }
  }

  var directory: String?
  var processes: [Process]
  var lifetimeMilliseconds: Int64
  var isStale: Bool?
  /// With `--explain`.
  var steps: [Step]?

  package init(_ result: FindResult, explains: Bool) {
    self.directory = result.found.directory
    self.processes = result.found.processes.map(Process.init)
    self.lifetimeMilliseconds = result.found.lifetime.milliseconds
    self.isStale = result.found.isStale ? true : nil
    self.steps = explains ? result.steps.map(Step.init) : nil
  }

  /// For people.
  package static func lines(_ steps: [FindStep]) -> [String] {
    steps.map { step in
      let who = step.process ?? "the processes of \(step.directory)"
      let text =
        switch step.event {
        case .asking(true): "asking the processes of \(step.directory), which are known"
        case .asking(false): "asking the processes of \(step.directory), by the redirect"
        case .redirected(let to, let count, let lifetime):
          "\(who) sends on to \(to), with \(count) \(count == 1 ? "process" : "processes"), for "
            + Format.duration(lifetime)
        case .unreachable(let error): "the processes of \(step.directory) can not be reached: \(error)"
        case .answered: "\(who) has answered"
        case .remembered(let lifetime):
          "nobody is asked: the answer, about \(step.directory), is remembered for \(Format.duration(lifetime))"
        case .fallback(let to): "nobody deeper is known there: the nearest is in \(to), as was said on the way"
        }
      return Terminal.escaped(text)
    }
  }
}

/// `btrpc routes`
package struct RoutesCommand: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "routes",
    abstract: "List what a process remembers of who serves which directory.",
    discussion: """
      The process is the one that answers; choose it with --address. It takes the owner of the directory that its \
      credential lies in.

      EXAMPLES:
        btrpc routes
        btrpc --address 10.0.0.3:7001 --json routes | jq -r '.routes[].scope'
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: "List so many at most, up to 1000.")
  var count = 1000

  package init() {}

  package func validate() throws {
    guard (1...1000).contains(self.count) else { throw ValidationError("The count is a number from 1 to 1000.") }
  }

  private struct Report: Encodable {
    struct Route: Encodable {
      var scope: String
      var service: String
      var processes: [FindReport.Process]
      var lifetimeMilliseconds: Int64
    }

    var total: UInt64
    var routes: [Route]
  }

  package func run(_ client: Client) async throws {
    let (routes, total) = try await client.knownRoutes(self.count)
    if self.options.json {
      return try JSONOutput.print(
        Report(
          total: total,
          routes: routes.map {
            .init(
              scope: $0.scope, service: $0.service, processes: $0.processes.map(FindReport.Process.init),
              lifetimeMilliseconds: $0.lifetime.milliseconds)
          }))
    }
    let header = ["Scope", "Service", "For", "Processes"]
    let rows = routes.map { route in
      [
        route.scope, route.service, Format.duration(route.lifetime),
        route.processes.isEmpty ? "none" : route.processes.map(\.path).joined(separator: ","),
      ].map(Terminal.escaped)
    }
    for line in Format.table([header] + rows, right: [2]) { try Standard.line(line) }
    if total > UInt64(routes.count) { try Standard.line("and \(total - UInt64(routes.count)) more") }
  }
}

extension Duration {
  fileprivate var milliseconds: Int64 {
    self.components.seconds * 1000 + self.components.attoseconds / 1_000_000_000_000_000
  }
}
