// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient

/// `btrpc df`
package struct Df: ClientCommand {
  package static let configuration = CommandConfiguration(
    abstract: "Say how much room there is.",
    discussion: """
      EXAMPLES:
        btrpc df
        btrpc --json df / | jq '.[0].freeBytes'
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(
    help: "Paths in the clusters that are asked about.", completion: RemotePath.completion, transform: RemotePath.parse)
  var paths: [RemotePath] = []

  package init() {}

  private struct Room: Encodable {
    var path: String
    var generation: UInt64
    var totalBytes: UInt64
    var usedBytes: UInt64
    var freeBytes: UInt64
    var inodes: UInt64
    var sectorSize: Int
  }

  package func run(_ client: Client) async throws {
    let paths = self.paths.isEmpty ? RemotePath(argument: "/").map { [$0] } ?? [] : self.paths
    var rooms: [Room] = []
    try await self.forEach(paths) { path in
      let status = try await about(path.text) { try await client.statFilesystem(path.text) }
      rooms.append(
        Room(
          path: path.text, generation: status.generation, totalBytes: status.totalByteCount,
          usedBytes: status.usedByteCount, freeBytes: status.freeByteCount, inodes: status.inodeCount,
          sectorSize: status.sectorSize))
    }
    if self.options.json { return try JSONOutput.print(rooms) }
    var rows = [["Path", "Generation", "Size", "Used", "Free", "Use%", "Inodes", "Sector"]]
    for room in rooms {
      let share = room.totalBytes == 0 ? 0 : Double(room.usedBytes) / Double(room.totalBytes) * 100
      rows.append([
        Terminal.escaped(room.path), "\(room.generation)", Format.size(room.totalBytes), Format.size(room.usedBytes),
        Format.size(room.freeBytes), "\(Int(share.rounded(.up)))%", "\(room.inodes)",
        Format.size(UInt64(room.sectorSize)),
      ])
    }
    for line in Format.table(rows, right: [1, 2, 3, 4, 5, 6, 7]) { try Standard.line(line) }
  }
}
