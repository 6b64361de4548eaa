// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Sectors
package import Trust

/// Whether somebody may ask which processes there are at a scope.
package struct QueryJudgement: Hashable, Sendable {
  package let isPermitted: Bool
  /// How often a directory or record was looked up to find that out. For one caller and scopes of one length it is the
  /// same whether there is nothing or something that the caller may not know of.
  package let lookCount: Int
}

extension Filesystem {
  /// Judges whether somebody may ask about a scope: whoever may read it, or holds a readcap for it or for a directory
  /// above it; and everybody, where every directory from the scope to the root lets others read.
  ///
  /// A scope is a place. Symbolic links are not followed, and what one leads to is not in the scope. What is not there
  /// is judged as if it were in the deepest directory on the way that is. To look for it costs as much as to look at
  /// what is there, so how long a refusal takes says nothing.
  ///
  /// - Parameter scope: at or below the home, and not below a directory that was handed to other processes.
  /// - Throws: `parentUnreachable` when this takes the rules of the directories above the home, and these are not
  ///   known.
  package func mayQuery(
    _ scope: TreePath, by caller: CallerIdentity
  ) async throws(FilesystemError) -> QueryJudgement {
    // Anonymous callers may do what others may: that is asked for where it matters.
    let mayPassAbove = caller == .anonymous ? true : try await self.isLetPass(caller)
    var walk = QueryWalk(caller: caller, mayPass: mayPassAbove)
    var lookCount = 0
    var state = self.root
    var isThere = true
    let names = scope.components.dropFirst(self.home.path.depth)
    for (index, name) in names.enumerated() {
      lookCount += 1
      let known = try await self.judged(state, entering: true)
      guard isThere else { continue }
      guard let known, let directory = known.directory else {
        // Removed while it was looked up, or out of reach. From now on it is not there.
        isThere = false
        continue
      }
      walk.pass(known.record)
      // What lies further on makes no difference any more.
      guard walk.isOpen else { return QueryJudgement(isPermitted: false, lookCount: lookCount) }
      if let entry = directory.entry(name), entry.type == .directory || index == names.count - 1 {
        state = try await self.state(of: entry)
      } else {
        isThere = false
      }
    }
    lookCount += 1
    let record = try await self.judged(state, entering: false)?.record
    let permission = isThere ? record.map { walk.permission($0) } : nil
    let isPermitted: Bool
    switch permission ?? walk.permissionForMissing {
    case .own: isPermitted = true
    // The rules of the directories above stand elsewhere.
    case .others: isPermitted = try await self.isLetPass(.anonymous)
    case nil: isPermitted = false
    }
    return QueryJudgement(isPermitted: isPermitted, lookCount: lookCount)
  }

  /// An inode as queries are judged by it; nil when it is gone, in a cluster that can not be reached, or closed to this
  /// process, too.
  ///
  /// - Parameter entering: whether it is a directory whose entries are needed.
  private func judged(
    _ state: InodeState, entering: Bool
  ) async throws(FilesystemError) -> InodeState.Known? {
    if self.isForeignHome(state.fileID) {
      // The same whatever is looked for in it: to ask the other cluster for some names and not for others would tell them
      // apart.
      if let copy = self.ancestors.home, let known = state.lastKnown, known.directory != nil,
        known.record.version == copy.version
      {
        return known
      }
      return try await self.directoryOrStale(state)?.known
    }
    do throws(FilesystemError) {
      return entering ? try await self.directory(state) : try await self.known(state)
    } catch {
      switch error {
      case .sector(.unreachable), .noKey, .keyOutdated: return nil
      default: throw error
      }
    }
  }

  /// Whether every directory above the home lets somebody pass, and anonymous callers read.
  ///
  /// - Throws: `parentUnreachable` when their rules are not known.
  package func isLetPass(_ caller: CallerIdentity) async throws(FilesystemError) -> Bool {
    try await self.ancestorsPermit(caller == .anonymous ? [.read, .execute] : .execute, for: caller)
  }

