// SPDX-License-Identifier: Apache-2.0

package import Trust

/// One thing that happened in a search, for people who want to see how something was found.
package enum FindNote: Hashable, Sendable, CustomStringConvertible {
  /// The answer was known already.
  case remembered(Found, of: FindQuery)
  /// One's own cluster was asked, which takes no journey.
  case askedHere(FindQuery, TreePath)
  /// The search begins with processes of a directory that are remembered, or were given.
  case began(TreePath, isRemembered: Bool)
  case asked(RouteProcess, FindQuery, hop: Int)
  case found(Found)
  case redirected(to: TreePath, processCount: Int)
  case ledNowhere(from: TreePath, to: TreePath)
  case unreachable(TreePath)
  case unable(TreePath, String)
  case denied(TreePath)
  /// Nobody is nearer, so the search goes on above.
  case wentUp(FindQuery)

  package var description: String {
    switch self {
    case .remembered(let found, let query): "remembered: \(query): \(Self.text(found))"
    case .askedHere(let query, let home): "asked here, in \(home): \(query)"
    case .began(let directory, let isRemembered):
      "begins in \(directory), \(isRemembered ? "as remembered" : "as given")"
    case .asked(let process, let query, let hop):
      "hop \(hop): asked \(process.path) (\(process.addresses.map(\.description).joined(separator: ", "))): \(query)"
    case .found(let found): "found: \(Self.text(found))"
    case .redirected(let directory, let count): "redirected to \(directory), \(count) processes"
    case .ledNowhere(let from, let to): "led nowhere: from \(from) to \(to)"
    case .unreachable(let process): "\(process) can not be reached"
    case .unable(let process, let reason): "\(process) can not answer: \(reason)"
    case .denied(let process): "\(process) says: permission denied"
    case .wentUp(let query): "nobody is nearer; goes on above: \(query)"
    }
  }

  private static func text(_ found: Found) -> String {
    guard let directory = found.directory else { return "nobody" }
    return "\(found.processes.count) in \(directory)\(found.isStale ? ", perhaps out of date" : "")"
  }
}
