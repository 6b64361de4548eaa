// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import Inodes
internal import Logging
internal import Sectors
internal import Trust

/// Where a gateway stands: the directory that its credential lies in, and the cluster that stores what is created there.
struct GatewayHome: Sendable {
  /// Nil for the root directory.
  let place: NodeHome?
  /// The cluster, by the directory that its processes lie in: the home, if that has a cluster of its own, or the
  /// one above.
  let cluster: FilesystemHome.Cluster

  var path: TreePath { self.place?.path ?? .root }
  /// The directory of the cluster above the home; nil for the root directory.
  var above: TreePath? { self.place?.above.last?.path }

  /// - Parameter generation: the one that serves the home, nil when it has no cluster of its own.
  init(_ place: NodeHome?, servedBy generation: Generation?) {
    self.place = place
    guard let place, let above = place.above.last else {
      self.cluster = .init(generation: .root, path: .root, fileID: .rootDirectory)
      return
    }
    self.cluster =
      generation.map { .init(generation: $0, path: place.path, fileID: place.directory) } ?? above
  }
}

extension GatewayHome {
  /// Asks the cluster above who serves the home. If that can not be reached, what was found out before holds.
  ///
  /// - Parameter known: the generation that the cluster was of before; nil when that is not known.
  /// - Throws: when neither is known.
  static func find(
    _ place: NodeHome?, knownBefore known: Generation?, volumes: RemoteVolumes, verifier: ChainVerifier,
    processes: ProcessNotes
  ) async throws(SectorError) -> GatewayHome {
    guard let place, let above = place.above.last else { return GatewayHome(nil, servedBy: nil) }
    let asked = ClusterAbove(home: place, volumes: volumes, verifier: verifier)
    do throws(SectorError) {
      let generation = try await asked.directory().attributes.part.servedByGeneration
      let home = GatewayHome(place, servedBy: generation)
      // Who stores the credential files in the home knows who is there, also when those can not be reached.
      if generation != nil { await processes.look(in: place.path, asking: try await asked.volume()) }
      let number = home.cluster.generation.rawValue
      await processes.change { $0.generation = number }
      return home
    } catch {
      guard let known else { throw error }
      return GatewayHome(place, servedBy: known == above.generation ? nil : known)
    }
  }
}
