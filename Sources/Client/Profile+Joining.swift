// SPDX-License-Identifier: Apache-2.0

package import Trust

extension Profile {
  /// Makes keys in a new profile directory, and the request for a credential that goes with them, in PEM. The private
  /// keys never leave the directory.
  package static func makeRequest(at directory: String) throws -> String {
    let keys = PrincipalKeys()
    try PrivateFiles.createDirectory(directory) { (directory: String) throws(ProfileError) in
      try self.write(keys, to: "\(directory)/\(FileName.key)")
    }
    return try self.request(for: keys)
  }

  /// The request for a credential for these keys, in PEM.
  package static func request(for keys: PrincipalKeys) throws(TrustError) -> String {
    try CredentialRequest(
      keys: keys, issuedAtMilliseconds: UInt64(clamping: Timestamp.now.nanoseconds / 1_000_000)
    ).pemRepresentation
  }

  /// Completes a directory that holds the keys which a join package was issued for.
  package static func join(_ package: JoinPackage, in directory: String) throws {
    try PrivateFiles.require(directory: directory)
    let keyPath = "\(directory)/\(FileName.key)"
    let keys: PrincipalKeys
    do {
      keys = try KeyFile.load(from: keyPath)
    } catch {
      throw ProfileError(keyPath, keyFile: error)
    }
    let verified = try package.verify(for: keys)
    _ = try self.startingPoints(package.processes, in: FileName.description)
    let description = ProfileDescription(path: verified.credential.path.description, processes: package.processes)
    try PrivateFiles.write(package.root.pemRepresentation, to: "\(directory)/\(FileName.root)")
    try PrivateFiles.write(verified.credential.chain.pemRepresentation, to: "\(directory)/\(FileName.credential)")
    // A profile is read by way of this file, so it comes last.
    try PrivateFiles.write(description.encoded(), to: "\(directory)/\(FileName.description)")
    try PrivateFiles.synchronize(directory)
  }
}

extension Profile {
  /// Removes a directory that ``makeRequest(at:)`` made, if nothing has been added to it.
  package static func discardRequest(at directory: String) throws {
    try PrivateFiles.removeKeyDirectory(directory, key: FileName.key)
  }
}
