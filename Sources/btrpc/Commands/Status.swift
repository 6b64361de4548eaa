// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema

/// `btrpc status`
package struct StatusCommand: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Say how the process that answers is.",
    discussion: """
      EXAMPLES:
        btrpc status
        btrpc --json status | jq .diskBytesFree
      """)

  @OptionGroup package var options: GlobalOptions

  package init() {}

  private struct Status: Encodable {
    var domain: String
    var caller: String?
    var member: String
    var role: String
    var generation: UInt64
    var sectorSize: UInt32
    var nextInode: UInt64
    var incarnation: UInt64
    var appliedIndex: UInt64
    var logBytes: UInt64
    var inodes: UInt64
    var sectorBytesUsed: UInt64
    var sectorBytesAllocated: UInt64
    var diskBytesFree: UInt64
    var roundTripMicroseconds: Int64
  }

  package func run(_ client: Client) async throws {
    let answer = try await client.sectors.status()
    // The first call made the connection.
    let start = ContinuousClock.now
    _ = try await client.sectors.status()
    let roundTrip = start.duration(to: .now)
    let status = Status(
      domain: client.domain, caller: client.profile.path, member: answer.member, role: answer.role,
      generation: answer.generation, sectorSize: answer.superblock.sectorSize, nextInode: answer.superblock.nextInode,
      incarnation: answer.superblock.incarnation, appliedIndex: answer.appliedIndex, logBytes: answer.logBytes,
      inodes: answer.inodes, sectorBytesUsed: answer.sectorBytesUsed,
      sectorBytesAllocated: answer.sectorBytesAllocated, diskBytesFree: answer.diskBytesFree,
      roundTripMicroseconds: roundTrip.components.attoseconds / 1_000_000_000_000
        + roundTrip.components.seconds * 1_000_000)
    if self.options.json { return try JSONOutput.print(status) }
    let rows = [
      ["domain:", "bt://\(status.domain)/"],
      ["you are:", status.caller ?? "anonymous"],
      ["answered by:", "\(status.member), \(status.role) of generation \(status.generation)"],
      ["round trip:", "\(status.roundTripMicroseconds) µs"],
      ["log:", "applied to \(status.appliedIndex), \(Format.exactSize(status.logBytes)) on the disk"],
      ["inodes:", "\(Format.grouped(status.inodes)) stored, next number \(status.nextInode)"],
      ["sectors:", "\(Format.exactSize(status.sectorBytesUsed)) in use, in sectors of \(status.sectorSize) bytes"],
      ["allocated:", Format.exactSize(status.sectorBytesAllocated)],
      ["disk:", "\(Format.exactSize(status.diskBytesFree)) free"],
    ]
    for line in Format.table(rows) { try Standard.line(line) }
  }
}
