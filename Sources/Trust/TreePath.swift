// SPDX-License-Identifier: Apache-2.0

/// Why a text or a sequence of bytes is not a path.
package enum PathError: String, Error, Hashable, Sendable {
  /// There are no bytes at all.
  case empty
  /// The first byte is not a slash.
  case notAbsolute
  /// Two slashes in a row, a slash at the end, or an empty name.
  case emptyComponent
  /// A component is `.` or `..`.
  case dotComponent
  /// A component contains a slash (only where one component was asked for).
  case slash
  /// There is a NUL byte.
  case nul
  /// A component has more than 255 bytes.
  case componentTooLong
  /// The whole path has more than 4,096 bytes.
  case pathTooLong
  /// The bytes are not well-formed UTF-8.
  case notUTF8
  /// The domain is not 52 characters of lower-case base32.
  case invalidDomain
  /// A `bt://` name is not written in the form that was asked for.
  case invalidURI
}

/// One name in a directory: UTF-8, 1 to 255 bytes, without slash or NUL, neither `.` nor `..`.
///
/// Names are bytes. They are never normalised, and compared byte by byte: two names that Swift's `String` would call
/// equal (composed and decomposed accents, say) are different names here.
package struct PathComponent: Hashable, Comparable, Sendable, CustomStringConvertible {
  package static let byteCountMax = 255

  package let bytes: [UInt8]

  package init(_ name: String) throws(PathError) {
    try self.init(bytes: Array(name.utf8))
  }

  package init(bytes: [UInt8]) throws(PathError) {
    try Self.validate(bytes[...])
    guard String(validating: bytes, as: UTF8.self) != nil else { throw .notUTF8 }
    self.bytes = bytes
  }

  init(validated bytes: [UInt8]) {
    self.bytes = bytes
  }

  package var description: String { String(decoding: self.bytes, as: UTF8.self) }

  package static func < (left: Self, right: Self) -> Bool {
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }

  /// All the rules but UTF-8, which is cheaper to check once for a whole path.
  static func validate(_ bytes: ArraySlice<UInt8>) throws(PathError) {
    guard let first = bytes.first else { throw .emptyComponent }
    guard bytes.count <= self.byteCountMax else { throw .componentTooLong }
    guard !bytes.contains(0) else { throw .nul }
    guard !bytes.contains(slash) else { throw .slash }
    let dot = UInt8(ascii: ".")
    if first == dot, bytes.count == 1 || bytes.count == 2 && bytes.last == dot { throw .dotComponent }
  }
}

/// A place in a domain's tree: `/` or `/a/b`. Bytes in, bytes out, and compared by bytes.
///
/// There is one text for each path: repeated slashes and a slash at the end are refused rather than repaired.
package struct TreePath: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// Of the whole text, slashes included.
  package static let byteCountMax = 4096

  package static let root = TreePath(validated: [slash])

  /// The text as UTF-8, beginning with a slash.
  package let bytes: [UInt8]

  package init(parsing text: String) throws(PathError) {
    try self.init(parsing: Array(text.utf8), knownUTF8: true)
  }

  package init(parsing bytes: [UInt8]) throws(PathError) {
    try self.init(parsing: bytes, knownUTF8: false)
  }

  private init(parsing bytes: [UInt8], knownUTF8: Bool) throws(PathError) {
    guard let first = bytes.first else { throw .empty }
    guard first == slash else { throw .notAbsolute }
    guard bytes.count <= Self.byteCountMax else { throw .pathTooLong }
    if bytes.count > 1 {
      for component in Self.split(bytes) { try PathComponent.validate(component) }
    }
    guard knownUTF8 || String(validating: bytes, as: UTF8.self) != nil else { throw .notUTF8 }
    self.bytes = bytes
  }

  package init(_ components: some Sequence<PathComponent>) throws(PathError) {
    var bytes: [UInt8] = []
    for component in components {
      bytes.append(slash)
      bytes.append(contentsOf: component.bytes)
    }
    guard bytes.count <= Self.byteCountMax else { throw .pathTooLong }
    self.bytes = bytes.isEmpty ? [slash] : bytes
  }

  private init(validated bytes: [UInt8]) {
    self.bytes = bytes
  }

  package var isRoot: Bool { self.bytes.count == 1 }

  /// The names from the root down; none for the root.
  package var components: [PathComponent] {
    self.isRoot ? [] : Self.split(self.bytes).map { PathComponent(validated: Array($0)) }
  }

  /// How many components there are; 0 for the root.
  package var depth: Int {
    self.isRoot ? 0 : self.bytes.reduce(0) { $0 + ($1 == slash ? 1 : 0) }
  }

  /// The last name; nil for the root.
  package var last: PathComponent? {
    guard !self.isRoot, let end = self.bytes.lastIndex(of: slash) else { return nil }
    return PathComponent(validated: Array(self.bytes[(end + 1)...]))
  }

  /// The directory that holds this place; nil for the root.
  package var parent: TreePath? {
    guard !self.isRoot, let end = self.bytes.lastIndex(of: slash) else { return nil }
    return end == 0 ? .root : TreePath(validated: Array(self.bytes[..<end]))
  }

  /// All directories above, the root first; none for the root.
  package var ancestors: [TreePath] {
    guard !self.isRoot else { return [] }
    var result: [TreePath] = [.root]
    for index in self.bytes.indices.dropFirst() where self.bytes[index] == slash {
      result.append(TreePath(validated: Array(self.bytes[..<index])))
    }
    return result
  }

  /// The directory above, or this place itself, that has so many components; nil when there are not so many.
  package func prefix(depth: Int) -> TreePath? {
    guard depth > 0 else { return depth == 0 ? .root : nil }
    guard !self.isRoot else { return nil }
    var found = 0
    for index in self.bytes.indices.dropFirst() where self.bytes[index] == slash {
      found += 1
      if found == depth { return TreePath(validated: Array(self.bytes[..<index])) }
    }
    return found + 1 == depth ? self : nil
  }

  package func appending(_ component: PathComponent) throws(PathError) -> TreePath {
    var bytes = self.isRoot ? [] : self.bytes
    bytes.append(slash)
    bytes.append(contentsOf: component.bytes)
    guard bytes.count <= Self.byteCountMax else { throw .pathTooLong }
    return TreePath(validated: bytes)
  }

  package func appending(_ name: String) throws(PathError) -> TreePath {
    try self.appending(PathComponent(name))
  }

  /// Whether `other` lies below this directory, at any depth. No path is its own ancestor.
  package func isAncestor(of other: TreePath) -> Bool {
    if self.isRoot { return !other.isRoot }
    // The byte after the common part decides: `/a` is above `/a/b` and has nothing to do with `/ab`.
    return other.bytes.count > self.bytes.count && other.bytes[self.bytes.count] == slash
      && other.bytes.starts(with: self.bytes)
  }

  package func isSameOrAncestor(of other: TreePath) -> Bool {
    self == other || self.isAncestor(of: other)
  }

  package var description: String { String(decoding: self.bytes, as: UTF8.self) }

  /// By bytes; a directory comes before what is in it.
  package static func < (left: Self, right: Self) -> Bool {
    left.bytes.lexicographicallyPrecedes(right.bytes)
  }

  private static func split(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
    bytes.dropFirst().split(separator: slash, omittingEmptySubsequences: false)
  }
}

private let slash = UInt8(ascii: "/")
