// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
package import BlocktreeClient
internal import BlocktreeSchema
internal import FoundationEssentials
internal import Trust

/// `btrpc process list`
package struct ProcessList: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List the processes whose credentials lie below a directory.",
    discussion: """
      EXAMPLES:
        btrpc process list
        btrpc --json process list /site1 | jq -r '.[].addresses[]'
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: "Where to look.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath?

  package init() {}

  package func run(_ client: Client) async throws {
    try await CredentialListing(client, .process).print(below: self.path, json: self.options.json)
  }
}

/// `btrpc user list`
package struct UserList: ClientCommand {
  package static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List the users whose credentials lie below a directory.",
    discussion: """
      EXAMPLES:
        btrpc user list /people
      """)

  @OptionGroup package var options: GlobalOptions

  @Argument(help: "Where to look.", completion: RemotePath.completion, transform: RemotePath.parse)
  var path: RemotePath?

  package init() {}

  package func run(_ client: Client) async throws {
    try await CredentialListing(client, .user).print(below: self.path, json: self.options.json)
  }
}

/// Finds credential files, and verifies what they say.
struct CredentialListing {
  private let client: Client
  private let kind: Credential.Kind
  private let verifier: ChainVerifier

  init(_ client: Client, _ kind: Credential.Kind) {
    self.client = client
    self.kind = kind
    self.verifier = ChainVerifier(root: client.profile.root)
  }

  private struct Row: Encodable {
    var path: String
    var services: [String]?
    var addresses: [String]?
    var expires: String?
    var keyID: String?
    /// Why it is not to be believed.
    var problem: String?
  }

  /// Whether a file is a credential of this kind.
  func isListed(_ id: BlocktreeClient.FileID, at path: RemotePath) async throws -> Bool {
    let sectors = try await self.client.sectors(storing: id, at: path.text)
    guard let record = try await sectors.readRecords([id]).first,
      let file = try? CredentialFile(bytes: Array(record.credential))
    else { return false }
    do {
      return try file.verify(with: self.verifier, at: .now).credential.kind == self.kind
    } catch {
      // Of which kind it was can not be told then; it is of no use to anybody.
      return error == .expired
    }
  }

  func print(below directory: RemotePath?, json: Bool) async throws {
    guard let directory = directory ?? RemotePath(argument: "/") else { return }
    var rows: [Row] = []
    try await self.client.withFileSession { session in
      let found = try await about(directory.text) { try await self.find(in: directory, session) }
      // Each generation is stored by a cluster of its own.
      for generation in Set(found.map(\.id.generation)).sorted() {
        let stored = found.filter { $0.id.generation == generation }
        guard let first = stored.first else { continue }
        let sectors = try await about(first.path.text) {
          try await self.client.sectors(storing: first.id, at: first.path.text)
        }
        // As many records as one call takes.
        for start in stride(from: 0, to: stored.count, by: 256) {
          rows += try await self.rows(Array(stored[start..<min(start + 256, stored.count)]), sectors)
        }
      }
    }
    rows.sort { $0.path < $1.path }
    if json { return try JSONOutput.print(rows) }
    let header = self.kind == .process ? ["Path", "Services", "Addresses", "Expires"] : ["Path", "Expires"]
    let cells = rows.map { row -> [String] in
      let path = Terminal.escaped(row.path)
      let expiry = row.problem.map { "! \($0)" } ?? row.expires.map { String($0.prefix(10)) } ?? ""
      if self.kind == .user { return [path, expiry] }
      return [path, row.services?.joined(separator: ",") ?? "", row.addresses?.joined(separator: ",") ?? "", expiry]
    }
    for line in Format.table([header] + cells) { try Standard.line(line) }
  }

  private func find(
    in directory: RemotePath, _ session: FileSession, isTop: Bool = true
  ) async throws -> [(path: RemotePath, id: BlocktreeClient.FileID)] {
    var found: [(RemotePath, BlocktreeClient.FileID)] = []
    var directories: [RemotePath] = []
    do {
      for try await entry in session.list(directory.text) {
        if entry.type == .credential { found.append((directory.appending(entry.name), entry.id)) }
        if entry.type == .directory { directories.append(directory.appending(entry.name)) }
      }
    } catch let error as BlocktreeError where error.reason == .permissionDenied && !isTop {
      return found
    }
    for directory in directories { found += try await self.find(in: directory, session, isTop: false) }
    return found
  }

  private func rows(
    _ found: [(path: RemotePath, id: BlocktreeClient.FileID)], _ sectors: SectorClient
  ) async throws -> [Row] {
    var rows: [Row] = []
    for (place, record) in zip(found, try await sectors.readRecords(found.map(\.id))) {
      guard let file = try? CredentialFile(bytes: Array(record.credential)) else {
        if record.version > 0 { rows.append(Row(path: place.path.text, problem: "it is no credential")) }
        continue
      }
      do {
        let verified = try file.verify(with: self.verifier, at: .now)
        guard verified.credential.kind == self.kind else { continue }
        let expiry = Timestamp(clampingSeconds: verified.credential.notAfter.timeIntervalSince1970)
        rows.append(
          Row(
            path: place.path.text, services: self.kind == .process ? verified.services.map(\.name) : nil,
            addresses: self.kind == .process ? verified.addresses.map(\.description) : nil,
            expires: expiry.description, keyID: verified.credential.keyID.description,
            problem: verified.credential.path.description == place.path.text ? nil : "it is for another path"))
      } catch {
        // Of which kind it is can not be told then.
        rows.append(Row(path: place.path.text, problem: error.sentence))
      }
    }
    return rows
  }
}
