// SPDX-License-Identifier: Apache-2.0

import Foundation
import Inodes
import Testing
import Trust

@testable import Filesystem

/// A tree in memory that does the same in the most obvious way.
private struct Model {
  final class File {
    var data: [UInt8] = []
  }

  indirect enum Node {
    case file(File)
    case directory([String: Node])
  }

  private(set) var root: [String: Node] = [:]

  static func components(_ path: String) -> [String] { path.split(separator: "/").map(String.init) }

  func node(_ path: String) -> Node? {
    var node = Node.directory(self.root)
    for name in Self.components(path) {
      guard case .directory(let entries) = node, let next = entries[name] else { return nil }
      node = next
    }
    return node
  }

  mutating func set(_ path: String, _ node: Node?) {
    func replaced(_ entries: [String: Node], _ names: ArraySlice<String>) -> [String: Node] {
      guard let name = names.first else { return entries }
      var entries = entries
      if names.count == 1 {
        entries[name] = node
      } else if case .directory(let inner)? = entries[name] {
        entries[name] = .directory(replaced(inner, names.dropFirst()))
      }
      return entries
    }
    self.root = replaced(self.root, Self.components(path)[...])
  }

  func isDirectory(_ path: String) -> Bool {
    if case .directory? = self.node(path) { true } else { false }
  }

  func file(_ path: String) -> File? {
    if case .file(let file)? = self.node(path) { file } else { nil }
  }

  func parentIsDirectory(_ path: String) -> Bool {
    self.isDirectory("/" + Self.components(path).dropLast().joined(separator: "/"))
  }

  func isEmptyDirectory(_ path: String) -> Bool {
    if case .directory(let entries)? = self.node(path) { entries.isEmpty } else { false }
  }
}

@Suite("The filesystem")
struct ModelTests {
  @Test("does what a tree in memory does, through restarts", arguments: SplitMix.seeds(4))
  func model(seed: UInt64) async throws {
    var random = SplitMix(state: seed)
    var steps: [String] = []
    var model = Model()
    let paths = ["/a", "/b", "/a/x", "/a/y", "/b/x", "/a/x/deep", "/a/x/deep/er"]
    try await TestDomain.with { domain in
      for _ in 0..<4 {
        try await domain.withGroup { (group) async throws in
          // Two services that know nothing of one another.
          let services = [try await domain.filesystem(group), try await domain.filesystem(group)]
          for _ in 0..<80 {
            let filesystem = services.randomElement(using: &random) ?? services[0]
            let path = paths.randomElement(using: &random) ?? "/a"
            let other = paths.randomElement(using: &random) ?? "/b"
            let step = Int.random(in: 0..<13, using: &random)
            let size = [0, 1, 4_096, 5_000, 20_000, 300_000].randomElement(using: &random) ?? 0
            let offset = [0, 100, 4_095, 4_096, 17_000].randomElement(using: &random) ?? 0
            let data = (0..<size).map { UInt8(truncatingIfNeeded: $0 &+ step) }
            steps.append("\(step) \(path) \(other) \(size) \(offset)")
            let (expected, done) = await Self.perform(step, path, other, data, offset, &model, filesystem)
            #expect(expected == done, "seed \(seed), step \(steps.count): \(steps.last ?? "")")
          }
          for service in services { try await Self.compare(model, service, "seed \(seed) after \(steps.count) steps") }
        }
        try await domain.withFilesystem { (filesystem: Filesystem) async throws in
          try await Self.compare(model, filesystem, "seed \(seed) after \(steps.count) steps and a restart")
        }
      }
    }
  }