  /// Who owns the home; nil when that is gone.
  package func homeOwner() async throws(FilesystemError) -> TreePath? {
    try await self.known(self.root)?.record.attributes.part.rules.owner
  }
}

/// What a walk towards a scope has found out about the right to ask.
struct QueryWalk: Sendable {
  let caller: CallerIdentity
  /// Whether every directory so far lets others read.
  private var othersMayRead = true
  /// Whether every directory so far lets the caller pass.
  private var callerMayPass: Bool
  /// Whether the directory passed last, and all above it, let the caller read it.
  private var callerMayReadLast = false
  /// Whether a readcap gives the caller the key to what lies here.
  private var holdsKey = false

  /// - Parameter mayPass: whether the directories above the beginning of the way let the caller pass.
  init(caller: CallerIdentity, mayPass: Bool) {
    self.caller = caller
    self.callerMayPass = mayPass
  }

  /// Whether the rest of the way can still lead to a permission. For anonymous callers it can not behind a directory
  /// that is closed; others may own what lies there.
  var isOpen: Bool { self.othersMayRead || self.caller != .anonymous }

  /// Takes note of a directory on the way.
  mutating func pass(_ record: InodeRecord) {
    let rules = record.attributes.part.rules
    self.othersMayRead = self.othersMayRead && Self.permits([.read, .execute], rules, .anonymous)
    self.callerMayReadLast = self.callerMayPass && Self.permits(.read, rules, self.caller)
    self.callerMayPass = self.callerMayPass && Self.permits(.execute, rules, self.caller)
    self.holdsKey = self.holdsKey && !record.attributes.part.isCutOff || self.holdsReadcap(record)
  }

  /// Why somebody may ask.
  enum Permission: Hashable, Sendable {
    /// Because of who it is.
    case own
    /// Because everybody may, as far as the way has been walked.
    case others
  }

  /// Whether the caller may ask about what is at the end of the way.
  func permission(_ record: InodeRecord) -> Permission? {
    let rules = record.attributes.part.rules
    let others: Trust.Permission = record.attributes.part.type == .directory ? [.read, .execute] : .read
    if self.caller != .anonymous {
      if self.holdsKey && !record.attributes.part.isCutOff || self.holdsReadcap(record) { return .own }
      // What a file lets others do counts only for those whom the directories above let pass.
      if Self.permits(.read, self.callerMayPass ? rules : rules.ofClosedPlace, self.caller) { return .own }
    }
    return self.othersMayRead && Self.permits(others, rules, .anonymous) ? .others : nil
  }

  /// Whether the caller may ask about what is missing in the directory that was passed last.
  var permissionForMissing: Permission? {
    if self.caller != .anonymous, self.holdsKey || self.callerMayReadLast { return .own }
    return self.othersMayRead ? .others : nil
  }

  private func holdsReadcap(_ record: InodeRecord) -> Bool {
    guard case .principal(let path) = self.caller else { return false }
    return record.attributes.part.readcaps.contains { $0.principal == path }
  }

  private static func permits(_ wanted: Trust.Permission, _ rules: AccessRules, _ caller: CallerIdentity) -> Bool {
    rules.permits(wanted, caller: caller, memberOf: { _ in false })
  }
}

extension AccessRules {
  /// What counts for those whom a directory above does not let pass: what is given to this very caller, as owner, as a
  /// member of a group, or by the access list. What a file lets others do does not, or a closed directory would close
  /// nothing.
  var ofClosedPlace: AccessRules {
    var own = self
    // The root directory, as a group, is everybody in the domain.
    own.mode = Mode(truncating: UInt32(own.mode.rawValue & (own.group.isRoot ? 0o7700 : 0o7770)))
    own.entries.removeAll { $0.subject == .group(.root) }
    return own
  }
}
