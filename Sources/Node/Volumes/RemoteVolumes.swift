// SPDX-License-Identifier: Apache-2.0

package import Filesystem
package import Inodes
package import Sectors
private import Synchronization
package import Transport
package import Trust

/// The volumes of other clusters, one for each generation that this process has to do with. What was not used for
/// longest gives way to new ones.
///
/// Calls work while the ``ConnectionPool`` and ``run()`` run.
package final class RemoteVolumes: VolumeSource {
  /// A process of another cluster, and where it is.
  package struct Process: Hashable, Sendable {
    /// Has to answer there.
    package let path: TreePath
    /// Tried in turn.
    package let addresses: [NetworkAddress]
    /// What its marks say that it hosts; nil where that is not known.
    package let services: [Service]?

    package init(path: TreePath, addresses: [NetworkAddress], services: [Service]? = nil) {
      self.path = path
      self.addresses = addresses
      self.services = services
    }

    func mayHost(_ service: Service) -> Bool { self.services?.contains(service) ?? true }
  }

  /// How long calls take at most.
  package struct Timing: Hashable, Sendable {
    /// For everything that changes nothing, repetitions included.
    package var readTimeout = Duration.seconds(5)
    /// For a commit, repetitions included.
    package var changeTimeout = Duration.seconds(10)
    /// How often it is looked whether anything is answered while calls wait.
    package var watchInterval = Duration.milliseconds(500)
    /// How long a process that answers nothing may take to say that it lives.
    package var probePatience = Duration.seconds(2)

    package init() {}
  }

  /// Who hosts the sector service in a directory, as far as that is known; has to end soon when it is cancelled.
  package typealias Processes = @Sendable (TreePath) async -> [Process]

  /// Volumes that are kept.
  package static let countMax = 256

  private struct Entry {
    let volume: RemoteVolume
    var lastUse: UInt64
  }

  private struct State {
    var volumes: [Generation: Entry] = [:]
    /// Bounded as the volumes are.
    var silences: [Generation: ClusterSilence] = [:]
    var useCount: UInt64 = 0
  }

  private let pool: ConnectionPool
  private let signers: SignerCache
  /// Those that need not be verified again in this process.
  let signatures: SignatureCache
  private let timing: Timing
  private let processes: Processes
  private let state = Mutex(State())
  /// Bounded by the number of connections: a stream is opened when the former one on its connection is over.
  private let starts: AsyncStream<SectorStream>
  private let start: AsyncStream<SectorStream>.Continuation

  /// - Parameters:
  ///   - pool: run by the caller. Its dialer should refuse answers of lives of a cluster that are over.
  ///   - signatures: those that need not be verified again in this process.
  ///   - processes: asked when a volume is made, and when nobody of those who were named before can be reached.
  package init(
    pool: ConnectionPool, verifier: ChainVerifier, signatures: SignatureCache, timing: Timing = Timing(),
    processes: @escaping Processes
  ) {
    self.pool = pool
    self.signers = SignerCache(verifier: verifier)
    self.signatures = signatures
    self.timing = timing
    self.processes = processes
    (self.starts, self.start) = AsyncStream.makeStream(of: SectorStream.self)
  }

  package func volume(
    _ generation: Generation, serving directory: TreePath, _ id: Inodes.FileID
  ) async throws(SectorError) -> any Volume {
    if let volume = self.known(generation, directory) { return volume }
    let start = self.start
    let cluster = RemoteCluster(
      generation, serving: directory, pool: self.pool, timing: self.timing, silence: self.silence(generation),
      processes: self.processes,
      start: { start.yield($0) })
    let volume = try await RemoteVolume(cluster, signers: self.signers, signatures: self.signatures)
    return self.keep(volume)
  }

  private func silence(_ generation: Generation) -> ClusterSilence {
    self.state.withLock { state in
      if let silence = state.silences[generation] { return silence }
      if state.silences.count >= Self.countMax { state.silences.removeAll() }
      let silence = ClusterSilence()
      state.silences[generation] = silence
      return silence
    }
  }

  private func known(_ generation: Generation, _ directory: TreePath) -> RemoteVolume? {
    self.state.withLock { state in
      guard let entry = state.volumes[generation], entry.volume.directory == directory else { return nil }
      state.useCount += 1
      state.volumes[generation]?.lastUse = state.useCount
      return entry.volume
    }
  }

  /// Keeps a volume, unless somebody else was faster: answers the one that is kept.
  private func keep(_ volume: RemoteVolume) -> RemoteVolume {
    self.state.withLock { state in
      if let entry = state.volumes[volume.generation], entry.volume.directory == volume.directory {
        return entry.volume
      }
      if state.volumes[volume.generation] == nil, state.volumes.count >= Self.countMax {
        let oldest = state.volumes.min { $0.value.lastUse < $1.value.lastUse }
        if let oldest { state.volumes[oldest.key] = nil }
      }
      state.useCount += 1
      state.volumes[volume.generation] = Entry(volume: volume, lastUse: state.useCount)
      return volume
    }
  }

  // MARK: Copies of records

  /// Takes note of a certificate chain, if it leads to the domain's root.
  func note(signer chain: CertificateChain) { _ = self.signers.add(chain, digest: chain.digest) }

  /// The chains of all who have signed records or accepted them; nil unless all are known.
  func signers(of records: [InodeRecord]) -> [CertificateChain]? {
    var chains: [Digest32: CertificateChain] = [:]
    for record in records {
      guard let acceptance = record.acceptance else { return nil }
      for digest in [acceptance.signer, record.content.signer, record.attributes.signer, record.links.signer]
      where chains[digest] == nil {
        guard let signer = self.signers.signer(digest) else { return nil }
        chains[digest] = signer.chain
      }
    }
    return chains.sorted { $0.key.bytes.lexicographicallyPrecedes($1.key.bytes) }.map(\.value)
  }

  /// Whether a record was accepted by a process of a directory, as far as that can be told without asking anybody.
  func isVerified(_ record: InodeRecord, servedBy directory: TreePath) -> Bool {
    self.signers.isVerified(record, servedBy: directory, cache: self.signatures)
  }

  /// Looks after the volumes until it is cancelled: serves their streams, and finds out when a process that calls wait for
  /// has fallen silent. Call it once.
  package func run() async {
    await withDiscardingTaskGroup { tasks in
      tasks.addTask { await self.watchForSilence() }
      for await stream in self.starts {
        tasks.addTask { await stream.run() }
      }
      tasks.cancelAll()
    }
  }

  private func watchForSilence() async {
    await withDiscardingTaskGroup { tasks in
      while (try? await Task.sleep(for: self.timing.watchInterval)) != nil {
        let clusters = self.state.withLock { $0.volumes.values.map(\.volume.cluster) }
        for cluster in clusters where cluster.noteSilence() {
          tasks.addTask { await cluster.probe() }
        }
      }
      tasks.cancelAll()
    }
  }
}
