// SPDX-License-Identifier: Apache-2.0

package import BlocktreeClient
internal import FoundationEssentials
internal import Inodes
package import Transport
package import Trust

/// How a process that does not belong to a domain yet comes to: it makes its keys and asks, an authority issues a
/// credential, and it joins with that. The same two steps renew a credential before it expires.
package struct Enrollment: Sendable {
  private let directory: NodeDirectory

  package init(_ directory: NodeDirectory) {
    self.directory = directory
  }

  /// Makes the node's directory with new keys, or takes the keys of the one that is there, and makes a request for
  /// them.
  ///
  /// - Parameters:
  ///   - listen: where the node will listen; nil for where an existing one does.
  ///   - advertise: what others dial; nil for what is listened on.
  /// - Returns: the request in PEM, which holds no secret.
  package func request(listen: ListenAddress?, advertise: NetworkAddress?) async throws -> String {
    let names = try OwnerFiles.list(self.directory.path)
    let hasContents = names.map { !$0.isEmpty } ?? false
    if hasContents, !OwnerFiles.exists(self.directory.key) || !OwnerFiles.exists(self.directory.description) {
      throw NodeError.directoryInUse(self.directory.path)
    }
    let description: NodeDescription
    if hasContents {
      try OwnerFiles.require(directory: self.directory.path)
      var present = try NodeDescription(readingFrom: self.directory.description)
      if let listen {
        let new = try Self.description(listen, advertise)
        (present.listen, present.advertise) = (new.listen, new.advertise)
        try present.write(to: self.directory.description)
      } else if let advertise {
        present.advertise = ["\(advertise)"]
        try present.write(to: self.directory.description)
      }
      description = present
    } else {
      guard let listen else { throw NodeError.setting("listen", expected: "HOST:PORT") }
      description = try Self.description(listen, advertise)
      try await OwnerFiles.create(self.directory.path) { temporary in
        let new = NodeDirectory(temporary)
        try new.create(PrincipalKeys(), at: new.key)
        try description.write(to: new.description)
      }
    }
    let addresses = try description.advertise.map { try NetworkAddress(parsing: $0) }
    // Newer addresses have a higher serial; the time is one that needs no memory.
    let now = WallClock.milliseconds()
    return try CredentialRequest(
      keys: try self.directory.keys(), addresses: addresses, addressesSerial: now, issuedAtMilliseconds: now
    ).pemRepresentation
  }

  private static func description(
    _ listen: ListenAddress, _ advertise: NetworkAddress?
  ) throws(NodeError) -> NodeDescription {
    let listen = try LocalAddress.withChosenPort(listen)
    let address = if let advertise { advertise } else { try LocalAddress.advertised(for: listen) }
    return NodeDescription(listen: "\(listen)", advertise: ["\(address)"])
  }

  /// Takes what an authority issued for this node's keys, when all of it verifies.
  ///
  /// - Parameter path: a file with what `btrpc process add` printed, `-` for standard input.
  /// - Returns: the path of the credential.
  package func join(packageIn path: String) throws -> TreePath {
    let text = try OwnerFiles.readArgument(path)
    let package: JoinPackage
    do { package = try JoinPackage(pemRepresentation: text) } catch {
      throw NodeError.malformed(path, why: "it holds no join package")
    }
    return try self.join(package)
  }

  /// Takes what an authority issued for this node's keys, when all of it verifies.
  ///
  /// - Returns: the path of the credential.
  package func join(_ package: JoinPackage) throws -> TreePath {
    try OwnerFiles.require(directory: self.directory.path)
    let keys = try self.directory.keys()
    var description = try NodeDescription(readingFrom: self.directory.description)
    let identity = try NodeDirectory.verify(
      package.credential, from: "the join package", root: package.root, keys: keys, at: WallClock.date())
    if OwnerFiles.exists(self.directory.rootCertificate) {
      guard try self.directory.root().domain == package.root.domain else {
        throw NodeError.wrongCredential("the node belongs to another domain")
      }
    }
    if OwnerFiles.exists(self.directory.credential) {
      let present = try? CredentialFile(bytes: try OwnerFiles.read(self.directory.credential))
      if let present, present.marks.place.path != identity.credential.path {
        throw NodeError.wrongCredential("the node is \(present.marks.place.path)")
      }
      if let present, present.marks.serial > identity.file.marks.serial {
        throw NodeError.wrongCredential("the node has a newer one")
      }
    }
    description.startFrom = Dictionary(
      package.processes.map { ("\($0.path)", NodeDescription.Process(path: $0.path, addresses: $0.addresses)) },
      uniquingKeysWith: { first, _ in first })
    description.directory = package.directory.map { "\($0)" } ?? description.directory
    if !package.above.isEmpty {
      description.above = Dictionary(
        package.above.map { served in
          (
            "\(served.generation)",
            .init(
              generation: served.generation.rawValue, path: served.path.description, file: "\(served.fileID)")
          )
        }, uniquingKeysWith: { first, _ in first })
    }
    let readcaps = try self.readcaps(package, keys: keys, path: identity.credential.path)
    description.readcaps = Dictionary(readcaps.map { ($0.file, $0) }, uniquingKeysWith: { first, _ in first })
    try OwnerFiles.write(Array(package.root.pemRepresentation.utf8), to: self.directory.rootCertificate)
    try description.write(to: self.directory.description)
    // Last: with the credential the node is a process.
    try OwnerFiles.write(package.credential.bytes, to: self.directory.credential)
    return identity.credential.path
  }

  /// Readcaps that this process can open. One that it can not is refused: it would be missed later.
  private func readcaps(
    _ package: JoinPackage, keys: PrincipalKeys, path: TreePath
  ) throws -> [NodeDescription.SealedKey] {
    try package.readcaps.map { item in
      let context = ReadcapContext(
        domain: package.root.domain, generation: item.fileID.generation.rawValue, inode: item.fileID.inode.rawValue,
        epoch: item.readcap.epoch, recipient: path)
      do {
        _ = try ReadcapSeal(bytes: item.readcap.sealedKey).open(with: keys.agreement, context: context)
      } catch {
        throw NodeError.wrongCredential("the key for \(item.path) is not sealed to this node")
      }
      return NodeDescription.SealedKey(
        path: item.path.description, file: item.fileID.description, epoch: item.readcap.epoch,
        sealedKey: Data(item.readcap.sealedKey))
    }
  }
}
