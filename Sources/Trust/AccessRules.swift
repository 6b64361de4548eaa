// SPDX-License-Identifier: Apache-2.0

/// Who is on the other side of a connection.
package enum Caller: Hashable, Sendable {
  /// Showed no certificate. (One that does not verify ends the connection; it never makes a caller anonymous.)
  case anonymous
  case credential(Credential)

  package var identity: CallerIdentity {
    switch self {
    case .anonymous: .anonymous
    case .credential(let credential): .principal(credential.path)
    }
  }

  package var credential: Credential? {
    if case .credential(let credential) = self { credential } else { nil }
  }
}

/// On whose behalf something is done: the caller's own identity, or the one that a filesystem service acts for and has
/// proved. Principals of other domains never get this far.
package enum CallerIdentity: Hashable, Sendable {
  case anonymous
  case principal(TreePath)
}

/// One line of an access list.
package struct AccessEntry: Hashable, Sendable {
  package enum Subject: Hashable, Sendable {
    /// The principal whose credential is at this path.
    case principal(TreePath)
    /// The members of the group that this directory is.
    case group(TreePath)
  }

  package let subject: Subject
  package let permission: Permission

  package init(_ subject: Subject, _ permission: Permission) {
    self.subject = subject
    self.permission = permission
  }
}

/// Who may do what with one file: owner, group, mode bits and access list. The order is that of POSIX access lists
/// (POSIX.1e draft 17, 23.1.5), where the first class that a caller belongs to decides:
///
/// 1. the owner has the owner's bits, and nothing else counts;
/// 2. a principal named in the list has what it is given there (all its lines together);
/// 3. a member of the owning group or of groups in the list has the request granted if one of these grants all of it,
///    and is refused otherwise;
/// 4. everybody else, anonymous callers included, has the others' bits, but anonymous callers never write.
///
/// Unlike there, the list has no mask: the group bits of the mode are the owning group's and nothing more.
package struct AccessRules: Hashable, Sendable {
  package var owner: TreePath
  package var group: TreePath
  package var mode: Mode
  package var entries: [AccessEntry]

  package init(owner: TreePath, group: TreePath, mode: Mode, entries: [AccessEntry] = []) {
    self.owner = owner
    self.group = group
    self.mode = mode
    self.entries = entries
  }

  /// Whether `caller` may do all of `wanted`. To want nothing is always permitted.
  ///
  /// - Parameter isNamedMember: Whether a signed entry in the group's directory names the caller. Those whose credential
  ///   lies below the directory are members anyway, and it is not asked for them.
  package func permits(
    _ wanted: Permission, caller: CallerIdentity, memberOf isNamedMember: (_ group: TreePath) -> Bool
  ) -> Bool {
    guard case .principal(let caller) = caller else {
      return wanted.isSubset(of: self.mode.others.subtracting(.write))
    }
    if caller == self.owner { return wanted.isSubset(of: self.mode.owner) }

    var named: Permission?
    for entry in self.entries {
      if case .principal(caller) = entry.subject { named = (named ?? []).union(entry.permission) }
    }
    if let named { return wanted.isSubset(of: named) }

    var isInGroup = false
    if Self.isMember(caller, of: self.group, isNamedMember) {
      if wanted.isSubset(of: self.mode.group) { return true }
      isInGroup = true
    }
    for entry in self.entries {
      guard case .group(let group) = entry.subject, Self.isMember(caller, of: group, isNamedMember) else { continue }
      if wanted.isSubset(of: entry.permission) { return true }
      isInGroup = true
    }
    return isInGroup ? false : wanted.isSubset(of: self.mode.others)
  }

  /// A group is a directory. Its members are the principals below it, at any depth, and those that it names.
  private static func isMember(_ caller: TreePath, of group: TreePath, _ isNamedMember: (TreePath) -> Bool) -> Bool {
    group.isAncestor(of: caller) || isNamedMember(group)
  }
}
