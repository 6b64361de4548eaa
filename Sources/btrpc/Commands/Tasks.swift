// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc tasks`
package struct TasksCommand: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "tasks",
    abstract: "List what is done in the background for files and directories.",
    discussion: """
      These are new keys (revoke, rekey) and directories that are taken back from their clusters (process drain), at or \
      below the path: those that go on, and those that were finished lately. It takes the owner of the path, or of the root \
      directory.

      With --wait, the command ends when all that go on are over, and with status 1 when something is left undone.

      EXAMPLES:
        btrpc tasks
        btrpc tasks /projects --wait
        btrpc --json tasks | jq '.[] | select(.state == "waiting") | .problem'
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var waiting: WaitOptions

  @Argument(
    help: "A file or directory (default: /).", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath?

  package init() {}

  package func run(_ client: Client) async throws {
    let path = self.path?.text ?? "/"
    var tasks = try await about(path) { try await client.tasks(at: path) }
    var ended: [BackgroundTask] = []
    if self.waiting.wait {
      for (number, task) in tasks.enumerated() where !task.isOver {
        tasks[number] = try await self.waiting.end(of: task, client, isQuiet: self.options.json)
        ended.append(tasks[number])
      }
    }
    if self.options.json {
      try JSONOutput.print(tasks.map(TaskJSON.init))
    } else if tasks.isEmpty {
      try Standard.line("nothing is done there at present")
    } else {
      for line in TaskText.table(tasks) { try Standard.line(line) }
    }
    if ended.contains(where: \.isLeftUndone) { throw ExitCode.failure }
  }
}

/// `btrpc process drain`
package struct ProcessDrain: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "drain",
    abstract: "Take a directory back from its cluster, so that its processes can be removed.",
    discussion: """
      What the directory's cluster stores is moved to the cluster that stores the directory, in use: files can be read and \
      written all the time, except for a moment at the end, when writes wait. It is done in the background by the processes \
      of the directory above; see 'btrpc tasks'. After it, 'btrpc process remove' takes each process out of the tree.

      With --wait, the command ends when it is done, and with status 1 when it was given up or something is left.

      It takes the owner of the directory and of the root directory.

      EXAMPLES:
        btrpc process drain /site-b --wait
        btrpc process drain /site-b --cancel
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var waiting: WaitOptions

  @Flag(help: "Give it up, unless it is about to be finished; what was copied is removed.")
  var cancel = false

  @Argument(
    help: "The directory that has a cluster of its own.", completion: RemotePath.completion,
    transform: RemotePath.parse)
  var path: RemotePath

  package init() {}

  package func run(_ client: Client) async throws {
    let path = self.path.text
    let task = try await about(path) { try await client.drain(path, cancelling: self.cancel) }
    if self.cancel {
      let ended = self.waiting.wait ? try await self.waiting.end(of: task, client, isQuiet: self.options.json) : task
      if self.options.json { try JSONOutput.print(TaskJSON(ended)) }
      return
    }
    try await self.waiting.finish(task, of: path, client, json: self.options.json) { $0 ?? TaskJSON(task) }
  }
}

/// Whether and how it is waited for what is done in the background.
package struct WaitOptions: ParsableArguments {
  @Flag(help: "Wait until it is done in the background, too.")
  var wait = false

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  /// For processes that do not answer: others may take over.
  private static let patience = Duration.seconds(300)
  private static let interval = Duration.milliseconds(300)
  /// How often they may say that they do not know the task: one that has just begun to lead reads it first.
  private static let missesMax = 10

  package init() {}

  /// Ends a command that has begun a task: says what is done in the background, or waits for it.
  ///
  /// - Parameter report: what is printed as JSON.
  func finish(
    _ task: BackgroundTask?, of path: String, _ client: Client, json: Bool,
    _ report: (TaskJSON?) throws -> some Encodable
  ) async throws {
    guard let task else {
      if json { try JSONOutput.print(report(nil)) }
      return
    }
    guard self.wait else {
      if json { return try JSONOutput.print(report(TaskJSON(task))) }
      let what = task.kind == .drain ? "moving what its cluster stores" : "sealing anew what was written before"
      return try Standard.line(
        Terminal.escaped("\(path): \(what), in the background; see 'btrpc tasks \(task.path)'"))
    }
    let ended = try await self.end(of: task, client, isQuiet: json)
    if json { try JSONOutput.print(report(TaskJSON(ended))) } else { try Standard.line(TaskText.line(ended)) }
    if ended.isLeftUndone { throw ExitCode.failure }
  }

  /// Waits until a task is over, and answers how it was then.
  func end(of task: BackgroundTask, _ client: Client, isQuiet: Bool) async throws -> BackgroundTask {
    let progress = TaskProgressLine(isQuiet: self.quiet || isQuiet)
    defer { progress.finish() }
    var (last, lastHeard, missCount) = (task, ContinuousClock.now, 0)
    while !last.isOver {
      progress.draw(last)
      try await Task.sleep(for: Self.interval)
      do {
        if let present = try await client.task(last) {
          (last, lastHeard, missCount) = (present, .now, 0)
          continue
        }
        missCount += 1
      } catch let error as BlocktreeError {
        guard error.retry != .never || error.code == .deadlineExceeded || error.code == .unavailable,
          lastHeard + Self.patience > .now
        else { throw PathFailure(path: task.path, error: error) }
      }
      guard missCount < Self.missesMax else {
        throw CommandFailure("\(task.path): the task is over, or was forgotten; look at what it should have done")
      }
    }
    return last
  }
}

