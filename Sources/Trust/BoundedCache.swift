// SPDX-License-Identifier: Apache-2.0

/// A dictionary that forgets what has not been asked for in a while, in constant time and without keeping an order.
///
/// There are two generations. When the young one is full it becomes the old one, and the old one is forgotten; what is
/// asked for in time moves to the young one, so what is in use stays.
struct BoundedCache<Key: Hashable & Sendable, Value: Sendable>: Sendable {
  private let generationCountMax: Int
  private var young: [Key: Value] = [:]
  private var old: [Key: Value] = [:]

  init(countMax: Int) {
    self.generationCountMax = max(1, countMax / 2)
  }

  var count: Int {
    self.young.count + self.old.keys.count { self.young[$0] == nil }
  }

  mutating func find(_ key: Key) -> Value? {
    if let value = self.young[key] { return value }
    guard let value = self.old.removeValue(forKey: key) else { return nil }
    self.insert(value, for: key)
    return value
  }

  mutating func insert(_ value: Value, for key: Key) {
    if self.young.count >= self.generationCountMax && self.young[key] == nil {
      self.old = self.young
      self.young = [:]
    }
    self.young[key] = value
  }
}
