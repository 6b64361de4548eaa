// SPDX-License-Identifier: Apache-2.0

import Inodes
import SectorStore
import Sectors
import Synchronization
import Testing
import Trust

@testable import Filesystem

extension TestSite {
  /// What a tree is, as callers see it, apart from file ids and versions.
  struct Image: Equatable, CustomStringConvertible {
    struct Node: Equatable {
      let type: FileType
      let bytes: [UInt8]
      let rules: AccessRules
      let times: [Int64]
      let links: UInt32
    }

    var nodes: [String: Node] = [:]

    var description: String {
      self.nodes.sorted { $0.key < $1.key }
        .map { "\($0.key): \($0.value.type) \($0.value.bytes.count) \($0.value.times) \($0.value.links)" }
        .joined(separator: "\n")
    }
  }

  /// The tree in the directory, without the processes.
  func image(by filesystem: Filesystem) async throws -> Image {
    var image = Image()
    try await self.add("/site", to: &image, filesystem)
    return image
  }

  private func add(_ directory: String, to image: inout Image, _ filesystem: Filesystem) async throws {
    for name in try await filesystem.names(directory) where !name.hasPrefix("nas") {
      let text = "\(directory)/\(name)"
      let info = try await filesystem.stat(TestDomain.path(text), follow: false, for: TestDomain.owner)
      var bytes: [UInt8] = []
      switch info.type {
      case .file, .credential: bytes = try await filesystem.get(text)
      case .symbolicLink: bytes = try await filesystem.readSymbolicLink(TestDomain.path(text), for: TestDomain.owner)
      case .directory, .superblock: break
      }
      image.nodes[text] = Image.Node(
        type: info.type, bytes: bytes, rules: info.rules,
        times: [info.modified, info.changed, info.accessed, info.created], links: info.linkCount)
      if info.type == .directory { try await self.add(text, to: &image, filesystem) }
    }
  }

  var directory: FileID {
    get async throws {
      let place = try await self.rootFilesystem.place(of: Self.path, for: TestDomain.owner, follow: false)
      return try #require(place.found).state.fileID
    }
  }

  func progress() async throws -> TaskProgress {
    let progress = TaskProgress(
      TaskRecord(kind: .drain, path: Self.path, file: try await self.directory, holder: nil, started: 1))
    #expect(progress.start())
    return progress
  }

  @discardableResult
  func drain(by filesystem: Filesystem? = nil) async throws -> TaskProgress {
    let progress = try await self.progress()
    let left = try await (filesystem ?? self.rootFilesystem).drain(Self.path, progress.record.file, from: nil, progress)
    #expect(left == "")
    return progress
  }

  /// Another service of the process above, which knows nothing of the first.
  func anotherRootFilesystem() async throws -> Filesystem {
    let volumes = TestVolumes()
    volumes.set(
      Self.generation, GatedVolume(base: self.site, gate: self.siteGate, caller: try self.domain.identity))
    return try await Filesystem(
      sectors: self.root, identity: self.domain.identity, keys: self.domain.processKeys, pool: self.domain.pool,
      volumes: volumes, now: TestDomain.now)
  }

  /// Checks that nothing but the cluster above has to do with the directory.
  func expectTakenBack(_ image: Image, sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let root = try await self.anotherRootFilesystem()
    let found = try await self.image(by: root)
    #expect(found == image, sourceLocation: sourceLocation)
    let directory = try #require(await self.root.record(try await self.directory))
    #expect(directory.attributes.part.servedByGeneration == nil, sourceLocation: sourceLocation)
    #expect(self.site.freeze == .retired, sourceLocation: sourceLocation)
    #expect(try await !root.names("/").contains { $0.hasPrefix(".drain") }, sourceLocation: sourceLocation)
    #expect(try self.root.store.inodes(flag: .pending).isEmpty, sourceLocation: sourceLocation)
    // The site's own service serves it on, from there.
    #expect(try await self.image(by: self.siteFilesystem) == image, sourceLocation: sourceLocation)
  }
}

/// Ends a drain before one of its commits.
final class Breaker: Sendable {
  struct Broken: Error {}

  private let left: Mutex<Int>
  private let count = Mutex(0)

  init(after count: Int) { self.left = Mutex(count) }

  /// Commits that were begun.
  var passed: Int { self.count.withLock { $0 } }

  func install(in filesystem: Filesystem) {
    filesystem.drains.willCommit.withLock { hook in
      hook = { () throws(FilesystemError) in
        let mayPass = self.left.withLock { left in
          left -= 1
          return left >= 0
        }
        guard mayPass else { throw .taskStopped }
        self.count.withLock { $0 += 1 }
      }
    }
  }
}

/// Bytes that are not the same everywhere.
func pattern(_ seed: UInt8, _ count: Int) -> [UInt8] {
  var random = SplitMix(state: UInt64(seed))
  var bytes: [UInt8] = []
  bytes.reserveCapacity(count + 8)
  while bytes.count < count { withUnsafeBytes(of: random.next()) { bytes += $0 } }
  return Array(bytes.prefix(count))
}
