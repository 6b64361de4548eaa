// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema
internal import FoundationEssentials

/// `btrpc sector`
package struct SectorCommand: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "sector", abstract: "Look at what is stored: sealed sectors, inode records, signatures.",
    subcommands: [SectorRead.self, SectorInode.self, SectorVerify.self])

  package init() {}
}

/// A file by its id, `generation:inode`, or by its path.
package enum FileArgument: ExpressibleByArgument, Hashable, Sendable {
  case id(BlocktreeClient.FileID)
  case path(RemotePath)

  package init?(argument: String) {
    if let id = BlocktreeClient.FileID(argument) {
      self = .id(id)
    } else if let path = RemotePath(argument: argument) {
      self = .path(path)
    } else {
      return nil
    }
  }

  func resolve(_ client: Client) async throws -> BlocktreeClient.FileID {
    switch self {
    case .id(let id): id
    case .path(let path): try await about(path.text) { try await client.stat(path.text, followsLink: false).id }
    }
  }

  /// The calls to the cluster that stores the file.
  func sectors(_ client: Client, _ id: BlocktreeClient.FileID) async throws -> SectorClient {
    switch self {
    case .id: client.sectors
    case .path(let path): try await about(path.text) { try await client.sectors(storing: id, at: path.text) }
    }
  }

  var text: String {
    switch self {
    case .id(let id): id.description
    case .path(let path): path.text
    }
  }
}

/// `btrpc sector read`
package struct SectorRead: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "read",
    abstract: "Fetch sealed sectors or tree nodes as they are stored.",
    discussion: """
      On a terminal they are shown in hexadecimal; elsewhere, and with --output, the bytes are written as they are.

      EXAMPLES:
        btrpc sector read 1:17 --index 0
        btrpc sector read /home/ann/notes.txt --index 0 --count 4 --output sealed.bin
        btrpc sector read 1:17 --level 1 --index 0
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: "The first sector or node.")
  var index: UInt64 = 0

  @Option(help: "How many.")
  var count: UInt32 = 1

  @Option(help: "0 for sectors, 1 and up for the levels of the integrity tree.")
  var level: UInt32 = 0

  @Option(help: "The version of the file; 0 for the current one.")
  var version: UInt64 = 0

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the bytes to this file, or - for standard output.", valueName: "file"))
  var output: String?

  @Argument(help: ArgumentHelp("GENERATION:INODE, or a path.", valueName: "file"))
  var file: FileArgument

  package init() {}

  package func validate() throws {
    guard (1...65_536).contains(self.count) else { throw ValidationError("One read takes 1 to 65536 sectors.") }
  }

  private struct Block: Encodable {
    var level: UInt32
    var index: UInt64
    var isHole: Bool
    var bytes: Data
  }

  package func run(_ client: Client) async throws {
    let id = try await self.file.resolve(client)
    let sectors = try await self.file.sectors(client, id)
    var run = Blocktree_V1_SectorRun()
    run.level = self.level
    run.start = self.index
    run.count = self.count
    // At most 65,536 sectors, which fit into memory only while they are few: larger reads go to a file in parts.
    let output = self.output
    let isText = !self.options.json && output == nil && Terminal.isOutputTerminal
    let isJSON = self.options.json && output == nil
    try await about(self.file.text) {
      try await sectors.readSectors(id, version: self.version, runs: [run]) { messages in
        let descriptor =
          if let output, output != "-" {
            // Write only, create, truncate.
            try await LocalFile.onThread { try LocalFile.open(output, 0o1 | 0o100 | 0o1000, mode: 0o644) }
          } else {
            1 as Int32
          }
        defer { if descriptor != 1 { LocalFile.close(descriptor) } }
        var array = JSONArrayWriter()
        for try await message in messages {
          for block in message.blocks {
            if isJSON {
              try array.append(
                Block(level: block.level, index: block.index, isHole: block.bytes.isEmpty, bytes: block.bytes))
            } else if isText {
              try Self.dump(block)
            } else {
              try await LocalOutput.translate {
                try await LocalFile.onThread { try LocalFile.write(descriptor, block.bytes) }
              }
            }
          }
        }
        if isJSON { try array.finish() }
      }
    }
  }

  private static func dump(_ block: Blocktree_V1_Block) throws {
    let name = block.level == 0 ? "sector \(block.index)" : "node \(block.level):\(block.index)"
    try Standard.line(block.bytes.isEmpty ? "\(name): a hole" : "\(name): \(block.bytes.count) bytes")
    let bytes = Array(block.bytes)
    for start in stride(from: 0, to: bytes.count, by: 16) {
      let row = bytes[start..<min(start + 16, bytes.count)]
      let offset = String(start, radix: 16)
      let text = String(decoding: row.map { (0x20..<0x7F).contains($0) ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
      let hex = row.map { Format.hex([$0]) }.joined(separator: " ")
      let padding = String(repeating: " ", count: 48 - hex.count)
      try Standard.line("\(String(repeating: "0", count: 8 - offset.count))\(offset)  \(hex)\(padding) |\(text)|")
    }
  }
}
