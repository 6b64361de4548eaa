// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import GRPCCore
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
    /// What the last answer of a present life said, so that signatures are not verified with each answer.
    var text: String?
  }

  /// Generations that are remembered: more than one client will ever meet.
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
    let warrants = directory.isEmpty ? nil : try? Self.read(directory, root)
    self.state = Mutex(State(warrants: warrants ?? [:]))
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

  /// Judges an answer by what it says of its life. One that says nothing is of the first life of the root's cluster, the
  /// only cluster that there is.
  package func judge(_ text: String?) -> Judgement {
    self.state.withLock { state in
      guard let text else {
        return state.warrants[1].map { .stale(present: $0.incarnation) } ?? .current
      }
      if text == state.text { return .current }
      guard let warrant = try? LifeHeader.warrant(text, root: self.root) else {
        return .stale(present: state.warrants[1]?.incarnation ?? 1)
      }
      let known = state.warrants[warrant.generation]
      if let known, known.supersedes(warrant) { return .stale(present: known.incarnation) }
      guard known != nil || state.warrants.count < Self.countMax else { return .current }
      state.warrants[warrant.generation] = warrant
      state.text = text
      return known == warrant ? .current : .newer
    }
  }

  // MARK: The file

  /// Puts what is known into the profile's directory. Best effort.
  package func save() async {
    let (directory, root, known) = (self.directory, self.root, self.state.withLock { $0.warrants })
    guard !directory.isEmpty else { return }
    try? await LocalFile.onThread { try Self.merge(known, into: directory, root) }
  }

  private static func merge(
    _ known: [UInt64: RecoveryWarrant], into directory: String, _ root: RootCertificate
  ) throws(ProfileError) {
    try PrivateFiles.withLock(on: directory) { () throws(ProfileError) in
      // Another client may have heard of more.
      let former = (try? self.read(directory, root)) ?? [:]
      let all = former.merging(known) { $1.supersedes($0) ? $1 : $0 }
      guard all != former else { return }
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
      let texts = Dictionary(uniqueKeysWithValues: all.map { ("\($0)", LifeHeader.text($1)) })
      guard let data = try? encoder.encode(texts) else { return }
      try PrivateFiles.write(String(decoding: data, as: UTF8.self) + "\n", to: "\(directory)/\(self.fileName)")
      try PrivateFiles.synchronize(directory)
    }
  }

  private static func read(_ directory: String, _ root: RootCertificate) throws -> [UInt64: RecoveryWarrant] {
    let path = "\(directory)/\(self.fileName)"
    guard PrivateFiles.exists(path) else { return [:] }
    let texts = try JSONDecoder().decode([String: String].self, from: Data(try PrivateFiles.readText(path).utf8))
    var known: [UInt64: RecoveryWarrant] = [:]
    for text in texts.values.prefix(self.countMax) {
      if let warrant = try? LifeHeader.warrant(text, root: root) { known[warrant.generation] = warrant }
    }
    return known
  }
}

/// Refuses the answers of processes whose life of the cluster is over.
struct LifeCheck: ClientInterceptor {
  let lives: KnownLives

  func intercept<Input: Sendable, Output: Sendable>(
    request: StreamingClientRequest<Input>, context: ClientContext,
    next: @concurrent (StreamingClientRequest<Input>, ClientContext) async throws -> StreamingClientResponse<Output>
  ) async throws -> StreamingClientResponse<Output> {
    let response = try await next(request, context)
    // Health and reflection say nothing that could be another truth.
    guard context.descriptor.service.fullyQualifiedService.hasPrefix("blocktree.") else { return response }
    let judgement: KnownLives.Judgement
    switch response.accepted {
    case .success(let contents): judgement = self.lives.judge(LifeHeader.text(in: contents.metadata))
    case .failure(let error):
      // The connection's own errors come from nobody.
      guard StatusDetails(error).reason != nil else { return response }
      judgement = self.lives.judge(LifeHeader.text(in: error.metadata))
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
