// SPDX-License-Identifier: Apache-2.0

package import Trust

/// Which processes answer for a path, as another one said: what an error with the reason REDIRECTED tells.
package struct ClientRedirection: Hashable, Sendable {
  /// As many as the schema allows.
  package static let processCountMax = 16
  private static let addressCountMax = 16
  /// What the list of processes takes at most.
  private static let textByteCountMax = 64 << 10
  /// However long somebody wants to be remembered.
  package static let lifetimeMax: Duration = .seconds(30)

  /// The directory whose processes these are.
  package let directory: TreePath
  /// All of them directly in the directory.
  package let processes: [ProcessHint]
  package let lifetime: Duration
  /// What to ask for there, when symbolic links have led on to another path.
  package let path: TreePath?

  package init(directory: TreePath, processes: [ProcessHint], lifetime: Duration, path: TreePath? = nil) {
    self.directory = directory
    self.processes = processes
    self.lifetime = min(max(lifetime, .zero), Self.lifetimeMax)
    self.path = path
  }

  /// Nil for errors with another reason.
  ///
  /// - Throws: when the redirect breaks the schema's rules. It leads to other machines: nothing of it is guessed.
  package init?(_ error: BlocktreeError) throws(BlocktreeError) {
    guard error.reason == .redirected else { return nil }
    let metadata = error.metadata
    guard let directory = metadata["directory"].flatMap({ try? TreePath(parsing: $0) }) else {
      throw .malformedAnswer("directory")
    }
    let path = try metadata["path"].map { (text: String) throws(BlocktreeError) -> TreePath in
      guard let path = try? TreePath(parsing: text) else { throw .malformedAnswer("path") }
      return path
    }
    guard let lifetime = metadata["lifetime_ms"].flatMap({ UInt32($0) }) else { throw .malformedAnswer("lifetime_ms") }
    guard let processes = Self.processes(metadata["processes"] ?? "", in: directory) else {
      throw .malformedAnswer("processes")
    }
    self.init(directory: directory, processes: processes, lifetime: .milliseconds(Int64(lifetime)), path: path)
  }

  private static func processes(_ text: String, in directory: TreePath) -> [ProcessHint]? {
    guard text.utf8.count <= self.textByteCountMax else { return nil }
    let items = text.utf8.split(separator: UInt8(ascii: ";"), omittingEmptySubsequences: false)
    if text.isEmpty { return [] }
    guard items.count <= self.processCountMax else { return nil }
    var hints: [ProcessHint] = []
    for item in items {
      guard let equals = item.firstIndex(of: UInt8(ascii: "=")), let bytes = self.decoded(item[..<equals]),
        let path = try? TreePath(parsing: bytes), path.parent == directory
      else { return nil }
      let rest = item[item.index(after: equals)...]
      let texts = rest.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: !rest.isEmpty ? false : true)
      guard texts.count <= self.addressCountMax else { return nil }
      var addresses: [NetworkAddress] = []
      for text in texts {
        guard let text = String(validating: text, as: UTF8.self), let address = try? NetworkAddress(parsing: text)
        else { return nil }
        addresses.append(address)
      }
      hints.append(ProcessHint(path: path, addresses: addresses))
    }
    return hints
  }

  /// Without the escapes: a percent sign and two hexadecimal digits.
  private static func decoded(_ text: Substring.UTF8View.SubSequence) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard let high = rest.popFirst().flatMap(self.digit), let low = rest.popFirst().flatMap(self.digit) else {
        return nil
      }
      bytes.append(high << 4 | low)
    }
    return bytes
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}

extension BlocktreeError.Reason {
  /// Processes of another directory answer for the path, and nothing was done. Clients go there by themselves; this is
  /// thrown when that leads nowhere. Metadata: `hop`, which redirect it was, `from` and `directory`, and `rule`, what is
  /// wrong with it.
  public static let redirected = BlocktreeError.Reason(rawValue: "REDIRECTED")
  /// This takes the processes of a directory above, which can not be reached; nothing was done. What lies deeper goes
  /// on. Metadata: `directory`.
  public static let parentUnreachable = BlocktreeError.Reason(rawValue: "PARENT_UNREACHABLE")
  /// The directory has a cluster of its own, and this is its last process. Metadata: `directory`.
  public static let delegated = BlocktreeError.Reason(rawValue: "DELEGATED")
  /// The cluster serves another generation.
  public static let wrongGeneration = BlocktreeError.Reason(rawValue: "WRONG_GENERATION")
}
