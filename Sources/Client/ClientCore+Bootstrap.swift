// SPDX-License-Identifier: Apache-2.0

internal import Trust

extension ClusterCore {
  /// What came of asking DNS.
  enum Bootstrapping {
    /// There are processes to try that were not tried yet.
    case found
    case failed(BlocktreeError)
    /// There is no DNS to ask, or it knows nothing new.
    case nothing
  }

  /// Asks DNS for processes of the root directory, when none of those can be reached that are known.
  func bootstrap(within limit: Duration?) async -> Bootstrapping {
    guard self.scope == .root, let bootstrap = self.shared.bootstrap else { return .nothing }
    switch await bootstrap.ask(within: limit) {
    case .addresses(let addresses): return self.found(addresses) ? .found : .nothing
    case .failed(let error): return .failed(error)
    case nil: return .nothing
    }
  }
}

extension ClientCore {
  /// Whether processes of the root directory could be found by DNS, while none of them is known.
  func mayBootstrap(_ kind: CallKind) -> Bool { self.shared.bootstrap != nil && !self.knowsRoot(kind) }
}
