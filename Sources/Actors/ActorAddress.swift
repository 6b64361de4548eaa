// SPDX-License-Identifier: Apache-2.0

/// One actor, anywhere. As text: `/site-b/nas1@5f1c0e9b22d1a7c4.42`.
package struct ActorAddress: Hashable, Sendable, CustomStringConvertible {
  /// The process's path: 1 to `ActorLimits.pathByteCountMax` bytes. Opaque here.
  package let process: String
  /// Which start of that process. Never zero.
  package let incarnation: UInt64
  /// Which actor: each number is used once in an incarnation. Never zero.
  package let number: UInt64

  /// - Throws: `AddressError`.
  package init(process: String, incarnation: UInt64, number: UInt64) throws(AddressError) {
    guard (1...ActorLimits.pathByteCountMax).contains(process.utf8.count) else { throw .pathLength }
    guard incarnation != 0, number != 0 else { throw .malformed }
    self.init(trusted: process, incarnation: incarnation, number: number)
  }

  init(trusted process: String, incarnation: UInt64, number: UInt64) {
    self.process = process
    self.incarnation = incarnation
    self.number = number
  }

  package var description: String {
    let digits = String(self.incarnation, radix: 16)
    let padding = String(repeating: "0", count: 16 - digits.count)
    return "\(self.process)@\(padding)\(digits).\(self.number)"
  }

  /// Reads the text form, and that alone: there is one for each address.
  ///
  /// - Throws: `AddressError`.
  package init(parsing text: String) throws(AddressError) {
    // `@`, 16 digits, `.`, 20 digits.
    guard text.utf8.count <= ActorLimits.pathByteCountMax + 38 else { throw .pathLength }
    // The last one: a path may have others.
    guard let at = text.utf8.lastIndex(of: UInt8(ascii: "@")) else { throw .malformed }
    let rest = text.utf8[text.utf8.index(after: at)...]
    guard let dot = rest.firstIndex(of: UInt8(ascii: ".")) else { throw .malformed }
    guard let incarnation = UInt64(Substring(rest[..<dot]), radix: 16),
      let number = UInt64(Substring(rest[rest.index(after: dot)...]))
    else { throw .malformed }
    try self.init(process: String(text[..<at]), incarnation: incarnation, number: number)
    // Signs, leading zeros and capitals are other spellings.
    guard self.description == text else { throw .malformed }
  }
}

/// A service, whoever hosts it. As text: `thumbnailer@nearest:/site-b/pictures`.
package struct ServiceAddress: Hashable, Sendable, CustomStringConvertible {
  /// Which processes are meant.
  package enum Reach: String, Hashable, Sendable, CaseIterable {
    /// Those directly in the scope.
    case contained
    /// Those in the closest directory at or above the scope that has any.
    case nearest
  }

  /// A path: 1 to `ActorLimits.pathByteCountMax` bytes. Opaque here.
  package let scope: String
  /// 1 to 255 bytes: letters `a` to `z`, digits, `.`, `-` and `_`.
  package let service: String
  package let reach: Reach

  /// - Throws: `AddressError`.
  package init(scope: String, service: String, reach: Reach) throws(AddressError) {
    guard (1...ActorLimits.pathByteCountMax).contains(scope.utf8.count) else { throw .pathLength }
    guard Self.isService(service) else { throw .malformed }
    self.scope = scope
    self.service = service
    self.reach = reach
  }

  static func isService(_ name: String) -> Bool {
    (1...ActorLimits.nameByteCountMax).contains(name.utf8.count)
      && name.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
          UInt8(ascii: "-"), UInt8(ascii: "_"):
          true
        default: false
        }
      }
  }

  package var description: String { "\(self.service)@\(self.reach.rawValue):\(self.scope)" }

  /// Reads the text form.
  ///
  /// - Throws: `AddressError`.
  package init(parsing text: String) throws(AddressError) {
    guard text.utf8.count <= ActorLimits.nameByteCountMax + ActorLimits.pathByteCountMax + 16 else { throw .pathLength }
    // The first ones: a service has none, a scope may have others.
    guard let at = text.utf8.firstIndex(of: UInt8(ascii: "@")) else { throw .malformed }
    let rest = text.utf8[text.utf8.index(after: at)...]
    guard let colon = rest.firstIndex(of: UInt8(ascii: ":")) else { throw .malformed }
    guard let reach = Reach(rawValue: String(Substring(rest[..<colon]))) else { throw .malformed }
    try self.init(
      scope: String(Substring(rest[rest.index(after: colon)...])), service: String(text[..<at]), reach: reach)
  }
}

/// Why something is no address.
package enum AddressError: Error, Hashable, Sendable {
  /// A path is empty or too long.
  case pathLength
  /// It has not the form of one.
  case malformed
}
