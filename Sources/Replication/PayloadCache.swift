// SPDX-License-Identifier: Apache-2.0

internal import Raft
internal import SectorStore

/// Payloads of the newest entries, by index and term: those on their way to the disk, all that is not applied yet, and
/// as many older ones as fit, for followers that are a little behind.
struct PayloadCache {
  private struct Item {
    var term: UInt64
    var payload: LogPayload
    var byteCount: Int
  }

  private var items: [UInt64: Item] = [:]
  /// The lowest index that may have an item.
  private var first: UInt64
  private var applied: UInt64
  private(set) var byteCount = 0
  /// Those that came with the message that is just being taken in.
  private var aside: [UInt64: Item] = [:]

  /// What is applied is kept only up to this much.
  private static let byteCountMax = 16 << 20

  init(applied: UInt64) {
    self.applied = applied
    self.first = applied + 1
  }

  mutating func insert(_ payload: LogPayload, index: UInt64, term: UInt64) {
    var byteCount = 64
    if case .change(let change) = payload { byteCount += change.byteCount }
    self.insert(Item(term: term, payload: payload, byteCount: byteCount), index: index)
  }

  private mutating func insert(_ item: Item, index: UInt64) {
    if let old = self.items.updateValue(item, forKey: index) { self.byteCount -= old.byteCount }
    self.byteCount += item.byteCount
    self.first = min(self.first, index)
  }

  /// Nil where it is not here.
  mutating func payload(index: UInt64, term: UInt64) -> LogPayload? {
    if let item = self.aside[index], item.term == term {
      self.insert(item, index: index)
      return item.payload
    }
    guard let item = self.items[index], item.term == term else { return nil }
    return item.payload
  }

  /// One for each entry of an append; nil where one is missing.
  func payloads(of message: Message) -> [LogPayload?]? {
    guard case .append(let after, let entries, _) = message.body else { return nil }
    let payloads = self.payloads(after: after.index.rawValue, entries[...])
    return payloads.count == entries.count ? payloads : nil
  }

  /// One for each of the entries after an index, up to the first that is missing.
  func payloads(after index: UInt64, _ entries: ArraySlice<EntryHeader>) -> [LogPayload?] {
    var payloads: [LogPayload?] = []
    payloads.reserveCapacity(entries.count)
    var index = index
    for header in entries {
      index += 1
      switch header.kind {
      case .noop: payloads.append(.noop)
      case .membership: payloads.append(nil)
      case .command:
        guard let item = self.items[index], item.term == header.term.rawValue else { return payloads }
        payloads.append(item.payload)
      }
    }
    return payloads
  }

  mutating func setAside(_ payloads: [LogPayload?], after index: UInt64, _ entries: [EntryHeader]) {
    for (offset, (payload, header)) in zip(payloads, entries).enumerated() {
      guard let payload, case .change(let change) = payload else { continue }
      self.aside[index + 1 + UInt64(offset)] = Item(
        term: header.term.rawValue, payload: payload, byteCount: 64 + change.byteCount)
    }
  }

  mutating func forgetAside() {
    if !self.aside.isEmpty { self.aside.removeAll(keepingCapacity: true) }
  }

  /// Entries from here on have given way to those of this write.
  mutating func truncate(from index: UInt64, keeping write: Write) {
    let last = write.firstIndex.rawValue + UInt64(write.entries.count)
    for other in self.items.keys where other >= index {
      let offset = Int(clamping: Int64(clamping: other) - Int64(clamping: write.firstIndex.rawValue))
      // A new leader's own entries are here before the write that takes the old ones away.
      let isKept =
        other >= write.firstIndex.rawValue && other < last
        && self.items[other]?.term == write.entries[offset].term.rawValue
      if isKept { continue }
      if let old = self.items.removeValue(forKey: other) { self.byteCount -= old.byteCount }
    }
  }

  mutating func applied(through index: UInt64) {
    self.applied = index
    while self.byteCount > Self.byteCountMax, self.first <= self.applied {
      if let old = self.items.removeValue(forKey: self.first) { self.byteCount -= old.byteCount }
      self.first += 1
    }
    if self.items.isEmpty { self.first = self.applied + 1 }
  }
}
