// SPDX-License-Identifier: Apache-2.0

internal import Trust

/// The directories from a process's home to where looking for a path has got to.
struct Way: Sendable {
  private(set) var directories: [InodeState]
  /// The names from the root of the domain to the last directory, without symbolic links.
  private(set) var components: [PathComponent]
  private let root: InodeState
  private let home: [PathComponent]

  init(root: InodeState, home: TreePath) {
    self.root = root
    self.home = home.components
    self.directories = [root]
    self.components = self.home
  }

  /// Where it has got to.
  var directory: InodeState { self.directories.last ?? self.root }

  mutating func enter(_ directory: InodeState, _ name: PathComponent) {
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
