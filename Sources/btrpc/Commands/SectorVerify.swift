// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import Inodes
internal import Trust

/// `btrpc sector verify`
package struct SectorVerify: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Fetch all that is stored of files, and check it on this machine.",
    discussion: """
      Checks the cluster's acceptance, the signatures of the record's parts and the certificates of those who signed, \
      the integrity tree, and the digest of every sealed sector. Trusts nothing but the domain's root certificate.

      EXAMPLES:
        btrpc sector verify 1:17
        btrpc sector verify /home/ann/notes.txt
      """)

  @OptionGroup package var options: GlobalOptions

  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false

  @Argument(help: ArgumentHelp("GENERATION:INODE, or a path.", valueName: "file"))
  var files: [FileArgument]

  package init() {}

  private struct Verified: Encodable {
    struct Finding: Encodable {
      var part: String
      var problem: String
    }

    var file: String
    var id: String
    var version: UInt64
    var isGood: Bool
    var signatures: Int
    var signers: [String]
    var nodes: UInt64
    var sectors: UInt64
    var holes: UInt64
    var findings: [Finding]
  }

  package func run(_ client: Client) async throws {
    var results: [Verified] = []
    try await self.forEach(self.files) { file in
      let id = try await file.resolve(client)
      let sectors = try await file.sectors(client, id)
      let report = try await self.verify(id, file.text, StoredFileVerifier(client, sectors))
      let result = Verified(
        file: file.text, id: id.description, version: report.record.version.rawValue, isGood: report.isGood,
        signatures: report.signatureCount, signers: Set(report.signers.values.map(\.description)).sorted(),
        nodes: report.nodeCount, sectors: report.sectorCount, holes: report.holeCount,
        findings: report.findings.map { Verified.Finding(part: $0.part, problem: $0.problem) })
      results.append(result)
      if !self.options.json { try Self.show(result) }
    }
    if self.options.json { try JSONOutput.print(results) }
    if results.contains(where: { !$0.isGood }) { throw ExitCode.failure }
  }

  private func verify(
    _ id: BlocktreeClient.FileID, _ name: String, _ verifier: StoredFileVerifier
  ) async throws -> VerificationReport {
    let progress = Progress(name, total: nil, isQuiet: self.quiet)
    defer { progress.finish() }
    for attempt in 1... {
      do {
        return try await about(name) {
          var last: UInt64 = 0
          return try await verifier.verify(id) { done, _ in
            progress.add((done &- last) &* 4096)
            last = done
          }
        }
      } catch let failure as PathFailure where attempt < 5 {
        // The file was written meanwhile, and the version that was looked at is gone.
        guard (failure.error as? BlocktreeError)?.reason == .versionGone else { throw failure }
      }
    }
    throw CommandFailure("\(name): it changes all the time")
  }

  private static func show(_ result: Verified) throws {
    let what =
      "\(result.signatures) signatures by \(result.signers.joined(separator: ", ")), \(result.nodes) tree nodes, "
      + "\(result.sectors) sectors, \(result.holes) holes"
    let verdict = result.isGood ? "good" : "BAD"
    try Standard.line("\(result.file): \(verdict): version \(result.version) of \(result.id), \(what)")
    for finding in result.findings { try Standard.line("  \(finding.part): \(finding.problem)") }
  }
}
