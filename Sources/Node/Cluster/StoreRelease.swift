// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
internal import Inodes
internal import Logging
internal import Raft
internal import SectorStore
internal import Sectors
internal import Transport
internal import Trust

/// Asks the cluster whether this process may leave its store behind, which is damaged, and come back with a new one.
struct StoreRelease: Sendable {
  let generation: Generation
  /// Nil where the store can not tell.
  let member: MemberID?
  let dialer: Dialer

  enum Answer: Sendable {
    case granted
    /// Why not, for people.
    case refused(String)
  }

  /// Asks each of these until one that leads has answered.
  func ask(_ members: [SectorLeader]) async -> Answer {
    var why = "no other member is known"
    var queue = members
    var asked: Set<TreePath> = []
    while !queue.isEmpty, !Task.isCancelled {
      let next = queue.removeFirst()
      guard asked.insert(next.path).inserted else { continue }
      do {
        switch try await MemberRelease.ask(
          generation: self.generation.rawValue, member: self.member, of: next.path, at: next.addresses,
          dialer: self.dialer)
        {
        case .granted: return .granted
        case .refused(let cause): return .refused("\(next.path) says: \(Self.sentence(for: cause))")
        case .notLeader(let leader?): queue.insert(leader, at: 0)
        case .notLeader(nil): why = "\(next.path) knows nobody who leads"
        }
      } catch {
        why = "\(next.path) does not answer: \(StatusDetails(describing: error).message)"
      }
    }
    return .refused(why)
  }

  static func sentence(for cause: ReleaseError.Cause?) -> String {
    switch cause {
    case .leads?: "this process leads the cluster"
    case .underWay?: "another member is being replaced"
    case .changing?: "the membership changes"
    case .needed?: "without this member, no majority is left"
    case .lagging?: "another member is not heard, or has not all that there is"
    case nil: "no"
    }
  }
}

/// What an error says about the store: that what is on its disk is not what was written.
enum StoreDamage {
  /// What is damaged, for people; nil when the error is about something else.
  static func found(in error: any Error) -> String? {
    switch error {
    case NodeError.store(_, .damaged(let place)): "\(place)"
    // Its header is there, and says something else.
    case NodeError.store(_, .notAStore): "header"
    case NodeError.store(_, .io(.failed(let operation, Self.inputOutputError))): "\(operation): input/output error"
    case NodeError.storeDamaged(let place): place
    case SectorError.dataLoss(nil, let place): "\(place)"
    // A file that is damaged, everywhere perhaps, is no reason for a new store.
    default: nil
    }
  }

  /// What a store has met that only another store can help.
  static func found(in store: SectorStore) -> String? {
    let place = store.damageReport.places.first { place in
      switch place {
      case .record, .blockMap, .certificate, .fact, .index: true
      case .header, .log, .logEntry, .block, .session: false
      }
    }
    return place.map { "\($0)" }
  }

  /// EIO: the disk can not read what it once took.
  private static let inputOutputError: Int32 = 5
}
