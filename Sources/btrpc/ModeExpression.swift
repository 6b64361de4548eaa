// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
package import BlocktreeClient

/// A mode as chmod takes it: octal digits, or changes such as `u=rwx,g-w,+X`. There is no umask here: no letter before
/// the operator means all.
package struct ModeExpression: ExpressibleByArgument, Hashable, Sendable {
  private enum Operator: Character {
    case add = "+"
    case remove = "-"
    case set = "="
  }

  private struct Change: Hashable, Sendable {
    /// For owner 4, group 2, others 1.
    var classes: UInt16
    var action: Operator
    /// Read 4, write 2, execute 1.
    var permission: UInt16 = 0
    /// Execute for directories, and for files that have it for somebody.
    var hasConditionalExecute = false
    var hasSetID = false
    var hasSticky = false
    /// The class whose bits are copied: 4, 2 or 1; 0 for none.
    var copied: UInt16 = 0
  }

  private var absolute: FileMode?
  private var changes: [Change] = []

  package init?(argument: String) {
    if !argument.isEmpty, argument.allSatisfy({ ("0"..."7").contains($0) }) {
      guard let bits = UInt16(argument, radix: 8), bits <= 0o7777 else { return nil }
      self.absolute = FileMode(rawValue: bits)
      return
    }
    for clause in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard let changes = Self.parse(clause) else { return nil }
      self.changes += changes
    }
  }

  private static let classes: [Character: UInt16] = ["u": 4, "g": 2, "o": 1, "a": 7]

  private static func parse(_ clause: Substring) -> [Change]? {
    var rest = clause
    var classes: UInt16 = 0
    while let letter = rest.first, let bits = Self.classes[letter] {
      classes |= bits
      rest.removeFirst()
    }
    if classes == 0 { classes = 7 }
    var changes: [Change] = []
    while let first = rest.first {
      guard let action = Operator(rawValue: first) else { return nil }
      rest.removeFirst()
      var change = Change(classes: classes, action: action)
      while let letter = rest.first, Operator(rawValue: letter) == nil {
        switch letter {
        case "r": change.permission |= 4
        case "w": change.permission |= 2
        case "x": change.permission |= 1
        case "X": change.hasConditionalExecute = true
        case "s": change.hasSetID = true
        case "t": change.hasSticky = true
        case "u": change.copied = 4
        case "g": change.copied = 2
        case "o": change.copied = 1
        default: return nil
        }
        rest.removeFirst()
      }
      changes.append(change)
    }
    return changes.isEmpty ? nil : changes
  }

  /// The mode that a file with this one gets.
  package func applied(to mode: FileMode, isDirectory: Bool) -> FileMode {
    if let absolute { return absolute }
    var bits = mode.rawValue
    for change in self.changes { bits = Self.apply(change, to: bits, isDirectory: isDirectory) }
    return FileMode(rawValue: bits)
  }

  private static func apply(_ change: Change, to bits: UInt16, isDirectory: Bool) -> UInt16 {
    var permission = change.permission
    if change.hasConditionalExecute, isDirectory || bits & 0o111 != 0 { permission |= 1 }
    if change.copied != 0 { permission |= bits >> self.shift(change.copied) & 7 }
    var wanted: UInt16 = change.hasSticky ? 0o1000 : 0
    var touched: UInt16 = change.hasSticky ? 0o1000 : 0
    for part in [4, 2, 1] as [UInt16] where change.classes & part != 0 {
      wanted |= permission << self.shift(part)
      touched |= 7 << self.shift(part)
      let setID: UInt16 = part == 4 ? 0o4000 : part == 2 ? 0o2000 : 0
      if change.hasSetID { wanted |= setID }
      touched |= setID
    }
    return switch change.action {
    case .add: bits | wanted
    case .remove: bits & ~wanted
    case .set: bits & ~touched | wanted
    }
  }

  private static func shift(_ part: UInt16) -> UInt16 { part == 4 ? 6 : part == 2 ? 3 : 0 }
}
