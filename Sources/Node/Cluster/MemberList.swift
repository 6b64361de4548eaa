// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Logging
internal import Sectors
private import Synchronization
internal import Trust

/// The other members of the cluster, in a file of their own beside the store: for when the store is damaged and can not
/// tell who they are. Only a hint: whoever answers there has to prove who it is.
final class MemberList: Sendable {
  /// What the file holds.
  struct Content: Codable, Hashable, Sendable {
    static let currentVersion = 1

    struct Process: Codable, Hashable, Sendable {
      var path: String
      /// `host:port`.
      var addresses: [String]
    }

    var version = Content.currentVersion
    var members: [Process]
  }

  /// As many as a membership may have.
  private static let countMax = 64

  private let path: String
  private let logger: Logger
  private let written: Mutex<Content?>

  init(_ directory: NodeDirectory, logger: Logger) {
    self.path = directory.members
    self.logger = logger
    self.written = Mutex(Self.content(of: directory))
  }

  /// Those that were known last; none where there is no such file, or none that can be read.
  static func read(_ directory: NodeDirectory) -> [SectorLeader] {
    (self.content(of: directory)?.members ?? []).prefix(self.countMax).compactMap { process in
      guard let path = try? TreePath(parsing: process.path) else { return nil }
      return SectorLeader(path: path, addresses: process.addresses.compactMap { try? NetworkAddress(parsing: $0) })
    }
  }

  private static func content(of directory: NodeDirectory) -> Content? {
    guard let bytes = try? OwnerFiles.read(directory.members),
      let content = try? JSONDecoder().decode(Content.self, from: Data(bytes)),
      content.version <= Content.currentVersion
    else { return nil }
    return content
  }

  /// Writes down who the others are, if that has changed. A full disk keeps nobody from anything: it is tried again with
  /// the next call.
  func note(_ peers: [MemberPeer]) {
    let members = peers.map { peer in
      Content.Process(path: peer.path.description, addresses: peer.addresses.map(\.description))
    }.sorted { $0.path < $1.path }
    let content = Content(members: members)
    guard self.written.withLock({ $0 != content }) else { return }
    do {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
      try OwnerFiles.write(Array(encoder.encode(content)) + [UInt8(ascii: "\n")], to: self.path)
      self.written.withLock { $0 = content }
    } catch {
      self.logger.debug("the list of members was not written", metadata: ["error": "\(error)"])
    }
  }
}
