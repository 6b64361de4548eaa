// SPDX-License-Identifier: Apache-2.0

/// What may be done with a file or directory, with the meanings and bits of POSIX.
package struct Permission: OptionSet, Hashable, Sendable, CustomStringConvertible {
  package let rawValue: UInt8

  package init(rawValue: UInt8) {
    self.rawValue = rawValue
  }

  package static let read = Permission(rawValue: 4)
  package static let write = Permission(rawValue: 2)
  /// For a directory: to reach what is in it.
  package static let execute = Permission(rawValue: 1)
  package static let all: Permission = [.read, .write, .execute]

  /// As `ls` prints it: `r-x`.
  package var description: String {
    (self.contains(.read) ? "r" : "-") + (self.contains(.write) ? "w" : "-") + (self.contains(.execute) ? "x" : "-")
  }
}

/// The mode of a file: nine permission bits, and set-user-id, set-group-id and sticky, which are stored for those who
/// ask for them and grant nothing here.
package struct Mode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  package static let rawValueMax: UInt16 = 0o7777

  package let rawValue: UInt16

  /// Nil when there are more than 12 bits.
  package init?(rawValue: UInt16) {
    guard rawValue <= Self.rawValueMax else { return nil }
    self.rawValue = rawValue
  }

  /// Keeps the lowest 12 bits, as chmod does.
  package init(truncating rawValue: UInt32) {
    self.rawValue = UInt16(truncatingIfNeeded: rawValue) & Self.rawValueMax
  }

  package var owner: Permission { Permission(rawValue: UInt8(self.rawValue >> 6 & 7)) }
  package var group: Permission { Permission(rawValue: UInt8(self.rawValue >> 3 & 7)) }
  package var others: Permission { Permission(rawValue: UInt8(self.rawValue & 7)) }

  /// Of a directory: only the owner of a file in it, or of the directory, may take the file's name away.
  package var isSticky: Bool { self.rawValue & 0o1000 != 0 }

  /// Four octal digits: `0644`.
  package var description: String {
    let digits = String(self.rawValue, radix: 8)
    return String(repeating: "0", count: 4 - digits.count) + digits
  }
}
