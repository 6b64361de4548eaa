// SPDX-License-Identifier: Apache-2.0

package import Routes
package import Trust

/// One operation's way through the clusters of a domain to the one that does it. Decides, and performs nothing.
///
/// It begins at the deepest directory at or above the path that the client knows processes of. These do it, or redirect:
/// downwards to those of a deeper directory, upwards when the path is not theirs. Where nobody can be reached, those
/// above are asked again, as they may know of others by now.
///
/// Redirects come from other machines, so they must lead somewhere: downwards each to a longer directory at or above the
/// path, upwards each to one above the last; upwards after downwards only once; nowhere where the path was redirected
/// already; not more than ``redirectCountMax``.
///
/// Symbolic links may lead what only reads anywhere. What changes something they lead on only within the directory of
/// those who say so: others would have anything changed with the rights of the one who asks.
package struct RouteSearch: Sendable {
  package static let redirectCountMax = 64

  package typealias Instant = RouteTime

  /// Whom to ask.
  package struct Step: Hashable, Sendable {
    package let directory: TreePath
    /// Whether nobody else would be asked if this one can not be reached: it is worth waiting for.
    package let isPatient: Bool

    package init(directory: TreePath, isPatient: Bool) {
      self.directory = directory
      self.isPatient = isPatient
    }
  }

  /// What a redirect looked like.
  package struct Hop: Hashable, Sendable {
    package let from: TreePath
    package let to: TreePath
    /// Where links have led on to.
    package let path: TreePath?
  }

  /// What the operation was asked for.
  package let original: TreePath
  /// What to ask for now: links may have led on.
  package private(set) var path: TreePath
  package private(set) var hops: [Hop] = []
  /// How far above the path those are that it is asked of.
  private let levels: Int
  /// Whether something is to be changed where the path leads.
  package private(set) var isConfined: Bool
  /// Where the last redirect leads.
  private var goal: TreePath?
  /// Who has redirected the present path.
  private var visited: Set<TreePath> = []
  private var hasDescended = false
  private var hasReturned = false
  private var unreachable: Set<TreePath> = []

  /// - Parameters:
  ///   - levels: 0 for an operation on what the path leads to; 1 for one that changes the directory which holds the
  ///     name, 2 for one that this directory's own cluster may not do.
  ///   - avoided: who is not asked as long as others are known.
  ///   - isConfined: whether something is to be changed where the path leads, by this operation or a later one.
  package init(
    _ path: TreePath, levels: Int = 0, avoiding avoided: Set<TreePath> = [], isConfined: Bool = false
  ) {
    self.original = path
    self.path = path
    self.levels = levels
    self.isConfined = isConfined
    self.unreachable = avoided
  }

  /// Something is to be changed where the path leads.
  package mutating func confine() { self.isConfined = true }

  /// Whether the next step is where a redirect leads.
  package var isRedirected: Bool { self.goal != nil }

  /// Whom to ask now; nil when nobody is known.
  package func next(in routes: ClientRoutes, _ now: Instant) -> Step? {
    if let goal { return Step(directory: goal, isPatient: true) }
    var start = self.path
    for _ in 0..<self.levels { start = start.parent ?? .root }
    let known = routes.directories(above: start, now)
    // Those that are off the way come before those that are not believed any more: they know better, if they answer.
    let all = known.fresh + (known.fresh.isEmpty ? routes.elsewhere(than: start) : []) + known.expired
    let open = all.filter { !self.unreachable.contains($0) }
    if let first = open.first { return Step(directory: first, isPatient: all.count == 1) }
    return all.first.map { Step(directory: $0, isPatient: true) }
  }

  /// Nobody could be reached there.
  ///
  /// - Returns: whether there is another step.
  package mutating func failed(_ step: Step) -> Bool {
    guard !step.isPatient, self.unreachable.insert(step.directory).inserted else { return false }
    // From above, the way down may be taken again.
    self.hasDescended = false
    return true
  }

  /// Those who were asked say who else answers.
  ///
  /// - Parameter directory: theirs.
  package mutating func redirected(_ redirection: ClientRedirection, by directory: TreePath) throws(BlocktreeError) {
    self.hops.append(Hop(from: directory, to: redirection.directory, path: redirection.path))
    guard self.hops.count <= Self.redirectCountMax else { throw self.error("tooMany") }
    if let path = redirection.path, path != self.path {
      if self.isConfined, !directory.isSameOrAncestor(of: path) {
        throw .leadsOut(of: directory, to: path, from: self.original)
      }
      self.path = path
      self.visited = []
      self.hasDescended = false
      self.hasReturned = false
    }
    self.visited.insert(directory)
    guard !self.visited.contains(redirection.directory) else { throw self.error("loop") }
    if redirection.directory.isAncestor(of: directory) {
      if self.hasDescended {
        guard !self.hasReturned else { throw self.error("upwards") }
        self.hasReturned = true
      }
    } else {
      // From off the way onto it, or from above down.
      let isOnTheWay = directory.isSameOrAncestor(of: self.path)
      guard redirection.directory.isSameOrAncestor(of: self.path),
        !isOnTheWay || directory.isAncestor(of: redirection.directory)
      else { throw self.error("offTheWay") }
      self.hasDescended = true
    }
    self.goal = redirection.directory
  }

  /// Names the hop that leads nowhere.
  private func error(_ rule: String) -> BlocktreeError {
    let hop = self.hops.last
    return BlocktreeError(
      code: .failedPrecondition, reason: .redirected, message: "A redirect between clusters leads nowhere.",
      metadata: [
        "path": "\(self.original)", "hop": "\(self.hops.count)", "from": hop.map { "\($0.from)" } ?? "",
        "directory": hop.map { "\($0.to)" } ?? "", "rule": rule,
      ])
  }
}

extension BlocktreeError {
  /// Processes say that a symbolic link leads to a place that is not theirs, where something would be changed.
  static func leadsOut(of directory: TreePath, to path: TreePath, from original: TreePath) -> BlocktreeError {
    BlocktreeError(
      code: .failedPrecondition, reason: .redirected,
      message: "a symbolic link leads out of \(directory), to \(path): name that path itself",
      metadata: ["path": "\(original)", "directory": "\(directory)", "target": "\(path)", "rule": "leadsOut"])
  }
}
