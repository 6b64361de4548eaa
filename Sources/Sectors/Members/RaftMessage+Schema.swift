// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import Raft
package import SectorStore
internal import SwiftProtobuf
internal import Trust

/// A message of consensus and the payloads of its entries: one for each entry of an append, otherwise none.
package struct MemberMessage: Sendable {
  package var message: Raft.Message
  package var payloads: [LogPayload?]

  package init(message: Raft.Message, payloads: [LogPayload?] = []) {
    self.message = message
    self.payloads = payloads
  }

  /// About how many bytes it takes.
  var byteCount: Int {
    guard case .append(_, let entries, _) = self.message.body else { return 64 }
    return entries.reduce(64) { $0 + 32 + $1.byteCount }
  }
}

/// The bytes of payloads, in the order in which they go over a stream, without copying them.
package typealias PayloadParts = [ArraySlice<UInt8>]

// MARK: - Domain to schema

extension Blocktree_V1_RaftMessage {
  /// Throws where entries and payloads do not fit one another, or exceed what receivers take.
  ///
  /// - Parameter parts: What belongs into the stream's payload is appended to it.
  package init(_ message: MemberMessage, parts: inout PayloadParts) throws(MemberError) {
    self.init()
    self.incarnation = message.message.incarnation.rawValue
    self.term = message.message.term.rawValue
    self.body = try OneOf_Body(message.message.body, message.payloads, parts: &parts)
  }
}

extension Blocktree_V1_RaftMessage.OneOf_Body {
  fileprivate init(
    _ body: Raft.Message.Body, _ payloads: [LogPayload?], parts: inout PayloadParts
  ) throws(MemberError) {
    if case .append = body {} else if !payloads.isEmpty { throw .invalid(field: "payloads") }
    switch body {
    case .preVoteRequest(let last): self = .preVoteRequest(.with { $0.last = .init(last) })
    case .preVoteReply(let term, let granted):
      self = .preVoteReply(
        .with {
          $0.term = term.rawValue
          $0.granted = granted
        })
    case .voteRequest(let last, let isTransfer):
      self = .voteRequest(
        .with {
          $0.last = .init(last)
          $0.isTransfer = isTransfer
        })
    case .voteReply(let granted): self = .voteReply(.with { $0.granted = granted })
    case .heartbeat(let round, let commit):
      self = .heartbeat(
        .with {
          $0.round = round.rawValue
          $0.commit = commit.rawValue
        })
    case .heartbeatReply(let round, let isWritable):
      self = .heartbeatReply(
        .with {
          $0.round = round.rawValue
          $0.isWritable = isWritable
        })
    case .append(let after, let entries, let commit):
      let messages = try Blocktree_V1_RaftEntry.messages(entries, payloads, parts: &parts)
      self = .append(
        .with {
          $0.after = .init(after)
          $0.entries = messages
          $0.commit = commit.rawValue
        })
    case .appendReply(let result): self = .appendReply(.with { $0.result = .init(result) })
    case .timeoutNow: self = .timeoutNow(.init())
    case .readRequest(let nonce): self = .readRequest(.with { $0.nonce = nonce.rawValue })
    case .readReply(let nonce, let index):
      self = .readReply(
        .with {
          $0.nonce = nonce.rawValue
          if let index { $0.index = index.rawValue }
        })
    case .termNotice: self = .termNotice(.init())
    }
  }
}

extension Blocktree_V1_RaftLogPosition {
  fileprivate init(_ position: LogPosition) {
    self.init()
    self.index = position.index.rawValue
    self.term = position.term.rawValue
  }
}

extension Blocktree_V1_RaftAppendReply.OneOf_Result {
  fileprivate init(_ result: Raft.Message.AppendResult) {
    switch result {
    case .matched(let index): self = .matched(index.rawValue)
    case .mismatched(let after, let hint):
      self = .mismatched(
        .with {
          $0.after = after.rawValue
          $0.hint = .init(hint)
        })
    case .unwritable: self = .unwritable(.init())
    }
  }
}

extension Blocktree_V1_RaftEntry {
  fileprivate static func messages(
    _ entries: [EntryHeader], _ payloads: [LogPayload?], parts: inout PayloadParts
  ) throws(MemberError) -> [Self] {
    guard entries.count <= MemberLimits.entriesPerAppendMax else {
      throw .tooLarge("entries", limit: MemberLimits.entriesPerAppendMax, found: entries.count)
    }
    guard payloads.count == entries.count else { throw .invalid(field: "payloads") }
    var messages: [Self] = []
    messages.reserveCapacity(entries.count)
    var room = MemberLimits.appendByteCountMax
    for (entry, payload) in zip(entries, payloads) {
      messages.append(try Self(entry, payload, room: &room, parts: &parts))
    }
    return messages
  }

