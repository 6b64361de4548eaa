// SPDX-License-Identifier: Apache-2.0

package import BlocktreeSchema
internal import Foundation

/// Turns items into requests of the stream, each of up to ``SnapshotLimits/requestByteCount`` bytes.
package struct SnapshotRequests: Sendable {
  private var items: ArraySlice<[UInt8]>
  /// What the last item of the request before still lacks.
  private var rest: ArraySlice<UInt8> = []

  /// - Parameter items: encoded, none empty.
  package init(_ items: [[UInt8]]) { self.items = items[...] }

  /// Whether ``next()`` will give nothing.
  package var isAtEnd: Bool { self.items.isEmpty && self.rest.isEmpty }

  /// Nil when all items are sent.
  package mutating func next() -> Blocktree_V1_InstallRequest? {
    if self.isAtEnd { return nil }
    var request = Blocktree_V1_InstallRequest()
    var room = SnapshotLimits.requestByteCount
    self.moveBytes(to: &request, &room)
    while self.rest.isEmpty, room > 0, request.itemByteCounts.count < SnapshotLimits.itemsPerRequestMax,
      let item = self.items.popFirst()
    {
      request.itemByteCounts.append(UInt32(clamping: item.count))
      self.rest = item[...]
      self.moveBytes(to: &request, &room)
    }
    return request
  }

  private mutating func moveBytes(to request: inout Blocktree_V1_InstallRequest, _ room: inout Int) {
    let piece = self.rest.prefix(room)
    piece.withUnsafeBytes { request.items.append(contentsOf: $0) }
    room -= piece.count
    self.rest = self.rest.dropFirst(piece.count)
  }
}

/// Puts the items of one stream together again: what a receiver does with what ``SnapshotRequests`` made.
package struct SnapshotAssembly: Sendable {
  /// The item that has not arrived wholly, and what it lacks.
  private var incomplete: [UInt8] = []
  private var missing = 0

  package init() {}

  /// Whether all that began has arrived.
  package var isWhole: Bool { self.missing == 0 }

  /// The encoded items that are complete with this request, in order.
  package mutating func receive(_ request: Blocktree_V1_InstallRequest) throws(MemberError) -> [[UInt8]] {
    let found = request.itemByteCounts.count
    guard found <= SnapshotLimits.itemsPerRequestMax else {
      throw .tooLarge("item_byte_counts", limit: SnapshotLimits.itemsPerRequestMax, found: found)
    }
    guard request.items.count <= SnapshotLimits.requestByteCountMax else {
      throw .tooLarge("items", limit: SnapshotLimits.requestByteCountMax, found: request.items.count)
    }
    var bytes = request.items[...]
    var items: [[UInt8]] = []
    if self.missing > 0 { self.complete(from: &bytes, &items) }
    for byteCount in request.itemByteCounts {
      guard self.missing == 0, byteCount > 0 else { throw .invalid(field: "item_byte_counts") }
      guard byteCount <= SnapshotLimits.itemByteCountMax else {
        throw .tooLarge("item_byte_counts", limit: SnapshotLimits.itemByteCountMax, found: Int(byteCount))
      }
      self.missing = Int(byteCount)
      self.complete(from: &bytes, &items)
    }
    guard bytes.isEmpty else { throw .invalid(field: "items") }
    return items
  }

  private mutating func complete(from bytes: inout Data, _ items: inout [[UInt8]]) {
    let piece = bytes.prefix(self.missing)
    bytes = bytes.dropFirst(piece.count)
    self.missing -= piece.count
    self.incomplete.append(contentsOf: piece)
    if self.missing == 0 {
      items.append(self.incomplete)
      self.incomplete = []
    }
  }
}
