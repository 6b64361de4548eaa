// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// What a process knows of the lives of its cluster besides its store: the latest warrant of recovery that it was given
/// or told of. It is written before anything is done about it, so that a crash leaves the process either where it was or
/// at the beginning of what the warrant says: see `Node.openStore(_:)`.
struct WarrantFile: Sendable {
  let path: String
  let root: RootCertificate
  let generation: UInt64

  /// Nil where no recovery is known of.
  func read() throws(NodeError) -> RecoveryWarrant? {
    guard OwnerFiles.exists(self.path) else { return nil }
    let warrant: RecoveryWarrant
    do { warrant = try RecoveryWarrant(verifying: try OwnerFiles.read(self.path), root: self.root) } catch let error
      as TrustError
    {
      throw .untrusted(self.path, error)
    } catch let error as NodeError {
      throw error
    } catch {
      throw .malformed(self.path, why: "\(error)")
    }
    guard warrant.generation == self.generation else {
      throw .malformed(self.path, why: "it is for generation \(warrant.generation)")
    }
    return warrant
  }

  /// Keeps a warrant, unless a later one is known. Durable when it returns.
  func note(_ warrant: RecoveryWarrant) throws(NodeError) {
    guard warrant.supersedes(try self.read()) else { return }
    try OwnerFiles.write(warrant.bytes, to: self.path)
  }
}
