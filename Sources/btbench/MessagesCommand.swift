// SPDX-License-Identifier: Apache-2.0

internal import Actors
internal import ArgumentParser
internal import Foundation

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// `btbench messages`
struct MessagesCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "messages",
    abstract: "Measures messages between actors of one process.",
    discussion: """
      Senders wait for room in the mailbox, so that they are never faster than the actor. A question is asked when the \
      one before is answered, unless it says how many are in flight. Beside each rate stands how many cores were busy.
      """)

  @Flag(help: "Only messages within one process, which is all there is.")
  var local = false

  @Option(help: ArgumentHelp("So many messages of each kind.", valueName: "number"))
  var messages = 1_000_000

  @Option(help: ArgumentHelp("So many idle actors.", valueName: "number"))
  var actors = 1_000_000

  @Option(help: "How often messages are measured.")
  var runs = 5

  @Option(help: ArgumentHelp("Write all figures there.", valueName: "file"), completion: .file())
  var json: String?

  @Flag(help: "A smoke run: few messages, few actors.")
  var quick = false

  func validate() throws {
    guard (1_000...1_000_000_000).contains(self.messages) else {
      throw ValidationError("--messages: 1000 to 1000000000")
    }
    guard (1_000...5_000_000).contains(self.actors) else { throw ValidationError("--actors: 1000 to 5000000") }
    guard (1...100).contains(self.runs) else { throw ValidationError("--runs: 1 to 100") }
  }

  func run() async throws {
    let figures = try await LocalMessages(
      messageCount: self.quick ? min(self.messages, 20_000) : self.messages,
      actorCount: self.quick ? min(self.actors, 20_000) : self.actors, runCount: self.quick ? 1 : self.runs
    ).measure()
    print(figures.table)
    if let json {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
      try encoder.encode(figures).write(to: URL(fileURLWithPath: json))
    }
  }
}

/// What was measured in one process.
struct LocalMessageFigures: Encodable {
  struct Rate: Encodable {
    let name: String
    /// Medians of all runs.
    let perSecond: Double
    let cores: Double
    let target: Double?
  }

  let format = 1
  let messageCount: Int
  let actorCount: Int
  var rates: [Rate] = []
  /// By how much the memory of this process grew; nil where the system does not say.
  var bytesPerIdleActor: Double?
  var spawnsPerSecond = 0.0
  /// Until all have ended.
  var shutdownSeconds = 0.0

  var table: String {
    var rows = [["messages within one process", "", "unit", "cores", "target"]]
    rows += self.rates.map { rate in
      [
        rate.name, Format.number(rate.perSecond.rounded()), "a second", Format.number(rate.cores),
        rate.target.map { Format.number($0) } ?? "",
      ]
    }
    rows.append(["\(self.actorCount) actors made", Format.number(self.spawnsPerSecond.rounded()), "a second", "", ""])
    if let bytesPerIdleActor {
      // A million in 1 GiB.
      rows.append(["each, idle", Format.number(bytesPerIdleActor.rounded()), "bytes", "", "1,073"])
    }
    rows.append(["all of them ended", Format.number(self.shutdownSeconds), "s", "", ""])
    return TextTable(rows: rows, numberColumns: [1, 3, 4]).lines.joined(separator: "\n")
  }
}

/// Actors that add up numbers, and who sends them some.
struct LocalMessages: Sendable {
  let messageCount: Int
  let actorCount: Int
  let runCount: Int

  enum Message: Sendable {
    case add(Int)
    case sum(Ask<Int, Int>)
  }

  struct Adder: ActorBehaviour {
    var sum = 0

    mutating func receive(_ message: Message, in context: ActorContext<Message>) {
      switch message {
      case .add(let number): self.sum &+= number
      case .sum(let ask): ask.reply(self.sum &+ ask.request)
      }
    }
  }

  struct AsyncAdder: AsyncActorBehaviour {
    var sum = 0

    mutating func receive(_ message: Message, in context: ActorContext<Message>) async {
      switch message {
      case .add(let number): self.sum &+= number
      case .sum(let ask): ask.reply(self.sum &+ ask.request)
      }
    }
  }

  // On a thread of the pool, where programs ask, and not on the main thread: that and an actor's would wake each other.
  @concurrent
  func measure() async throws -> LocalMessageFigures {
    var figures = LocalMessageFigures(messageCount: self.messageCount, actorCount: self.actorCount)
    let runtime = ActorRuntime(process: "/bench")
    let sync = try runtime.spawn { _ in Adder() }
    let async = try runtime.spawn { _ in AsyncAdder() }
    // Slower ones are measured with fewer, so that a run does not take longer than it must.
    let few = max(64, self.messageCount / 10)
    try await self.add(to: &figures, "ask", self.messageCount, target: 1_000_000) {
      for number in 0..<$0 { _ = try await sync.ask(number, as: Message.sum) }
    }
    try await self.add(to: &figures, "ask, async handler", few) {
      for number in 0..<$0 { _ = try await async.ask(number, as: Message.sum) }
    }
    try await self.add(to: &figures, "ask, async handler, 64 in flight", few) { count in
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<64 {
          group.addTask {
            for number in 0..<(count / 64) { _ = try await async.ask(number, as: Message.sum) }
          }
        }
        try await group.waitForAll()
      }
    }
    for (name, actor) in [("tell", sync), ("tell, async handler", async)] {
      try await self.add(to: &figures, name, self.messageCount) {
        for number in 0..<$0 { try await actor.send(.add(number)) }
        // Answered when all have been handled.
        _ = try await actor.ask(0, as: Message.sum)
      }
    }
    try self.addIdle(to: &figures, runtime)
    let begin = ContinuousClock.now
    await runtime.shutdown()
    figures.shutdownSeconds = (ContinuousClock.now - begin) / .seconds(1)
    return figures
  }

  private func add(
    to figures: inout LocalMessageFigures, _ name: String, _ count: Int, target: Double? = nil,
    _ body: (Int) async throws -> Void
  ) async throws {
    var (rates, cores): ([Double], [Double]) = ([], [])
    for _ in 0..<self.runCount {
      let (begin, busy) = (ContinuousClock.now, Self.processorSeconds)
      try await body(count)
      let seconds = (ContinuousClock.now - begin) / .seconds(1)
      rates.append(Double(count) / seconds)
      cores.append((Self.processorSeconds - busy) / seconds)
    }
    let middle = self.runCount / 2
    figures.rates.append(
      .init(name: name, perSecond: rates.sorted()[middle], cores: cores.sorted()[middle], target: target))
  }

  private func addIdle(to figures: inout LocalMessageFigures, _ runtime: ActorRuntime) throws {
    var actors: [ActorRef<Message>] = []
    actors.reserveCapacity(self.actorCount)
    let (before, begin) = (Self.residentByteCount, ContinuousClock.now)
    for _ in 0..<self.actorCount { actors.append(try runtime.spawn { _ in Adder() }) }
    figures.spawnsPerSecond = Double(self.actorCount) / ((ContinuousClock.now - begin) / .seconds(1))
    if let before, let after = Self.residentByteCount {
      figures.bytesPerIdleActor = Double(after - before) / Double(self.actorCount)
    }
  }

  /// Of all threads of this process.
  private static var processorSeconds: Double {
    // POSIX: millionths of a second, whatever the clock's resolution.
    Double(clock()) / 1e6
  }

  private static var residentByteCount: Int? {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
    return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map {
      $0 * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
  }
}
