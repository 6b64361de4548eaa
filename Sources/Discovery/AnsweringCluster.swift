// SPDX-License-Identifier: Apache-2.0

internal import Inodes
package import Routes
package import Sectors
package import Trust

/// Who somebody is, as far as a process knows without asking others.
package protocol PrincipalJudge: Sendable {
  /// Whether the credential file of a path would be known here: if so, whoever is not is nobody, and no other cluster is
  /// asked.
  func isStoredHere(_ path: TreePath) -> Bool
  /// Whether somebody may call at all: the credential stands in the tree with this key, as is known here or was
  /// confirmed lately.
  func confirms(_ credential: Credential) -> Bool
}

/// The cluster that a process answers queries for.
package protocol AnsweringCluster: PrincipalJudge {
  /// The directory whose processes answer.
  var home: TreePath { get }
  /// Whether what is said of it has to be the present: a member that the others have gone on without would name whom
  /// they have removed.
  func isCurrent() async -> Bool
  /// Whether somebody is a filesystem service, and so has the keys of what lies below its directory.
  func isFilesystemService(_ credential: Credential) -> Bool
  /// The answer to a query about what is at or below the home, for whoever may know all of it.
  func answer(to query: FindQuery) async throws(DiscoveryError) -> FindAnswer
  /// The credential file at a path, or who knows.
  func credential(at path: TreePath) async throws(DiscoveryError) -> ClusterCredential
  /// SHA-256 of the credential file at a path, as far as it is known without asking.
  func credentialDigest(_ path: TreePath) -> Digest32?
}

/// Where a credential file is, as the processes of one cluster see it.
package enum ClusterCredential: Hashable, Sendable {
  case answer(CredentialAnswer)
  /// In a cluster above, or reached from there.
  case above
  /// In this cluster, if it is anywhere; and it is not there. Of what lies directly in the home the cluster above may
  /// know more.
  case absent
}

extension SectorGroup: PrincipalJudge {}

/// A cluster, to its own members.
package struct GroupAnswers: OwnCluster, AnsweringCluster {
  private let group: SectorGroup
  private let view: CredentialView

  package init(_ group: SectorGroup) {
    self.group = group
    self.view = CredentialView(group)
  }

  package var home: TreePath { self.view.home }

  package func answer(_ query: FindQuery) -> FindAnswer? { QueryAnswer(self.view).answer(to: query) }

  package func redirect(toCredential path: TreePath) -> FindAnswer? {
    guard case .redirect(let redirect) = QueryAnswer(self.view).place(ofCredential: path) else { return nil }
    return .redirect(redirect)
  }

  package func isStoredHere(_ path: TreePath) -> Bool { self.group.isStoredHere(path) }
  package func confirms(_ credential: Credential) -> Bool { self.group.confirms(credential) }

  package func isCurrent() async -> Bool {
    do { try await self.group.confirmRead() } catch { return false }
    return true
  }

  package func isFilesystemService(_ credential: Credential) -> Bool {
    self.group.filesystemDirectory(of: credential) != nil
  }

  package func answer(to query: FindQuery) async throws(DiscoveryError) -> FindAnswer {
    guard let answer = self.answer(query) else { throw .permissionDenied }
    return answer
  }

  package func credential(at path: TreePath) async throws(DiscoveryError) -> ClusterCredential {
    // First of all, as what lay below a directory before that was handed to others has stayed.
    if let entry = self.group.credentials.entry(path) {
      let stored = StoredCredential(bytes: entry.credential.bytes, file: entry.fileID, directory: entry.directory)
      return .answer(.file(stored, lifetime: AnswerLifetime.positive))
    }
    return switch QueryAnswer(self.view).place(ofCredential: path) {
    case .redirect(let redirect): .answer(.redirect(redirect))
    case .above: .above
    case .here: .absent
    }
  }

  package func credentialDigest(_ path: TreePath) -> Digest32? {
    self.group.credentials.entry(path).map { Digest32(sha256: $0.credential.bytes) }
  }
}

/// The credential files of a cluster, as answers are made from them.
private struct CredentialView: ClusterView, Sendable {
  let home: TreePath
  let credentials: CredentialIndex

  init(_ group: SectorGroup) {
    self.home = group.home.path
    self.credentials = group.credentials
  }

  func processes(in directory: TreePath) -> [RouteProcess] {
    self.credentials.processes(in: directory).map { entry in
      RouteProcess(
        path: entry.path, services: entry.credential.marks.services,
        addresses: entry.credential.addresses?.addresses.addresses ?? [])
    }
  }
}
