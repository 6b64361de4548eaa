// SPDX-License-Identifier: Apache-2.0

/// Why a certificate, a signature or something signed was not believed, or could not be made.
///
/// The raw values are stable: they may be shown to clients as the reason of an error.
package enum TrustError: String, Error, Hashable, Sendable {
  /// The bytes do not follow their format, or say something twice.
  case malformed = "MALFORMED"
  /// More certificates, bytes or list entries than the limits allow.
  case tooLong = "TOO_LONG"
  /// A newer format version than this program knows.
  case unknownVersion = "UNKNOWN_VERSION"
  /// Another key or signature algorithm than ECDSA with P-256 and SHA-256.
  case unsupportedAlgorithm = "UNSUPPORTED_ALGORITHM"
  /// A critical extension that nobody here understands.
  case unknownCriticalExtension = "UNKNOWN_CRITICAL_EXTENSION"
  /// A signature does not match.
  case badSignature = "BAD_SIGNATURE"
  case expired = "EXPIRED"
  case notYetValid = "NOT_YET_VALID"
  /// Certified in another domain, or under another root key.
  case foreignDomain = "FOREIGN_DOMAIN"
  /// The issuer's directory is not above the subject.
  case pathNotCovered = "PATH_NOT_COVERED"
  /// A certificate that is used as an authority is none.
  case notAuthority = "NOT_AUTHORITY"
  /// A certificate that is used as a credential is an authority, or is not made for TLS.
  case notCredential = "NOT_CREDENTIAL"
  /// The names in a certificate do not belong together: DNS name, subject, issuer or name constraints.
  case wrongName = "WRONG_NAME"
  /// A valid credential, but of somebody else than expected.
  case wrongPath = "WRONG_PATH"
  /// A key does not belong to the certificate or record that it came with.
  case wrongKey = "WRONG_KEY"
  /// Authorities can not be that deep in the tree.
  case authorityTooDeep = "AUTHORITY_TOO_DEEP"
  /// The cryptographic library refused: a sealed key was not made for this recipient and place, or a key is invalid.
  case cryptographicFailure = "CRYPTOGRAPHIC_FAILURE"
}
