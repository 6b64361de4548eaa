// SPDX-License-Identifier: Apache-2.0

package import Resolver
package import Trust

extension Profile {
  /// Makes a profile directory. It exists complete, and durable, or not at all.
  ///
  /// - Parameters:
  ///   - directory: must not exist, or be empty; its parent must exist.
  ///   - dns: see ``dns``.
  ///   - credential: the caller's certificates, its own first; nil, as `keys`, for an anonymous profile.
  package static func create(
    at directory: String, root: RootCertificate, credential: CertificateChain?, keys: PrincipalKeys?,
    authority: Authority? = nil, path: TreePath?, processes: [Process], dns: DNSName? = nil
  ) throws(ProfileError) {
    // What could not be read again is not written.
    _ = try self.startingPoints(processes, in: FileName.description)
    let description: String
    do {
      description = try ProfileDescription(path: path?.description, processes: processes, dns: dns).encoded()
    } catch {
      throw ProfileError(directory, .malformed("\(error)"))
    }
    try PrivateFiles.createDirectory(directory) { (directory: String) throws(ProfileError) in
      try PrivateFiles.write(root.pemRepresentation, to: "\(directory)/\(FileName.root)")
      if let credential, let keys {
        try PrivateFiles.write(credential.pemRepresentation, to: "\(directory)/\(FileName.credential)")
        try self.write(keys, to: "\(directory)/\(FileName.key)")
      }
      if let authority {
        try PrivateFiles.write(authority.chain.pemRepresentation, to: "\(directory)/\(FileName.authority)")
        try self.write(authority.keys, to: "\(directory)/\(FileName.authorityKey)")
      }
      try PrivateFiles.write(description, to: "\(directory)/\(FileName.description)")
    }
  }

  static func write(_ keys: PrincipalKeys, to path: String) throws(ProfileError) {
    do {
      try KeyFile.create(keys, at: path)
    } catch {
      throw ProfileError(path, keyFile: error)
    }
  }

  /// Puts a renewed credential in the place of the present one, for the same keys.
  package static func replaceCredential(in directory: String, with chain: CertificateChain) throws(ProfileError) {
    try PrivateFiles.write(chain.pemRepresentation, to: "\(directory)/\(FileName.credential)")
    try PrivateFiles.synchronize(directory)
  }
}