  private init(
    _ entry: EntryHeader, _ payload: LogPayload?, room: inout Int, parts: inout PayloadParts
  ) throws(MemberError) {
    self.init()
    self.term = entry.term.rawValue
    switch (entry.kind, payload) {
    case (.command, .change(let change)):
      guard let byteCount = UInt64(exactly: entry.byteCount) else { throw .invalid(field: "byte_count") }
      let encoded = change.encoded()
      let blockByteCount = change.blocks.reduce(0) { $0 + $1.bytes.count }
      try Self.take(encoded.count + blockByteCount, from: &room)
      parts.append(encoded[...])
      for block in change.blocks { parts.append(block.bytes) }
      self.command = .with {
        $0.byteCount = byteCount
        $0.changeByteCount = UInt32(encoded.count)
        $0.blockByteCount = UInt32(blockByteCount)
      }
    case (.noop, nil), (.noop, .noop): self.noop = .init()
    // The header says it all. What is not sent twice can not contradict itself.
    case (.membership(let membership), nil), (.membership(let membership), .membership):
      self.membership = .init(membership)
    case (.command, _), (.noop, _), (.membership, _): throw .invalid(field: "payloads")
    }
  }

  private static func take(_ byteCount: Int, from room: inout Int) throws(MemberError) {
    guard byteCount <= room else {
      let limit = MemberLimits.appendByteCountMax
      throw .tooLarge("payloads", limit: limit, found: limit - room + byteCount)
    }
    room -= byteCount
  }
}

extension Blocktree_V1_RaftMembership {
  fileprivate init(_ membership: Membership) {
    self.init()
    self.voters = membership.voters.map(\.rawValue)
    self.outgoing = membership.outgoing.map(\.rawValue)
    self.learners = membership.learners.map(\.rawValue)
  }
}

extension Blocktree_V1_MemberIdentity {
  init(_ identity: MemberIdentity) {
    self.init()
    self.generation = identity.generation
    self.member = identity.member?.rawValue ?? 0
    self.incarnation = identity.incarnation.rawValue
    self.warrant = Data(identity.warrant)
    self.lastLogIndex = identity.lastLogIndex.rawValue
  }
}

// MARK: - Schema to domain

