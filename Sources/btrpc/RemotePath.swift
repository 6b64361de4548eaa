// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser

/// A path of the domain as somebody typed it. Repeated slashes and one at the end, which completion leaves behind, are
/// forgiven; whether it is a good path otherwise, the library decides.
package struct RemotePath: Hashable, Sendable, CustomStringConvertible {
  /// `/a/b`, or `bt://…`.
  package let text: String
  /// Whether a slash stood at the end: a directory is meant.
  package let meansDirectory: Bool

  package init?(argument: String) {
    let scheme = "bt://"
    let isURI = argument.hasPrefix(scheme)
    guard isURI || argument.hasPrefix("/") else { return nil }
    var path = Self.collapse(String(argument.dropFirst(isURI ? scheme.count : 0)))
    self.meansDirectory = path.hasSuffix("/")
    // The slash of the root itself stays.
    guard let root = path.firstIndex(of: "/") else { return nil }
    if self.meansDirectory, path.index(after: root) < path.endIndex { path.removeLast() }
    self.text = (isURI ? scheme : "") + path
  }

  /// For arguments: an error says what a path looks like.
  package static func parse(_ argument: String) throws -> RemotePath {
    guard let path = RemotePath(argument: argument) else {
      throw ValidationError("A path of the domain begins with /, or with bt:// and the domain.")
    }
    return path
  }

  private init(text: String) {
    self.text = text
    self.meansDirectory = false
  }

  private static func collapse(_ text: String) -> String {
    var bytes: [UInt8] = []
    for byte in text.utf8 where byte != UInt8(ascii: "/") || bytes.last != byte { bytes.append(byte) }
    return String(decoding: bytes, as: UTF8.self)
  }

  package var description: String { self.text }

  /// Without the scheme and the domain.
  package var inDomain: String {
    guard self.text.hasPrefix("bt://") else { return self.text }
    let rest = self.text.dropFirst("bt://".count)
    return String(rest[(rest.firstIndex(of: "/") ?? rest.endIndex)...])
  }

  /// The last name; nil for the root.
  package var name: String? {
    guard let slash = self.text.lastIndex(of: "/") else { return nil }
    let name = self.text[self.text.index(after: slash)...]
    return name.isEmpty ? nil : String(name)
  }

  package func appending(_ name: String) -> RemotePath {
    RemotePath(text: self.text.hasSuffix("/") ? self.text + name : "\(self.text)/\(name)")
  }

  /// A path below this one, by names with slashes between; none of them empty.
  package func appending(relative: String) -> RemotePath {
    relative.isEmpty ? self : self.appending(relative)
  }
}
