// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc rpc`
package struct Rpc: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "rpc",
    abstract: "Make any call of the schema, with JSON in and out.",
    discussion: """
      Messages are in protobuf's JSON: bytes are base64, 64-bit numbers may be strings. A call that takes a stream takes \
      one message a line from standard input; answers are printed one a line.

      EXAMPLES:
        btrpc rpc --list
        btrpc rpc blocktree.v1.FilesystemService/Stat '{"path": "/"}'
        btrpc rpc grpc.health.v1.Health/Check
        btrpc rpc blocktree.v1.FilesystemService/Write - < messages.jsonl
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(help: "List all calls.")
  var list = false

  @Argument(
    help: ArgumentHelp("The call, as SERVICE/METHOD.", valueName: "service/method"),
    completion: .list(RPCTable.methods.map(\.name)))
  var method: String?

  @Argument(help: ArgumentHelp("The request, or - for standard input.", valueName: "json"))
  var request: String = "{}"

  package init() {}

  package func validate() throws {
    if self.list { return }
    guard let method else { throw ValidationError("Name a call, or use --list.") }
    guard RPCTable.method(method) != nil else {
      throw ValidationError("There is no call \(Terminal.escaped(method)); see btrpc rpc --list.")
    }
  }

  private struct Method: Encodable {
    var name: String
    var request: String
    var response: String
    var takesStream: Bool
    var answersStream: Bool
  }

  package func run() async throws {
    guard self.list else { return try await self.connect() }
    if self.options.json {
      return try JSONOutput.print(
        RPCTable.methods.map {
          Method(
            name: $0.name, request: $0.request, response: $0.response, takesStream: $0.takesStream,
            answersStream: $0.answersStream)
        })
    }
    for method in RPCTable.methods { try Standard.line(method.signature) }
  }

  package func run(_ client: Client) async throws {
    guard let name = self.method, let method = RPCTable.method(name) else { return }
    let requests = JSONRequests(self.request, isStream: method.takesStream)
    try await about(name) {
      try await method.call(client, { try await requests.next() }) { answer in
        try Standard.write(answer + "\n")
        try Standard.flush()
      }
    }
  }
}

/// The requests of one call, as JSON: one argument, all of standard input, or its lines.
private actor JSONRequests {
  private let isStream: Bool
  private let readsInput: Bool
  private var argument: String?
  private var buffer: [UInt8] = []
  private var isAtEnd = false

  /// What one request takes at most.
  private static let byteCountMax = 16 << 20

  init(_ argument: String, isStream: Bool) {
    self.isStream = isStream
    self.readsInput = argument == "-"
    self.argument = self.readsInput ? nil : argument
  }

  func next() async throws -> String? {
    guard self.readsInput else {
      defer { self.argument = nil }
      return self.argument
    }
    while true {
      if self.isStream, let end = self.buffer.firstIndex(of: UInt8(ascii: "\n")) {
        let line = String(decoding: self.buffer[..<end], as: UTF8.self)
        self.buffer.removeSubrange(...end)
        if line.contains(where: { !$0.isWhitespace }) { return line }
        continue
      }
      if self.isAtEnd {
        defer { self.buffer = [] }
        return self.buffer.contains { $0 > 0x20 } ? String(decoding: self.buffer, as: UTF8.self) : nil
      }
      let bytes = try await LocalFile.onThread { try LocalFile.read(0, count: 64 << 10) }
      self.buffer.append(contentsOf: bytes)
      self.isAtEnd = bytes.isEmpty
      guard self.buffer.count <= Self.byteCountMax else { throw CommandFailure("a request is larger than 16 MiB") }
    }
  }
}