extension BackgroundTask {
  /// Whether it ended without having done all.
  var isLeftUndone: Bool { self.state == .cancelled || self.problem != nil }
}

/// A task as the commands print it.
package struct TaskJSON: Encodable {
  var id: String
  var kind: String
  var path: String
  var file: String
  var started: String
  /// `running`, `waiting`, `finished` or `cancelled`.
  var state: String
  var inodesDone: UInt64
  var inodesTotal: UInt64
  var bytesDone: UInt64
  var bytesTotal: UInt64
  var step: String?
  var problem: String?

  package init(_ task: BackgroundTask) {
    self.id = task.id
    self.kind = task.kind.description
    self.path = task.path
    self.file = task.file.description
    self.started = task.started.description
    self.state = task.state.rawValue
    self.inodesDone = task.inodesDone
    self.inodesTotal = task.inodesTotal
    self.bytesDone = task.bytesDone
    self.bytesTotal = task.bytesTotal
    self.step = task.step.isEmpty ? nil : task.step
    self.problem = task.problem
  }
}

/// What there is to say of a task.
package enum TaskText {
  package static func table(_ tasks: [BackgroundTask]) -> [String] {
    let header = ["Task", "Path", "State", "Files", "Bytes", "Started", "Now"]
    let rows = tasks.map { task in
      [
        task.kind.description, task.path, task.state.rawValue, self.part(task.inodesDone, task.inodesTotal) { "\($0)" },
        self.part(task.bytesDone, task.bytesTotal, Format.size), Format.time(task.started), task.problem ?? task.step,
      ].map(Terminal.escaped)
    }
    return Format.table([header] + rows, right: [3, 4])
  }

  /// How it ended.
  package static func line(_ task: BackgroundTask) -> String {
    let amount = "\(task.inodesDone) \(task.inodesDone == 1 ? "file" : "files"), \(Format.size(task.bytesDone))B"
    return Terminal.escaped(
      "\(task.path): \(task.kind) \(task.state.rawValue), \(amount)" + (task.problem.map { ": \($0)" } ?? ""))
  }

  private static func part(_ done: UInt64, _ total: UInt64, _ format: (UInt64) -> String) -> String {
    total > done ? "\(format(done))/\(format(total))" : format(done)
  }

  /// While it goes on.
  static func progress(_ task: BackgroundTask) -> String {
    let figures = [
      self.part(task.inodesDone, task.inodesTotal) { "\($0)" } + " files",
      self.part(task.bytesDone, task.bytesTotal, Format.size) + "B",
    ]
    let note = task.problem ?? task.step
    return Terminal.escaped(
      (["\(task.kind) \(task.path)"] + figures + (note.isEmpty ? [] : [note])).joined(separator: "  "))
  }
}

/// A line on the terminal that says how far a task is. Silent where standard error is no terminal.
private struct TaskProgressLine {
  let isEnabled: Bool

  init(isQuiet: Bool) { self.isEnabled = !isQuiet && Terminal.isErrorTerminal }

  func draw(_ task: BackgroundTask) {
    guard self.isEnabled else { return }
    Standard.writeError("\r\u{1b}[K\(TaskText.progress(task).prefix(max(8, Terminal.width - 1)))")
  }

  func finish() {
    if self.isEnabled { Standard.writeError("\r\u{1b}[K") }
  }
}
