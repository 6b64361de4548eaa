// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import FoundationEssentials

/// `btrpc cluster backup`
package struct ClusterBackup: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "backup",
    abstract: "Copy all that a cluster stores to a file, while it goes on.",
    discussion: """
      The file holds the state of one moment: sealed sectors, signed records and certificates, but no keys. It is written \
      as FILE.partial, open to nobody else, and renamed when it is whole and on the disk; a FILE that exists is not \
      replaced. 'btrpc cluster verify-backup' checks it, 'btnode restore' makes a cluster of it.

      It takes the owner of the directory that the cluster serves.

      EXAMPLES:
        btrpc cluster backup cluster-$(date +%F).backup
        btrpc cluster backup - | zstd > cluster.zst
      """)

  @OptionGroup package var options: GlobalOptions

  @OptionGroup var scope: ClusterScope

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  @Argument(help: ArgumentHelp("The file to make; - is standard output.", valueName: "file"), completion: .file())
  var file: String

  package init() {}

  package func validate() throws {
    guard !(self.file == "-" && self.options.json) else {
      throw ValidationError("With --json, the backup can not go to standard output.")
    }
  }

  package func run(_ client: Client) async throws {
    let progress = Progress(self.file, total: nil, isQuiet: self.quiet)
    defer { progress.finish() }
    let note = progress.forFile()
    let summary = try await self.scope.cluster(client).backup(toFile: self.file, progress: note)
    progress.finish()
    if self.file != "-" { try BackupReport(summary).print(asJSON: self.options.json) }
  }
}

/// `btrpc cluster verify-backup`
package struct ClusterVerifyBackup: AsyncParsableCommand {
  package static let configuration = CommandConfiguration(
    commandName: "verify-backup",
    abstract: "Check a file that 'btrpc cluster backup' made, without any process.",
    discussion: """
      Checks that all of it is there, in order, and as it was written. That signatures are right and files can be opened \
      is not checked: that is what 'btrpc sector verify' does with a cluster that was restored from it.

      EXAMPLES:
        btrpc cluster verify-backup cluster.backup
        zstd -d < cluster.zst | btrpc cluster verify-backup -
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: ArgumentHelp("The file to check; - is standard input.", valueName: "file"), completion: .file())
  var file: String

  package init() {}

  package func run() async throws {
    try BackupReport(try await ClusterClient.verifyBackup(self.file)).print(asJSON: self.options.json)
  }
}

/// What is said of a backup.
private struct BackupReport: Encodable {
  var domain: String
  var generation: UInt64
  var process: String
  /// ISO 8601.
  var time: String
  var index: UInt64
  var term: UInt64
  var sectorSize: Int
  var records: UInt64
  var groups: UInt64
  var certificates: UInt64
  var bytes: UInt64

  init(_ summary: BackupSummary) {
    self.domain = summary.domain
    self.generation = summary.generation
    self.process = summary.process
    let seconds = Double(summary.nanoseconds / 1_000_000_000)
    self.time = Date(timeIntervalSince1970: seconds).formatted(.iso8601)
    self.index = summary.index
    self.term = summary.term
    self.sectorSize = summary.sectorSize
    self.records = summary.recordCount
    self.groups = summary.groupCount
    self.certificates = summary.certificateCount
    self.bytes = summary.itemByteCount
  }

  func print(asJSON: Bool) throws {
    if asJSON { return try JSONOutput.print(self) }
    let rows = [
      ["domain:", self.domain],
      ["generation:", "\(self.generation), log entry \(self.index) of term \(self.term)"],
      ["made:", "\(self.time) by \(self.process)"],
      ["holds:", "\(self.records) records, \(Format.size(self.bytes))B"],
    ]
    for line in Format.table(rows.map { $0.map(Terminal.escaped) }) { try Standard.line(line) }
  }
}
