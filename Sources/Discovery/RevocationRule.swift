// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials
package import Trust

/// Whose open connections are to be closed: of those whose certificate has expired, or whose credential file is gone or
/// for another key.
///
/// Credential files that are stored here are known at once. Those of others are asked for again while they have a
/// connection open, so that it is known within the lifetime of a confirmation that one is gone. When nobody can be
/// asked, the connection ends with that lifetime.
package struct RevocationRule: Sendable {
  private let principals: any PrincipalJudge
  private let lookup: CredentialLookup

  package init(principals: any PrincipalJudge, lookup: CredentialLookup) {
    self.principals = principals
    self.lookup = lookup
  }

  /// To be asked for each open connection, about once a second.
  package func isRevoked(_ credential: Credential, at date: Date) -> Bool {
    if credential.notAfter < date { return true }
    // This process itself is never asked for.
    if self.principals.isStoredHere(credential.path) { return !self.principals.confirms(credential) }
    return self.lookup.hasLapsed(credential)
  }
}
