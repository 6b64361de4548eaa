// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation
package import Raft
package import SectorStore
private import Synchronization

/// Puts the messages of one stream together again: what a receiver does with the requests that ``MemberRequests`` made.
package struct MemberAssembly: ~Copyable {
  /// A message whose payloads have not all arrived.
  private struct Incomplete {
    let message: AwaitedMessage
    var payload: [UInt8] = []
  }

  private let configuration: StoreConfiguration
  private let budget: AssemblyBudget
  private var incomplete: Incomplete?
  /// Messages handed over.
  package private(set) var count: UInt64 = 0

  package init(_ configuration: StoreConfiguration, budget: AssemblyBudget) {
    self.configuration = configuration
    self.budget = budget
  }

  deinit {
    if let incomplete = self.incomplete { self.budget.release(incomplete.message.payloadByteCount) }
  }

  /// Hands over, in order, what is complete with this request.
  package mutating func receive(
    _ request: Blocktree_V1_DeliverRequest, _ handOver: (Raft.Message, [LogPayload?]) -> Void
  ) throws(MemberError) {
    let found = request.messages.count
    guard found <= MemberLimits.messagesPerRequestMax else {
      throw .tooLarge("messages", limit: MemberLimits.messagesPerRequestMax, found: found)
    }
    var payload = request.payload[...]
    try self.complete(from: &payload, handOver)
    for message in request.messages {
      guard self.incomplete == nil else { throw .invalid(field: "messages") }
      let message = try AwaitedMessage(message)
      if payload.count >= message.payloadByteCount {
        let bytes = [UInt8](payload.prefix(message.payloadByteCount))
        payload = payload.dropFirst(message.payloadByteCount)
        try self.handOver(message, bytes, handOver)
      } else {
        guard self.budget.take(message.payloadByteCount) else { throw .busy }
        self.incomplete = Incomplete(message: message)
        try self.complete(from: &payload, handOver)
      }
    }
    guard payload.isEmpty else { throw .invalid(field: "payload") }
  }

  /// Adds to the message that is incomplete, if there is one.
  private mutating func complete(
    from payload: inout Data, _ handOver: (Raft.Message, [LogPayload?]) -> Void
  ) throws(MemberError) {
    guard let byteCount = self.incomplete?.message.payloadByteCount else { return }
    let missing = byteCount - (self.incomplete?.payload.count ?? 0)
    self.incomplete?.payload.append(contentsOf: payload.prefix(missing))
    payload = payload.dropFirst(missing)
    guard let incomplete = self.incomplete, incomplete.payload.count == byteCount else { return }
    self.incomplete = nil
    self.budget.release(byteCount)
    try self.handOver(incomplete.message, incomplete.payload, handOver)
  }

  private mutating func handOver(
    _ message: AwaitedMessage, _ payload: [UInt8], _ handOver: (Raft.Message, [LogPayload?]) -> Void
  ) throws(MemberError) {
    handOver(message.message, try message.payloads(from: payload[...], self.configuration))
    self.count += 1
  }
}

/// What the incomplete appends of all streams may take together.
package final class AssemblyBudget: Sendable {
  private let free: Mutex<Int>

  package init(_ byteCount: Int = MemberLimits.assemblyByteCountMax) { self.free = Mutex(byteCount) }

  package var freeByteCount: Int { self.free.withLock { $0 } }

  func take(_ byteCount: Int) -> Bool {
    self.free.withLock { free in
      guard byteCount <= free else { return false }
      free -= byteCount
      return true
    }
  }

  func release(_ byteCount: Int) { self.free.withLock { $0 += byteCount } }
}
