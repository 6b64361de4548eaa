// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation

/// Turns messages that wait into requests of the stream, each of up to ``MemberLimits/requestByteCount`` bytes of
/// payloads. One request is made at a time, so that an append of many MiB is not copied as a whole.
package struct MemberRequests: Sendable {
  private var messages: ArraySlice<MemberMessage>
  /// What the last message of the request before still lacks.
  private var parts: ArraySlice<ArraySlice<UInt8>> = []
  /// Messages that can not be sent: their payloads do not fit their headers, or are beyond the limits.
  package private(set) var refused: [MemberError] = []

  package init(_ messages: [MemberMessage]) { self.messages = messages[...] }

  /// Nil when all messages are sent.
  package mutating func next() -> Blocktree_V1_DeliverRequest? {
    var request = Blocktree_V1_DeliverRequest()
    var room = MemberLimits.requestByteCount
    self.movePayload(to: &request, &room)
    while self.parts.isEmpty, room > 0, request.messages.count < MemberLimits.messagesPerRequestMax,
      let message = self.messages.popFirst()
    {
      var parts: PayloadParts = []
      do throws(MemberError) {
        request.messages.append(try Blocktree_V1_RaftMessage(message, parts: &parts))
      } catch {
        self.refused.append(error)
        continue
      }
      room -= 64 + 32 * message.payloads.count
      self.parts = parts[...]
      self.movePayload(to: &request, &room)
    }
    return request.messages.isEmpty && request.payload.isEmpty ? nil : request
  }

  /// Moves as many bytes as there is room for, and those of no part that is empty.
  private mutating func movePayload(to request: inout Blocktree_V1_DeliverRequest, _ room: inout Int) {
    while let part = self.parts.first, part.isEmpty || room > 0 {
      let piece = part.prefix(max(0, room))
      piece.withUnsafeBytes { request.payload.append(contentsOf: $0) }
      room -= piece.count
      if piece.count == part.count {
        self.parts.removeFirst()
      } else {
        self.parts[self.parts.startIndex] = part.dropFirst(piece.count)
      }
    }
  }
}
