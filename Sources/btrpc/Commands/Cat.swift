// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc cat`
package struct Cat: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Print files to standard output.",
    discussion: """
      With --sealed, sealed sectors are fetched from the processes that store them, and verified and decrypted here, with the \
      key that was given to you by 'btrpc grant --key' for the file or a directory above it.

      EXAMPLES:
        btrpc cat /etc/motd
        btrpc cat --offset 1048576 --count 4096 /disk.img | xxd
        btrpc cat --sealed /projects/x/notes.txt
      """)

  @OptionGroup package var options: GlobalOptions

  @Option(help: "Begin at this byte.")
  var offset: UInt64 = 0

  @Option(help: "Print at most so many bytes.")
  var count: UInt64?

  @Flag(help: "Decrypt here, with your own key.")
  var sealed = false

  @Argument(help: "Files, one after the other.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath]

  package init() {}

  package func run(_ client: Client) async throws {
    if self.count == 0 { return }
    try await self.forEach(self.paths) { path in
      try await about(path.text) {
        try await LocalOutput.translate {
          if self.sealed {
            _ = try await client.downloadSealed(path.text, from: self.offset, count: self.count, toDescriptor: 1)
          } else {
            _ = try await client.download(path.text, from: self.offset, count: self.count, toDescriptor: 1)
          }
        }
      }
    }
  }
}

/// What writing to standard output by descriptor throws, in this program's words.
enum LocalOutput {
  static func translate(_ body: () async throws -> Void) async throws {
    do {
      try await body()
    } catch let error as BlocktreeError where error.reason == .localFile && error.metadata["errno"] == "\(brokenPipe)" {
      throw PipeClosed()
    }
  }

  private static let brokenPipe = 32
}