/// A message whose payloads are still to come.
package struct AwaitedMessage: Sendable {
  /// What an entry has in the stream's payload.
  private enum Shape: Sendable {
    case change(byteCount: Int, blockByteCount: Int)
    case noop
    case membership
  }

  package let message: Raft.Message
  /// All that is awaited; at most ``MemberLimits/appendByteCountMax``.
  package let payloadByteCount: Int
  private let shapes: [Shape]

  package init(_ message: Blocktree_V1_RaftMessage) throws(MemberError) {
    var shapes: [Shape] = []
    var byteCount = 0
    guard let body = message.body else { throw .invalid(field: "body") }
    self.message = Raft.Message(
      incarnation: GroupIncarnation(message.incarnation), term: Term(message.term),
      body: try Self.body(body) { (entries) throws(MemberError) in
        try Self.headers(entries, &shapes, &byteCount)
      })
    self.shapes = shapes
    self.payloadByteCount = byteCount
  }

  /// The payloads, of exactly the bytes that were awaited.
  package func payloads(
    from bytes: ArraySlice<UInt8>, _ configuration: StoreConfiguration
  ) throws(MemberError) -> [LogPayload?] {
    assert(bytes.count == self.payloadByteCount)
    var rest = bytes
    var payloads: [LogPayload?] = []
    payloads.reserveCapacity(self.shapes.count)
    for shape in self.shapes {
      switch shape {
      case .change(let byteCount, let blockByteCount):
        let encoded = Array(rest.prefix(byteCount))
        let blocks = rest.dropFirst(byteCount).prefix(blockByteCount)
        rest = rest.dropFirst(byteCount + blockByteCount)
        guard let change = Change(encoded: encoded, blocks: blocks, configuration: configuration) else {
          throw .invalid(field: "payload")
        }
        payloads.append(.change(change))
      case .noop: payloads.append(.noop)
      case .membership: payloads.append(nil)
      }
    }
    return payloads
  }

  private static func body(
    _ body: Blocktree_V1_RaftMessage.OneOf_Body,
    headers: ([Blocktree_V1_RaftEntry]) throws(MemberError) -> [EntryHeader]
  ) throws(MemberError) -> Raft.Message.Body {
    switch body {
    case .preVoteRequest(let request):
      return .preVoteRequest(last: try Self.position(request.hasLast, request.last, "last"))
    case .preVoteReply(let reply): return .preVoteReply(for: Term(reply.term), granted: reply.granted)
    case .voteRequest(let request):
      return .voteRequest(
        last: try Self.position(request.hasLast, request.last, "last"), isTransfer: request.isTransfer)
    case .voteReply(let reply): return .voteReply(granted: reply.granted)
    case .heartbeat(let heartbeat):
      return .heartbeat(round: HeartbeatRound(heartbeat.round), commit: Raft.LogIndex(heartbeat.commit))
    case .heartbeatReply(let reply):
      return .heartbeatReply(round: HeartbeatRound(reply.round), isWritable: reply.isWritable)
    case .append(let append):
      return .append(
        after: try Self.position(append.hasAfter, append.after, "after"), entries: try headers(append.entries),
        commit: Raft.LogIndex(append.commit))
    case .appendReply(let reply):
      switch reply.result {
      case .matched(let index): return .appendReply(.matched(Raft.LogIndex(index)))
      case .mismatched(let mismatch):
        return .appendReply(
          .mismatched(
            after: Raft.LogIndex(mismatch.after), hint: try Self.position(mismatch.hasHint, mismatch.hint, "hint")))
      case .unwritable: return .appendReply(.unwritable)
      case nil: throw .invalid(field: "result")
      }
    case .timeoutNow: return .timeoutNow
    case .readRequest(let request): return .readRequest(ReadNonce(request.nonce))
    case .readReply(let reply):
      return .readReply(ReadNonce(reply.nonce), index: reply.hasIndex ? Raft.LogIndex(reply.index) : nil)
    case .termNotice: return .termNotice
    }
  }

  private static func position(
    _ isThere: Bool, _ position: Blocktree_V1_RaftLogPosition, _ field: String
  ) throws(MemberError) -> LogPosition {
    guard isThere else { throw .invalid(field: field) }
    return LogPosition(index: Raft.LogIndex(position.index), term: Term(position.term))
  }

  private static func headers(
    _ entries: [Blocktree_V1_RaftEntry], _ shapes: inout [Shape], _ byteCount: inout Int
  ) throws(MemberError) -> [EntryHeader] {
    guard entries.count <= MemberLimits.entriesPerAppendMax else {
      throw .tooLarge("entries", limit: MemberLimits.entriesPerAppendMax, found: entries.count)
    }
    var headers: [EntryHeader] = []
    headers.reserveCapacity(entries.count)
    shapes.reserveCapacity(entries.count)
    for entry in entries {
      let (header, shape) = try Self.entry(entry)
      if case .change(let changeByteCount, let blockByteCount) = shape { byteCount += changeByteCount + blockByteCount }
      guard byteCount <= MemberLimits.appendByteCountMax else {
        throw .tooLarge("payloads", limit: MemberLimits.appendByteCountMax, found: byteCount)
      }
      headers.append(header)
      shapes.append(shape)
    }
    return headers
  }

  private static func entry(_ entry: Blocktree_V1_RaftEntry) throws(MemberError) -> (EntryHeader, Shape) {
    let term = Term(entry.term)
    switch entry.kind {
    case .command(let command):
      guard command.byteCount <= UInt64(Raft.Limits.entryByteCountMax) else { throw .invalid(field: "byte_count") }
      guard command.changeByteCount > 0 else { throw .invalid(field: "change_byte_count") }
      return (
        EntryHeader(term: term, kind: .command, byteCount: Int(command.byteCount)),
        .change(byteCount: Int(command.changeByteCount), blockByteCount: Int(command.blockByteCount))
      )
    case .noop: return (EntryHeader(term: term, kind: .noop), .noop)
    case .membership(let message):
      let membership = Membership(
        voters: try Self.members(message.voters), outgoing: try Self.members(message.outgoing),
        learners: try Self.members(message.learners))
      guard let membership else { throw .invalid(field: "membership") }
      return (EntryHeader(term: term, kind: .membership(membership)), .membership)
    case nil: throw .invalid(field: "kind")
    }
  }

  private static func members(_ members: [UInt64]) throws(MemberError) -> [MemberID] {
    guard members.count <= Membership.countMax else {
      throw .tooLarge("membership", limit: Membership.countMax, found: members.count)
    }
    guard !members.contains(0) else { throw .invalid(field: "membership") }
    return members.map { MemberID($0) }
  }
}

extension MemberIdentity {
  init(_ message: Blocktree_V1_MemberIdentity) throws(MemberError) {
    guard message.generation != 0 else { throw .invalid(field: "generation") }
    self.init(
      generation: message.generation, member: message.member == 0 ? nil : MemberID(message.member),
      incarnation: GroupIncarnation(message.incarnation), warrant: try Self.warrant(message.warrant),
      lastLogIndex: Raft.LogIndex(message.lastLogIndex))
  }

  /// The bytes of a warrant that nobody has verified.
  static func warrant(_ bytes: Data) throws(MemberError) -> [UInt8] {
    guard bytes.count <= RecoveryWarrant.byteCountMax else {
      throw .tooLarge("warrant", limit: RecoveryWarrant.byteCountMax, found: bytes.count)
    }
    return Array(bytes)
  }
}