  /// Performs a step in both; answers whether each succeeded.
  private static func perform(
    _ step: Int, _ path: String, _ other: String, _ data: [UInt8], _ offset: Int, _ model: inout Model,
    _ filesystem: Filesystem
  ) async -> (expected: Bool, done: Bool) {
    func done(_ body: () async throws -> Void) async -> Bool {
      do {
        try await body()
        return true
      } catch {
        return false
      }
    }
    let treePath = TestDomain.path(path)
    let otherPath = TestDomain.path(other)
    switch step {
    case 0, 1:
      let expected = model.parentIsDirectory(path) && !model.isDirectory(path)
      if expected {
        let file = Model.File()
        file.data = data
        model.set(path, .file(file))
      }
      return (expected, await done { try await filesystem.put(path, data) })
    case 2, 3:
      let expected = model.parentIsDirectory(path) && model.node(path) == nil
      if expected { model.set(path, .directory([:])) }
      return (expected, await done { try await filesystem.makeDirectory(path) })
    case 4:
      let file = model.file(path)
      if let file {
        let end = offset + data.count
        if !data.isEmpty {
          if file.data.count < end { file.data += [UInt8](repeating: 0, count: end - file.data.count) }
          file.data.replaceSubrange(offset..<end, with: data)
        }
      }
      return (
        file != nil,
        await done {
          _ = try await filesystem.write(data[...], to: treePath, at: UInt64(offset), filesystem.asOwner)
        }
      )
    case 5:
      let file = model.file(path)
      if let file {
        file.data = Array(file.data.prefix(offset))
        file.data += [UInt8](repeating: 0, count: offset - file.data.count)
      }
      return (
        file != nil, await done { _ = try await filesystem.truncate(treePath, to: UInt64(offset), filesystem.asOwner) }
      )
    case 6:
      let expected = model.node(path) != nil && (!model.isDirectory(path) || model.isEmptyDirectory(path))
      if expected { model.set(path, nil) }
      return (expected, await done { try await filesystem.remove(treePath, expecting: .any, filesystem.asOwner) })
    case 7:
      let node = model.node(path)
      var expected = node != nil && model.parentIsDirectory(other)
      if model.isDirectory(path), path != other, (other + "/").hasPrefix(path + "/") { expected = false }
      if path != other {
        if model.isDirectory(path), model.node(other) != nil, !model.isEmptyDirectory(other) { expected = false }
        if !model.isDirectory(path), model.isDirectory(other) { expected = false }
        if expected, !Self.isSameFile(model.file(path), model.file(other)) {
          model.set(path, nil)
          model.set(other, node)
        }
      }
      return (
        expected,
        await done { _ = try await filesystem.rename(treePath, to: otherPath, noReplace: false, filesystem.asOwner) }
      )
    // None of these changes what is there.
    case 9:
      return (model.node(path) != nil, await done { _ = try await filesystem.rekey(treePath, filesystem.asOwner) })
    case 10:
      return (
        model.node(path) != nil,
        await done {
          _ = try await filesystem.grant(
            treePath, to: .principal(TestDomain.path("/node1")), .read, withKey: true, filesystem.asOwner)
        }
      )
    case 11:
      return (
        model.node(path) != nil,
        await done {
          _ = try await filesystem.revoke(
            treePath, from: .principal(TestDomain.path("/node1")), filesystem.asOwner)
        }
      )
    case 12:
      return (
        true,
        await done {
          for task in filesystem.tasks.open {
            #expect(try await filesystem.rekey(task.record, task) == "")
            try await filesystem.cancel(task)
            filesystem.tasks.end(task, .finished, "")
          }
        }
      )
    default:
      let file = model.file(path)
      let expected = file != nil && model.parentIsDirectory(other) && model.node(other) == nil
      if expected, let file { model.set(other, .file(file)) }
      return (expected, await done { _ = try await filesystem.makeLink(treePath, as: otherPath, filesystem.asOwner) })
    }
  }

  private static func isSameFile(_ left: Model.File?, _ right: Model.File?) -> Bool {
    guard let left, let right else { return false }
    return left === right
  }

  private static func compare(_ model: Model, _ filesystem: Filesystem, _ comment: String) async throws {
    func compare(_ entries: [String: Model.Node], _ path: String) async throws {
      var names = try await filesystem.names(path.isEmpty ? "/" : path)
      if path.isEmpty { names.removeAll { $0 == "node1" || $0 == "owner" } }
      #expect(names.sorted() == entries.keys.sorted(), "\(comment) in \(path)")
      for (name, node) in entries {
        switch node {
        case .file(let file):
          let data = try await filesystem.get(path + "/" + name)
          #expect(data == file.data, "\(comment) in \(path)/\(name): \(data.count) for \(file.data.count) bytes")
        case .directory(let inner): try await compare(inner, path + "/" + name)
        }
      }
    }
    try await compare(model.root, "")
  }
}
