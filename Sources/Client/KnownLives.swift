// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
package import GRPCCore
internal import GRPCProtobuf
private import Synchronization
internal import Transport
package import Trust

/// The latest life of each sector cluster that a client has heard of. Answers of an earlier one come from members that a
/// recovery has left behind and that do not know it yet: they are refused, so that nobody who has seen the recovered
/// cluster ever sees another truth.
///
/// A life is believed by the warrant that the root principal signed. A profile keeps warrants in its directory, in
/// `lives.json`, where that can be written. Otherwise they hold for as long as the client lives.
package final class KnownLives: Sendable {
  private struct State {
    /// By generation. Those of which nothing is known are in their first life.
    var warrants: [UInt64: RecoveryWarrant]
    /// Which generation the processes of a directory serve, where one of them has shown a warrant. The root's is 1.
    var generations: [TreePath: UInt64]
    /// What the last answer of a present life said, so that signatures are not verified with each answer; by directory.
    var texts: [TreePath: String] = [:]
  }

  /// Directories that are remembered: more than one client will ever meet.
  private static let countMax = 1_024
  private static let fileName = "lives.json"

  /// Empty for a profile that lies nowhere.
  private let directory: String
  private let root: RootCertificate
  private let state: Mutex<State>

  /// - Parameter directory: of the profile; empty for one that lies nowhere.
  package init(of directory: String, root: RootCertificate) {
    self.directory = directory
    self.root = root
    // What can not be read is as good as what was never written: it only helps.
    let known = directory.isEmpty ? nil : try? Self.read(directory, root)
    var state = State(warrants: [:], generations: [.root: 1])
    for (place, warrant) in known ?? [:] {
      state.warrants[warrant.generation] = warrant
      state.generations[place] = warrant.generation
    }
    self.state = Mutex(state)
  }

  /// The latest that was heard of; 1 where nothing was.
  package func incarnation(of generation: UInt64) -> UInt64 {
    self.state.withLock { $0.warrants[generation]?.incarnation ?? 1 }
  }

  package enum Judgement: Hashable, Sendable {
    case current
    /// The first news of a recovery.
    case newer
    /// Of a life that is over, or of none that there is. The present one is this.
    case stale(present: UInt64)
  }

  /// Judges an answer by what it says of its life. One that says nothing is of the first life.
  ///
  /// - Parameter directory: the one that the process's credential lies in. All that answer there serve one generation,
  ///   whose number never changes: a process that says nothing is judged by what others there have said.
  package func judge(_ text: String?, from directory: TreePath = .root) -> Judgement {
    self.state.withLock { state in
      let generation = state.generations[directory]
      let known = generation.flatMap { state.warrants[$0] }
      guard let text else { return known.map { .stale(present: $0.incarnation) } ?? .current }
      if text == state.texts[directory] { return .current }
      guard let warrant = try? LifeHeader.warrant(text, root: self.root) else {
        return .stale(present: known?.incarnation ?? 1)
      }
      // The root's cluster is the first for good.
      if directory.isRoot, warrant.generation != 1 { return .stale(present: known?.incarnation ?? 1) }
      // Another directory's warrant is none. A directory that was removed and made again has a later generation, though:
      // numbers are never handed out twice.
      if let known, warrant.generation < known.generation { return .stale(present: known.incarnation) }
      let present = state.warrants[warrant.generation]
      if let present, present.supersedes(warrant) { return .stale(present: present.incarnation) }
      guard generation != nil || state.generations.count < Self.countMax else { return .current }
      state.generations[directory] = warrant.generation
      state.warrants[warrant.generation] = warrant
      state.texts[directory] = text
      return present == warrant ? .current : .newer
    }
  }

  // MARK: The file

  /// Puts what is known into the profile's directory. Best effort.
  package func save() async {
    let (directory, root) = (self.directory, self.root)
    guard !directory.isEmpty else { return }
    let known = self.state.withLock { state in
      state.generations.compactMapValues { state.warrants[$0] }
    }
    try? await LocalFile.onThread { try Self.merge(known, into: directory, root) }
  }

  private static func merge(
    _ known: [TreePath: RecoveryWarrant], into directory: String, _ root: RootCertificate
  ) throws(ProfileError) {
    try PrivateFiles.withLock(on: directory) { () throws(ProfileError) in
      // Another client may have heard of more.
      let former = (try? self.read(directory, root)) ?? [:]
      let all = former.merging(known) { ($1.generation, $1.supersedes($0) ? 1 : 0) > ($0.generation, 0) ? $1 : $0 }
      guard all != former else { return }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
      let texts = Dictionary(uniqueKeysWithValues: all.map { ("\($0)", LifeHeader.text($1)) })
      guard let data = try? encoder.encode(texts) else { return }
      try PrivateFiles.write(String(decoding: data, as: UTF8.self) + "\n", to: "\(directory)/\(self.fileName)")
      try PrivateFiles.synchronize(directory)
    }
  }

  /// By the directories whose processes have shown the warrants.
  private static func read(_ directory: String, _ root: RootCertificate) throws -> [TreePath: RecoveryWarrant] {
    let path = "\(directory)/\(self.fileName)"
    guard PrivateFiles.exists(path) else { return [:] }
    let texts = try JSONDecoder().decode([String: String].self, from: Data(try PrivateFiles.readText(path).utf8))
    var known: [TreePath: RecoveryWarrant] = [:]
    for (key, text) in texts.sorted(by: { $0.key < $1.key }).prefix(self.countMax) {
      // Former versions wrote the generation's number, which was always the root's.
      guard let place = try? key == "1" ? TreePath.root : TreePath(parsing: key),
        let warrant = try? LifeHeader.warrant(text, root: root)
      else { continue }
      known[place] = warrant
    }
    return known
  }
}

