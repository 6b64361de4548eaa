// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Which processes are asked for.
package enum FindKind: Hashable, Sendable {
  /// All whose credential files lie directly in the scope.
  case contained
  /// Those in the closest directory at or above the scope that has any.
  case nearest
}

/// A question for processes.
package struct FindQuery: Hashable, Sendable, CustomStringConvertible {
  package let kind: FindKind
  /// Which they are to host; nil for any.
  package let service: Service?
  /// Any path, of a directory or file.
  package let scope: TreePath

  package init(kind: FindKind, service: Service?, scope: TreePath) {
    self.kind = kind
    self.service = service
    self.scope = scope
  }

  package var description: String {
    let kind = self.kind == .contained ? "contained in" : "nearest to"
    return "\(self.service?.name ?? "any service") \(kind) \(self.scope)"
  }
}

/// Processes of one directory.
package struct Found: Hashable, Sendable {
  /// The directory that they are in; nil when there are none.
  package let directory: TreePath?
  package let processes: [RouteProcess]
  /// For how long this may be remembered; also that there are none.
  package let lifetime: Duration
  /// Whether it comes from a copy that could not be compared with the directory's own cluster.
  package let isStale: Bool

  package init(directory: TreePath?, processes: [RouteProcess], lifetime: Duration, isStale: Bool = false) {
    self.directory = processes.isEmpty ? nil : directory
    self.processes = processes
    self.lifetime = lifetime
    self.isStale = isStale
  }

  package static func nobody(for lifetime: Duration) -> Found {
    Found(directory: nil, processes: [], lifetime: lifetime)
  }

  package var isEmpty: Bool { self.processes.isEmpty }
}

/// The processes of another directory know.
package struct Redirect: Hashable, Sendable {
  /// How many processes one redirect names.
  package static let processCountMax = 16

  /// The directory that they are in, whose cluster goes on from there.
  package let directory: TreePath
  package let processes: [RouteProcess]
  package let lifetime: Duration
  /// For a query for the nearest: who it is if nobody further on the way is nearer. Nil: not told here. Empty: what the
  /// answering process's own cluster stores of the way has nobody.
  package let nearestAbove: Found?

  package init(
    directory: TreePath, processes: [RouteProcess], lifetime: Duration, nearestAbove: Found? = nil
  ) {
    self.directory = directory
    self.processes = Array(processes.prefix(Self.processCountMax))
    self.lifetime = lifetime
    self.nearestAbove = nearestAbove
  }
}

/// What a process answers.
package enum FindAnswer: Hashable, Sendable {
  case found(Found)
  case redirect(Redirect)
}

/// How long answers may be remembered, where they begin.
package enum AnswerLifetime {
  /// Of processes, and of who goes on with a query. A process whose credential file was removed is passed over by all
  /// after this time.
  package static let positive = Duration.seconds(30)
  /// That there is nobody: a process that was just added should not be missed for long.
  package static let negative = Duration.seconds(2)
}
