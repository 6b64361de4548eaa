// SPDX-License-Identifier: Apache-2.0

internal import Crypto
package import Inodes
internal import Sectors
package import Trust

/// The directory that a process looks for paths from: the one that its credential lies in, and that it has the key of.
package struct FilesystemHome: Sendable {
  package let path: TreePath
  package let fileID: FileID
  let key: FileKey
  /// The clusters above, from the root's to the one that stores this directory; none for the root directory.
  package let above: [Cluster]

  /// A cluster, by what it serves.
  package struct Cluster: Hashable, Sendable {
    package let generation: Generation
    /// The directory that its processes lie in.
    package let path: TreePath
    package let fileID: FileID

    package init(generation: Generation, path: TreePath, fileID: FileID) {
      self.generation = generation
      self.path = path
      self.fileID = fileID
    }
  }

  static func root(key: FileKey) -> FilesystemHome {
    FilesystemHome(path: .root, fileID: .rootDirectory, key: key, above: [])
  }

  /// Opens the directory's key.
  ///
  /// - Parameter sealedKey: as in a readcap, with this context.
  /// - Returns: nil when it is not sealed to this key.
  package init?(
    path: TreePath, fileID: FileID, sealedKey: [UInt8], _ context: ReadcapContext, agreementKey: AgreementKey,
    above: [Cluster]
  ) {
    guard let seal = try? ReadcapSeal(bytes: sealedKey),
      let opened = try? seal.open(with: agreementKey, context: context),
      let key = opened.withUnsafeBytes({ FileKey(bytes: $0, epoch: context.epoch) })
    else { return nil }
    self.init(path: path, fileID: fileID, key: key, above: above)
  }

  package init(path: TreePath, fileID: FileID, key: FileKey, above: [Cluster]) {
    self.path = path
    self.fileID = fileID
    self.key = key
    self.above = above
  }
}

extension Filesystem {
  /// The clusters from the root's to the one that stores a directory which this process has to do with.
  func clustersAbove(_ directory: FileID) -> [FilesystemHome.Cluster] {
    let own = FilesystemHome.Cluster(
      generation: self.sectors.generation, path: self.home.path, fileID: self.home.fileID)
    // The home of a gateway may have no cluster of its own.
    let all = self.home.above.last?.generation == own.generation ? self.home.above : self.home.above + [own]
    guard let last = all.firstIndex(where: { $0.generation == directory.generation }) else { return all }
    return Array(all[...last])
  }
}

/// Processes that answer in this one's place.
package struct FilesystemRedirection: Hashable, Sendable {
  package struct Process: Hashable, Sendable {
    package let path: TreePath
    package let addresses: [NetworkAddress]

    package init(path: TreePath, addresses: [NetworkAddress]) {
      self.path = path
      self.addresses = addresses
    }
  }

  /// As many as one answer names.
  package static let processCountMax = 16
  /// For how long a client may remember it.
  package static let lifetimeMilliseconds = 30_000

  /// The directory that the processes are in.
  package let directory: TreePath
  package let processes: [Process]
  /// The path to ask for there, where symbolic links have led on from the one that was asked for here.
  package var path: TreePath?

  package init(directory: TreePath, processes: [Process], path: TreePath? = nil) {
    self.directory = directory
    self.processes = Array(processes.prefix(Self.processCountMax))
    self.path = path
  }

  /// As the metadata of an error say it.
  var metadata: [String: String] {
    let texts = self.processes.map { process in
      Self.escaped(process.path) + "=" + process.addresses.map(\.description).joined(separator: ",")
    }
    var metadata = [
      "directory": "\(self.directory)", "processes": texts.joined(separator: ";"),
      "lifetime_ms": "\(Self.lifetimeMilliseconds)",
    ]
    if let path { metadata["path"] = "\(path)" }
    return metadata
  }

  private static func escaped(_ path: TreePath) -> String {
    var bytes: [UInt8] = []
    for byte in path.bytes {
      switch byte {
      case UInt8(ascii: "%"): bytes += Array("%25".utf8)
      case UInt8(ascii: "="): bytes += Array("%3d".utf8)
      case UInt8(ascii: ";"): bytes += Array("%3b".utf8)
      case UInt8(ascii: ","): bytes += Array("%2c".utf8)
      default: bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// What a filesystem service knows of the processes around its own.
package struct FilesystemNeighbours: Sendable {
  /// The processes above that answer for what is not at or below the home; nil when none is known.
  package var above: @Sendable () -> FilesystemRedirection?
  /// The key-agreement key in the credential file of a principal that is stored elsewhere; nil when there is none, or
  /// nobody who knows can be reached.
  package var agreementKey: @Sendable (TreePath) async -> AgreementPublicKey?
  /// For gateways. The processes that lie directly in a directory of this process's own cluster, or in the home, and
  /// host anything; none when nobody who knows can be reached.
  package var processes: @Sendable (TreePath) async -> [FilesystemNeighbour]
  /// For gateways: whether a principal was confirmed lately.
  package var confirms: @Sendable (Credential) -> Bool

  package init(
    above: @escaping @Sendable () -> FilesystemRedirection? = { nil },
    agreementKey: @escaping @Sendable (TreePath) async -> AgreementPublicKey? = { _ in nil },
    processes: @escaping @Sendable (TreePath) async -> [FilesystemNeighbour] = { _ in [] },
    confirms: @escaping @Sendable (Credential) -> Bool = { _ in false }
  ) {
    self.above = above
    self.agreementKey = agreementKey
    self.processes = processes
    self.confirms = confirms
  }
}

/// A process, by what its credential file says.
package struct FilesystemNeighbour: Hashable, Sendable {
  package let path: TreePath
  package let services: [Service]
  package let addresses: [NetworkAddress]

  package init(path: TreePath, services: [Service], addresses: [NetworkAddress]) {
    self.path = path
    self.services = services
    self.addresses = addresses
  }
}
