// SPDX-License-Identifier: Apache-2.0

/// What a signature is for. The purpose is part of what is signed, so a signature made for one can not be used as
/// another. The raw values are in signed messages and never change.
package enum SigningPurpose: String, Hashable, Sendable, CaseIterable {
  /// The content part of an inode record.
  case contentPart = "content part"
  /// The attributes part of an inode record, with the access list and readcaps.
  case attributesPart = "attributes part"
  /// The links part of an inode record.
  case linksPart = "links part"
  /// A cluster's acceptance of a record.
  case acceptance = "acceptance"
  /// An authority's part of a credential file.
  case credentialMarks = "credential marks"
  /// A process's own part of its credential file.
  case credentialAddresses = "credential addresses"
  /// A request for a certificate.
  case credentialRequest = "credential request"
  /// An entry that names a member of a group.
  case groupMember = "group member"
  /// What a cluster's leader says about a commit's durability.
  case receipt = "receipt"
  /// A message between actors.
  case envelope = "envelope"
  /// What allows one member to begin the next life of a cluster that has lost its majority.
  case recoveryWarrant = "recovery warrant"
}
