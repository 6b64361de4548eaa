// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import FoundationEssentials
package import Inodes
internal import SwiftProtobuf
package import Trust

/// All that a new process or user needs to start: certificates, addresses and readcaps. It holds no secret that its
/// receiver's private key does not guard.
public struct JoinPackage: Sendable {
  /// A sealed key and the directory that it opens.
  package struct DirectoryReadcap: Sendable {
    /// The directory's path when the readcap was made.
    package let path: TreePath
    package let fileID: Inodes.FileID
    package let readcap: Readcap
  }

  /// A directory with a cluster of its own.
  package struct Served: Sendable {
    package let generation: Generation
    package let path: TreePath
    package let fileID: Inodes.FileID
  }

  /// Clusters one below the other that are taken from a package.
  private static let aboveCountMax = 64

  package let root: RootCertificate
  package let credential: CredentialFile
  package let readcaps: [DirectoryReadcap]
  /// The directory that the credential file lies in; nil in packages of former versions.
  package let directory: Inodes.FileID?
  /// The clusters above, from the root's to the one that stores that directory.
  package let above: [Served]
  /// Processes to start from.
  public let processes: [Profile.Process]
  private let bytes: [UInt8]

  /// What the text form takes at most.
  static let byteCountMax = 1 << 20
  private static let label = "BLOCKTREE JOIN PACKAGE"

  /// Where the credential lies.
  public var path: String { self.credential.marks.place.path.description }

  /// Puts together what an authority and a process know. Readcaps are added by whoever has the keys.
  package init(
    root: RootCertificate, credential: CredentialFile, processes: [Profile.Process]
  ) throws(BlocktreeError) {
    try self.init(
      .with {
        $0.rootCertificate = Data(root.der)
        $0.credential = Data(credential.bytes)
        $0.startFrom = processes.map { process in
          .with {
            $0.path = process.path
            $0.addresses = process.addresses
          }
        }
      })
  }

  /// The serialized message of the schema.
  package init(serializedBytes bytes: [UInt8]) throws(BlocktreeError) {
    guard bytes.count <= Self.byteCountMax, let message = try? Blocktree_V1_JoinPackage(serializedBytes: bytes) else {
      throw .invalid("This is no join package.", field: "join_package")
    }
    try self.init(message)
  }

  init(_ message: Blocktree_V1_JoinPackage) throws(BlocktreeError) {
    do {
      self.root = try RootCertificate(der: Array(message.rootCertificate))
      self.credential = try CredentialFile(bytes: Array(message.credential))
      self.readcaps = try message.readcaps.map {
        DirectoryReadcap(
          path: try TreePath(parsing: $0.path), fileID: try Inodes.FileID($0.fileID), readcap: try Readcap($0.readcap))
      }
      self.directory = message.hasDirectory ? try Inodes.FileID(message.directory) : nil
      guard message.above.count <= Self.aboveCountMax else { throw RecordError.malformed("above") }
      self.above = try message.above.map {
        Served(
          generation: Generation($0.generation), path: try TreePath(parsing: $0.path),
          fileID: try Inodes.FileID($0.fileID))
      }
      self.processes = message.startFrom.map { Profile.Process(path: $0.path, addresses: $0.addresses) }
      self.bytes = try message.serializedBytes()
    } catch {
      throw .invalid("The join package is damaged.", field: "join_package")
    }
  }

  /// `-----BEGIN BLOCKTREE JOIN PACKAGE-----` and lines of base64, to be carried through a pipe or a mail.
  public var pemRepresentation: String {
    let base64 = Array(Data(self.bytes).base64EncodedString().utf8)
    var lines = ["-----BEGIN \(Self.label)-----"]
    for start in stride(from: 0, to: base64.count, by: 64) {
      lines.append(String(decoding: base64[start..<min(start + 64, base64.count)], as: UTF8.self))
    }
    lines.append("-----END \(Self.label)-----")
    return lines.joined(separator: "\n") + "\n"
  }

  /// Reads the text form. Other text around it is passed over. Nothing is verified here.
  public init(pemRepresentation text: String) throws {
    guard text.utf8.count <= 2 * Self.byteCountMax else {
      throw BlocktreeError.invalid("The join package is too large.", field: "join_package")
    }
    let lines = text.split(whereSeparator: \.isNewline).map { $0.trimmingPrefix(while: \.isWhitespace) }
    let first = lines.firstIndex { $0.hasPrefix("-----BEGIN \(Self.label)-----") }
    let last = lines.firstIndex { $0.hasPrefix("-----END \(Self.label)-----") }
    guard let first, let last, first < last else {
      throw BlocktreeError.invalid("There is no \"BEGIN \(Self.label)\" block.", field: "join_package")
    }
    let base64 = lines[(first + 1)..<last].joined().filter { !$0.isWhitespace }
    guard let data = Data(base64Encoded: base64) else {
      throw BlocktreeError.invalid("The join package is not base64.", field: "join_package")
    }
    try self.init(serializedBytes: Array(data))
  }

  /// The process that the credential is for, with the addresses that stand in it; nil for a user's.
  package var newProcess: Profile.Process? {
    guard let verified = try? self.verify(), verified.credential.kind == .process else { return nil }
    return Profile.Process(
      path: verified.credential.path.description, addresses: verified.addresses.map(\.description))
  }

  /// The credential file, if it is good in this domain, and for these keys where they are named.
  package func verify(for keys: PrincipalKeys? = nil) throws(BlocktreeError) -> VerifiedCredentialFile {
    do {
      let verified = try self.credential.verify(with: ChainVerifier(root: self.root), at: .now)
      if let keys {
        guard verified.credential.verifyingKey == keys.signing.verifyingKey,
          verified.agreementKey == keys.agreement.publicKey
        else { throw TrustError.wrongKey }
      }
      return verified
    } catch {
      throw BlocktreeError(error as? TrustError ?? .malformed, "The credential in the join package can not be used")
    }
  }
}

extension Profile {
  /// Makes a profile from what an authority issued for these keys.
  package static func create(
    at directory: String, joining package: JoinPackage, keys: PrincipalKeys
  ) throws {
    let verified = try package.verify(for: keys)
    try self.create(
      at: directory, root: package.root, credential: verified.credential.chain, keys: keys,
      path: verified.credential.path, processes: package.processes)
  }
}
