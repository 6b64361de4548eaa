// SPDX-License-Identifier: Apache-2.0

package import Raft

extension Membership {
  /// How a membership stands in the log and in the state: version (1), then the numbers of voters, outgoing voters and
  /// learners (one byte each), then their ids (8 bytes each, big-endian).
  package var bytes: [UInt8] {
    var bytes: [UInt8] = [Self.version]
    let lists = [self.voters, self.outgoing, self.learners]
    // Memberships are bounded far below 256.
    for list in lists { bytes.append(UInt8(truncatingIfNeeded: list.count)) }
    for member in lists.joined() { withUnsafeBytes(of: member.rawValue.bigEndian) { bytes.append(contentsOf: $0) } }
    return bytes
  }

  /// Nil where the bytes are not those of a membership.
  package init?(bytes: [UInt8]) {
    guard bytes.count >= 4, bytes[0] == Self.version else { return nil }
    let counts = bytes[1...3].map { Int($0) }
    guard bytes.count == 4 + 8 * counts.reduce(0, +) else { return nil }
    let members = stride(from: 4, to: bytes.count, by: 8).map { start in
      MemberID(bytes[start..<start + 8].reduce(0) { $0 << 8 | UInt64($1) })
    }
    self.init(
      voters: Array(members[..<counts[0]]), outgoing: Array(members[counts[0]..<counts[0] + counts[1]]),
      learners: Array(members[(counts[0] + counts[1])...]))
  }

  private static let version: UInt8 = 1
}
