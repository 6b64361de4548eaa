// SPDX-License-Identifier: Apache-2.0

internal import Inodes
internal import Trust

/// The directories from a process's home to where looking for a path has got to.
struct Way: Sendable {
  private(set) var directories: [InodeState]
  /// What was found out about each of them.
  private var marks: [Marks]
  /// The names from the root of the domain to the last directory, without symbolic links.
  private(set) var components: [PathComponent]
  private let root: InodeState
  private let home: [PathComponent]

  private struct Marks: Sendable {
    /// Whether the key in the entry that led to it is exposed.
    var isExposed = false
    /// Whether the caller has its key, or that of one before it.
    var isReadable = false
    /// Whether the caller may pass all before it.
    var isReached: Bool
  }

  /// - Parameter isReached: whether the caller may pass all directories above the home.
  init(root: InodeState, home: TreePath, isReached: Bool) {
    self.marks = [Marks(isReached: isReached)]
    self.root = root
    self.home = home.components
    self.directories = [root]
    self.components = self.home
  }

  /// Where it has got to.
  var directory: InodeState { self.directories.last ?? self.root }

  /// Whether the caller has the key of the last directory, or of one above it.
  var isReadable: Bool { self.marks.last?.isReadable ?? false }

  /// Whether the caller may pass all directories before the last one.
  var isReached: Bool { self.marks.last?.isReached ?? false }

  /// Takes note that the caller has the key of the last directory.
  mutating func setReadable() {
    if !self.marks.isEmpty { self.marks[self.marks.count - 1].isReadable = true }
  }

  /// The first entry on the way, from the home down, whose key is exposed.
  var exposed: ExposedEntry? {
    guard let index = self.marks.firstIndex(where: \.isExposed), index > 0 else { return nil }
    return ExposedEntry(
      directory: self.directories[index - 1], name: self.components[self.home.count + index - 1])
  }

  /// - Parameter isReached: whether the caller may pass all directories so far.
  mutating func enter(_ directory: InodeState, _ entry: DirectoryEntry, isExposed: Bool, isReached: Bool) {
    let name = entry.name
    // The key of what is cut off is not known to whoever has that of the directory.
    let isReadable = self.isReadable && entry.key != nil
    self.marks.append(Marks(isExposed: isExposed, isReadable: isReadable, isReached: isReached))
    self.directories.append(directory)
    self.components.append(name)
  }

  /// Goes back as far as must be to where a path branches off; answers what is to be looked for from there, or nil when
  /// the path leads out of the home.
  mutating func begin(_ path: [PathComponent]) -> ArraySlice<PathComponent>? {
    guard path.starts(with: self.home) else { return nil }
    let common = zip(path, self.components).prefix { $0 == $1 }.count
    self.components.removeLast(self.components.count - common)
    self.directories.removeLast(self.directories.count - 1 - (common - self.home.count))
    self.marks.removeLast(self.marks.count - self.directories.count)
    return path[common...]
  }

  /// The path that a symbolic link in the last directory leads to, and what was to be looked for behind it.
  ///
  /// Within the target, ".." takes back what went before it by name: a link that leads through another link and up again
  /// is not followed to the letter. Above the root lies the root.
  func components(
    following target: [UInt8], then rest: ArraySlice<PathComponent>
  ) throws(FilesystemError) -> [PathComponent] {
    var names = target.first == UInt8(ascii: "/") ? [] : self.components
    for part in target.split(separator: UInt8(ascii: "/")) {
      if part.elementsEqual([UInt8(ascii: ".")]) { continue }
      if part.elementsEqual([UInt8(ascii: "."), UInt8(ascii: ".")]) {
        _ = names.popLast()
        continue
      }
      do { names.append(try PathComponent(bytes: Array(part))) } catch { throw .invalidPath(error) }
    }
    guard names.count + rest.count <= TreePath.byteCountMax / 2 else { throw .loop }
    return names + rest
  }

  /// The path of the last directory, or of a name in it.
  func path(_ name: PathComponent? = nil) throws(FilesystemError) -> TreePath {
    do { return try TreePath(self.components + (name.map { [$0] } ?? [])) } catch { throw .invalidPath(error) }
  }
}
