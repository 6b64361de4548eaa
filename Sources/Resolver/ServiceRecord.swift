// SPDX-License-Identifier: Apache-2.0

/// What one SRV record says.
package struct ServiceRecord: Hashable, Sendable {
  /// The lowest comes first.
  package let priority: UInt16
  /// Among equal priorities, how often it is to come first in proportion to the others.
  package let weight: UInt16
  /// 1 to 65,535.
  package let port: UInt16
  package let target: DNSName

  package init(priority: UInt16, weight: UInt16, port: UInt16, target: DNSName) {
    self.priority = priority
    self.weight = weight
    self.port = port
    self.target = target
  }

  /// The records in the order in which their targets are to be tried; RFC 2782, "Usage rules".
  ///
  /// Work is quadratic in the number of records of one priority: bound it before.
  package static func ordered(
    _ records: [ServiceRecord], using random: inout some RandomNumberGenerator
  ) -> [ServiceRecord] {
    var ordered: [ServiceRecord] = []
    ordered.reserveCapacity(records.count)
    // Where the dice start is the same, however the records were answered.
    let sorted = records.sorted {
      ($0.priority, $0.target.description, $0.port, $0.weight) < (
        $1.priority, $1.target.description, $1.port, $1.weight
      )
    }
    var rest = sorted[...]
    while let priority = rest.first?.priority {
      let equals = rest.prefix { $0.priority == priority }.shuffled(using: &random)
      rest = rest.dropFirst(equals.count)
      // Those of weight 0 stand first, in any order: then they are chosen by a number of 0 only.
      var group = equals.filter { $0.weight == 0 } + equals.filter { $0.weight > 0 }
      while !group.isEmpty {
        var number = Int.random(in: 0...group.reduce(0) { $0 + Int($1.weight) }, using: &random)
        let index = group.firstIndex { record in
          if number <= Int(record.weight) { return true }
          number -= Int(record.weight)
          return false
        }
        // There is one, as the number is no more than the sum of all weights.
        ordered.append(group.remove(at: index ?? group.startIndex))
      }
    }
    return ordered
  }
}
