// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import Foundation
private import Synchronization

/// `btrpc message`
package struct MessageCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "message", abstract: "Talk to services that programs host, by path; and host some.",
    subcommands: [MessageCall.self, MessageSend.self, MessageServe.self])

  package init() {}
}

/// Which service is meant, and what is said.
package struct MessageOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp("The directory whose processes host the service.", valueName: "path"),
    completion: RemotePath.completion, transform: RemotePath.parse)
  var scope: RemotePath

  @Option(help: ArgumentHelp("The service.", valueName: "name"))
  var service: String

  @Flag(help: "Also take the service of the nearest directory above that has it.")
  var nearest = false

  @Option(help: ArgumentHelp("What the message is, for whoever gets it.", valueName: "type"))
  var type = ""

  @Argument(help: "What is said; \"-\" (the default) reads it from standard input.")
  var text = "-"

  package init() {}

  var kind: FindKind { self.nearest ? .nearest : .contained }

  func payload() throws -> MessagePayload {
    let bytes =
      self.text == "-" ? Array(try FileHandle.standardInput.readToEnd() ?? Data()) : Array(self.text.utf8)
    return MessagePayload(typeName: self.type, bytes: bytes)
  }
}

/// `btrpc message call`
package struct MessageCall: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "call",
    abstract: "Ask a service, and print its answer.",
    discussion: """
      EXAMPLES:
        btrpc message call --scope /site-b --service thumbnailer < picture.png > small.png
        btrpc message call --scope /site-b/pictures --nearest --service echo hello
      """)

  @OptionGroup package var options: GlobalOptions
  @OptionGroup var message: MessageOptions

  @Option(help: ArgumentHelp("How long the answer may take, up to 600.", valueName: "seconds"))
  var patience = 10.0

  package init() {}

  package func validate() throws {
    guard self.patience > 0, self.patience <= 600 else { throw ValidationError("Wait for up to 600 seconds.") }
  }

  package func run(_ client: Client) async throws {
    let payload = try self.message.payload()
    let answer = try await about(self.message.scope.text) {
      try await client.call(
        self.message.service, self.message.kind, scope: self.message.scope.text, payload,
        patience: .seconds(self.patience))
    }
    if self.options.json {
      return try JSONOutput.print(
        Answer(type: answer.typeName, data: Data(answer.bytes), text: String(validating: answer.bytes, as: UTF8.self)))
    }
    try FileHandle.standardOutput.write(contentsOf: Data(answer.bytes))
  }

  private struct Answer: Encodable {
    var type: String
    /// In base64.
    var data: Data
    /// If it is text.
    var text: String?
  }
}

/// `btrpc message send`
package struct MessageSend: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "send",
    abstract: "Tell a service something, and wait for no answer.",
    discussion: """
      EXAMPLES:
        btrpc message send --scope /site-b --service log "the door was opened"
      """)

  @OptionGroup package var options: GlobalOptions
  @OptionGroup var message: MessageOptions

  package init() {}

  package func run(_ client: Client) async throws {
    let payload = try self.message.payload()
    try await about(self.message.scope.text) {
      try await client.send(self.message.service, self.message.kind, scope: self.message.scope.text, payload)
    }
  }
}

/// `btrpc message serve`
package struct MessageServe: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Host a service: run a command for each message.",
    discussion: """
      The command is given what is said on standard input, the sender's path as BLOCKTREE_SENDER, and the type of the \
      message as BLOCKTREE_TYPE. What it prints is the answer. When it fails, the call is refused, with the first line \
      that it has printed on standard error.

      EXAMPLES:
        btrpc message serve --scope /site-b --service shout -- tr a-z A-Z
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(
    help: ArgumentHelp("The directory at one of whose processes the service is hosted.", valueName: "path"),
    completion: RemotePath.completion, transform: RemotePath.parse)
  var scope: RemotePath

  @Option(help: ArgumentHelp("The service; may be given more than once.", valueName: "name"))
  var service: [String]

  @Option(help: ArgumentHelp("Commands that run at a time, 1 to 256.", valueName: "count"))
  var concurrency = 4

  @Argument(parsing: .postTerminator, help: "The command and its arguments.")
  var command: [String] = []

  package init() {}

  package func validate() throws {
    guard !self.command.isEmpty else { throw ValidationError("Name a command, after \"--\".") }
    guard (1...256).contains(self.concurrency) else { throw ValidationError("Run 1 to 256 commands at a time.") }
  }

  package func run(_ client: Client) async throws {
    let command = self.command
    try await about(self.scope.text) {
      try await client.host(
        self.service, in: self.scope.text, concurrency: self.concurrency,
        attached: { process in Standard.complain("btrpc: hosting at \(process)") }
      ) { message in
        try await MessageProgram.run(command, message)
      }
    }
  }
}

/// One run of a command for a message.
private enum MessageProgram {
  static func run(_ command: [String], _ message: ReceivedMessage) async throws -> MessagePayload {
    try await withCheckedThrowingContinuation { continuation in
      // A thread of its own: it waits for the command, and for its pipes.
      Thread.detachNewThread {
        continuation.resume(with: Result { try self.runAndWait(command, message) })
      }
    }
  }

  private static func runAndWait(_ command: [String], _ message: ReceivedMessage) throws -> MessagePayload {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = command
    process.environment = ProcessInfo.processInfo.environment.merging(
      ["BLOCKTREE_SENDER": message.sender, "BLOCKTREE_TYPE": message.payload.typeName]
    ) { _, new in new }
    let (input, output, errors) = (Pipe(), Pipe(), Pipe())
    (process.standardInput, process.standardOutput, process.standardError) = (input, output, errors)
    do { try process.run() } catch { throw MessageRefusal("the command does not start") }
    // It may print before it has read all, and complain before it has printed all.
    Thread.detachNewThread {
      try? input.fileHandleForWriting.write(contentsOf: Data(message.payload.bytes))
      try? input.fileHandleForWriting.close()
    }
    let complaints = Complaints()
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      complaints.set((try? errors.fileHandleForReading.read(upToCount: 1_000)) ?? Data())
      // The rest is of no interest, and must not fill the pipe.
      while let more = try? errors.fileHandleForReading.read(upToCount: 65_536), !more.isEmpty {}
      done.signal()
    }
    let answer = try output.fileHandleForReading.readToEnd() ?? Data()
    done.wait()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      let line = complaints.text.split(whereSeparator: \.isNewline).first.map(String.init)
      throw MessageRefusal(line ?? "the command failed with status \(process.terminationStatus)")
    }
    return MessagePayload(bytes: Array(answer))
  }

  /// What a command has printed on standard error.
  private final class Complaints: Sendable {
    private let data = Mutex(Data())
    func set(_ data: Data) { self.data.withLock { $0 = data } }
    var text: String { String(decoding: self.data.withLock { $0 }, as: UTF8.self) }
  }
}
