// SPDX-License-Identifier: Apache-2.0

internal import Foundation

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// Files of this machine that the tour stores, and looks through.
enum TourFiles {
  static let countMax = 400
  static let byteCountMax = 32 << 20

  /// A regular file below the directory that is stored.
  struct Item: Sendable {
    /// Below the source, without a slash at the beginning.
    let path: String
    let byteCount: Int
  }

  /// A directory tree: its directories, parents first, and files.
  struct Tree: Sendable {
    var directories: [String] = []
    var files: [Item] = []

    var byteCount: Int { self.files.reduce(0) { $0 + $1.byteCount } }
  }

  static func makeTemporaryDirectory() throws -> String {
    let parent = FileManager.default.temporaryDirectory.path
    var template = Array("\(parent)/blocktree-demo.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw TourFailure("no temporary directory can be made in \(parent)") }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Something that can neither be compressed nor guessed.
  static func writeRandom(_ byteCount: Int, to path: String) throws {
    var random = SystemRandomNumberGenerator()
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount)
    while bytes.count < byteCount { withUnsafeBytes(of: random.next()) { bytes.append(contentsOf: $0) } }
    try Data(bytes).write(to: URL(fileURLWithPath: path))
  }

  static func removeTree(_ path: String) {
    try? FileManager.default.removeItem(atPath: path)
  }

  /// The sources of this project where the demo runs in its directory, documentation otherwise.
  static func defaultSource() throws -> String {
    for candidate in ["Sources", "/usr/share/doc", "/usr/share"] {
      let manifest = candidate == "Sources" ? "Package.swift" : candidate
      if FileManager.default.fileExists(atPath: manifest), FileManager.default.fileExists(atPath: candidate) {
        return candidate
      }
    }
    throw TourFailure("name a directory tree with --source")
  }

  /// What lies below a directory, up to the limits of the tour; symbolic links and what can not be read left out.
  static func tree(_ root: String) throws -> Tree {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: root, isDirectory: &isDirectory), isDirectory.boolValue else {
      throw TourFailure("\(root) is not a directory")
    }
    var tree = Tree()
    var byteCount = 0
    var queue = [""]
    while let directory = queue.popLast() {
      let prefix = directory.isEmpty ? "" : directory + "/"
      for name in (try? FileManager.default.contentsOfDirectory(atPath: "\(root)/\(directory)"))?.sorted() ?? [] {
        let path = prefix + name
        var status = stat()
        guard lstat("\(root)/\(path)", &status) == 0 else { continue }
        switch status.st_mode & S_IFMT {
        case S_IFDIR where tree.files.count < Self.countMax:
          tree.directories.append(path)
          queue.append(path)
        case S_IFREG:
          let size = Int(status.st_size)
          guard tree.files.count < Self.countMax, byteCount + size <= Self.byteCountMax,
            access("\(root)/\(path)", R_OK) == 0
          else { continue }
          byteCount += size
          tree.files.append(Item(path: path, byteCount: size))
        default: continue
        }
      }
    }
    guard tree.files.contains(where: { $0.byteCount > 8_192 }) else {
      throw TourFailure("\(root) has no file of more than 8 KiB to show")
    }
    return tree
  }

  static func read(_ path: String) throws -> [UInt8] {
    guard let data = FileManager.default.contents(atPath: path) else { throw TourFailure("\(path) can not be read") }
    return Array(data)
  }

  // MARK: Searching

  /// Where bytes were found.
  struct Place: Sendable {
    let file: String
    let offset: Int
  }

  /// All files below a directory.
  static func allFiles(_ root: String) -> [String] {
    let names = FileManager.default.subpaths(atPath: root) ?? []
    return names.map { "\(root)/\($0)" }.filter { path in
      var status = stat()
      return lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }
  }

  /// Looks for patterns in files. Answers where each was found first, by its number.
  static func search(_ files: [String], for patterns: [[UInt8]]) throws -> [Int: Place] {
    var found: [Int: Place] = [:]
    for file in files {
      let bytes = try Data(contentsOf: URL(fileURLWithPath: file), options: .alwaysMapped)
      bytes.withUnsafeBytes { bytes in
        for range in Self.written(bytes) {
          guard let start = bytes.baseAddress?.advanced(by: range.lowerBound) else { continue }
          for (number, pattern) in patterns.enumerated() where found[number] == nil {
            if let offset = Self.find(pattern, in: start, count: range.count) {
              found[number] = Place(file: file, offset: range.lowerBound + offset)
            }
          }
        }
      }
    }
    return found
  }

  /// Where a pattern begins, if it is there.
  private static func find(_ pattern: [UInt8], in bytes: UnsafeRawPointer, count: Int) -> Int? {
    guard let first = pattern.first else { return nil }
    var offset = 0
    while count - offset >= pattern.count {
      guard let hit = memchr(bytes + offset, Int32(first), count - offset - pattern.count + 1) else { return nil }
      offset = UnsafeRawPointer(hit) - bytes
      if memcmp(hit, pattern, pattern.count) == 0 { return offset }
      offset += 1
    }
    return nil
  }

  /// The parts of a file that are not all zeros: files of a store are allocated long before they are used.
  private static func written(_ bytes: UnsafeRawBufferPointer) -> [Range<Int>] {
    let step = 64 << 10
    let zeros = [UInt8](repeating: 0, count: step)
    var ranges: [Range<Int>] = []
    for start in stride(from: 0, to: bytes.count, by: step) {
      let end = min(start + step, bytes.count)
      guard let address = bytes.baseAddress, memcmp(address.advanced(by: start), zeros, end - start) != 0 else {
        continue
      }
      if let last = ranges.last, last.upperBound == start {
        ranges[ranges.count - 1] = last.lowerBound..<end
      } else {
        ranges.append(start..<end)
      }
    }
    return ranges
  }

  /// Changes one bit of a file.
  static func flipBit(_ place: Place) throws {
    let file = open(place.file, O_RDWR | O_CLOEXEC)
    guard file >= 0 else { throw TourFailure("\(place.file) can not be opened") }
    defer { close(file) }
    var byte: UInt8 = 0
    guard pread(file, &byte, 1, off_t(place.offset)) == 1 else { throw TourFailure("\(place.file) can not be read") }
    byte ^= 1
    guard pwrite(file, &byte, 1, off_t(place.offset)) == 1 else {
      throw TourFailure("\(place.file) can not be written")
    }
  }
}