/// Refuses the answers of processes whose life of the cluster is over.
package struct LifeCheck: ClientInterceptor {
  private let lives: KnownLives
  private let directory: TreePath

  /// - Parameter directory: the one that the process's credential lies in.
  package init(lives: KnownLives, directory: TreePath) {
    self.lives = lives
    self.directory = directory
  }

  package func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingClientRequest<Input>, context: ClientContext,
    next: @concurrent (StreamingClientRequest<Input>, ClientContext) async throws -> StreamingClientResponse<Output>
  ) async throws -> StreamingClientResponse<Output> {
    let response = try await next(request, context)
    // Health and reflection say nothing that could be another truth.
    guard context.descriptor.service.fullyQualifiedService.hasPrefix("blocktree.") else { return response }
    let judgement: KnownLives.Judgement
    switch response.accepted {
    case .success(let contents):
      judgement = self.lives.judge(LifeHeader.text(in: contents.metadata), from: self.directory)
    case .failure(let error):
      // The connection's own errors come from nobody.
      guard StatusDetails(error).reason != nil else { return response }
      judgement = self.lives.judge(LifeHeader.text(in: error.metadata), from: self.directory)
    }
    switch judgement {
    case .current: return response
    case .newer:
      await self.lives.save()
      return response
    case .stale(let present):
      return StreamingClientResponse(
        error: RPCError(
          GoogleRPCStatus(
            .unavailable, "The process belongs to a life of the cluster that a recovery has ended.",
            reason: BlocktreeError.Reason.staleIncarnation.rawValue, ["incarnation": "\(present)"])))
    }
  }
}

extension BlocktreeError.Reason {
  /// The process belongs to a life of its cluster that a recovery has ended, and does not know it yet. Nothing that it
  /// says counts. Metadata: `incarnation`, the present one. Clients ask others by themselves; this is thrown when there
  /// is nobody else.
  public static let staleIncarnation = BlocktreeError.Reason(rawValue: "STALE_INCARNATION")
}
