// SPDX-License-Identifier: Apache-2.0

package import Sectors
package import Trust

extension GuestDirectory: GuestRegister {
  package func note(_ file: VerifiedCredentialFile, for lifetime: Duration) {
    self.confirm(
      Guest(
        path: file.credential.path, keyID: file.credential.keyID, kind: file.credential.kind, services: file.services),
      for: lifetime)
  }

  package func remove(_ path: TreePath) { self.forget(path) }
}
