// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Trust

/// The directory of one node, mode 0700:
///
/// | name | holds |
/// | --- | --- |
/// | `root.pem` | the domain's root certificate |
/// | `root-key.pem` | the root principal's keys, after `init`: belongs somewhere offline |
/// | `key.pem` | this process's keys |
/// | `credential` | this process's credential file |
/// | `node.json` | what the node is, and settings |
/// | `generation-1` | the store of the sectors; of another generation, its number |
/// | `warrant-1` | the latest warrant of recovery that it knows of, once there was one |
/// | `members.json` | the other members of the cluster, for when the store can not tell |
/// | `scrub.json` | how far the store was verified |
/// | `above` | in a delegated directory, copies of what lies above it, for when nobody there can be reached |
/// | `profile` | the person's profile, after `init` |
package struct NodeDirectory: Sendable {
  package let path: String

  package init(_ path: String) {
    self.path = path
  }

  package var rootCertificate: String { "\(self.path)/root.pem" }
  package var rootKey: String { "\(self.path)/root-key.pem" }
  package var key: String { "\(self.path)/key.pem" }
  package var credential: String { "\(self.path)/credential" }
  package var description: String { "\(self.path)/node.json" }
  package var profile: String { "\(self.path)/profile" }
  package var members: String { "\(self.path)/members.json" }
  package var scrub: String { "\(self.path)/scrub.json" }
  package var above: String { "\(self.path)/above" }
  package func store(generation: UInt64) -> String { "\(self.path)/generation-\(generation)" }
  package func warrant(generation: UInt64) -> String { "\(self.path)/warrant-\(generation)" }

  /// Who a process is, with all that proves it verified.
  struct Identity: Sendable {
    let root: RootCertificate
    let keys: PrincipalKeys
    let file: VerifiedCredentialFile

    var credential: Credential { self.file.credential }
  }

  /// Reads keys and credential and verifies them against one another and the root.
  func identity(at time: Date) throws(NodeError) -> Identity {
    try OwnerFiles.require(directory: self.path)
    let root = try self.root()
    let keys = try self.keys()
    let file: CredentialFile
    do { file = try CredentialFile(bytes: try OwnerFiles.read(self.credential)) } catch let error as NodeError {
      throw error
    } catch {
      throw .malformed(self.credential, why: "it is not a credential")
    }
    return try Self.verify(file, from: self.credential, root: root, keys: keys, at: time)
  }

  static func verify(
    _ file: CredentialFile, from path: String, root: RootCertificate, keys: PrincipalKeys, at time: Date
  ) throws(NodeError) -> Identity {
    let verified: VerifiedCredentialFile
    do { verified = try file.verify(with: ChainVerifier(root: root), at: time) } catch {
      throw .untrusted(path, error)
    }
    guard verified.credential.verifyingKey == keys.signing.verifyingKey,
      verified.agreementKey == keys.agreement.publicKey
    else { throw .wrongCredential("it certifies other keys") }
    guard verified.credential.kind == .process else { throw .wrongCredential("it is a user's") }
    return Identity(root: root, keys: keys, file: verified)
  }

  func root() throws(NodeError) -> RootCertificate {
    let text = try OwnerFiles.readText(self.rootCertificate)
    do { return try RootCertificate(pemRepresentation: text) } catch {
      throw .malformed(self.rootCertificate, why: "it is not a root certificate")
    }
  }

  /// Makes one of the key files.
  func create(_ keys: PrincipalKeys, at path: String) throws(NodeError) {
    do { try KeyFile.create(keys, at: path) } catch { throw .keyFile(path, error) }
  }

  func keys() throws(NodeError) -> PrincipalKeys {
    do { return try KeyFile.load(from: self.key) } catch { throw .keyFile(self.key, error) }
  }
}
