// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A disk that can be filled to its last byte, and that can hang: ext4 in a file, over a loop device.
///
/// Where it is mounted holds the number of this process: what one left behind that was killed is found, thawed and
/// unmounted by the next.
final class TestDisk: Sendable {
  /// Where it is mounted.
  let path: String
  private let tools: Tools
  private let log: String
  private let isFrozen = Mutex(false)

  private struct Tools {
    let make: String
    let mount: String
    let unmount: String
    let freeze: String

    init() throws {
      func find(_ name: String, package: String) throws -> String {
        guard let path = Installed.tool(name) else {
          throw ClusterFailure("\(name) is not installed (Debian package \(package))")
        }
        return path
      }
      self.make = try find("mkfs.ext4", package: "e2fsprogs")
      self.mount = try find("mount", package: "mount")
      self.unmount = try find("umount", package: "mount")
      self.freeze = try find("fsfreeze", package: "util-linux")
    }
  }

  /// Enough for a node that holds little: its first data files have 64 MiB and 32 MiB, and so much stays free for the log.
  static let usualBytes = 400 << 20
  private static let prefix = "blocktree-disk-"

  private init(path: String, tools: Tools, log: String) {
    self.path = path
    self.tools = tools
    self.log = log
  }

  // MARK: Whether there can be any

  /// Why none can be made here; nil when they can.
  static func obstacle() async -> String? {
    do {
      let scratch = try Scratch()
      let disks = try await self.make([0: 16 << 20], in: scratch.path, log: "\(scratch.path)/log")
      var failure: (any Error)?
      for disk in disks.values {
        do { try await disk.freeze() } catch { failure = error }
        await disk.remove()
      }
      return failure.map { "Disks can not be frozen here: \($0)" }
    } catch {
      return "Disks can not be made here: \(error)"
    }
  }

  // MARK: Making and removing

  /// - Parameters:
  ///   - sizes: the bytes of each, by the members that they are for.
  ///   - log: a file that the tools' standard error is appended to. Not on one of these disks.
  static func make(_ sizes: [Int: Int], in directory: String, log: String) async throws -> [Int: TestDisk] {
    guard !sizes.isEmpty else { return [:] }
    let tools = try Tools()
    guard geteuid() == 0 else { throw ClusterFailure("only root may mount") }
    await self.removeStale(tools, log: log)
    var disks: [Int: TestDisk] = [:]
    do {
      for (member, size) in sizes {
        let disk = TestDisk(path: "\(directory)/\(self.prefix)\(getpid())-\(member)", tools: tools, log: log)
        try await disk.build(byteCount: size)
        disks[member] = disk
      }
    } catch {
      for disk in disks.values { await disk.remove() }
      throw error
    }
    return disks
  }

  private func build(byteCount: Int) async throws {
    let image = "\(self.path).image"
    guard FileManager.default.createFile(atPath: image, contents: nil), truncate(image, off_t(byteCount)) == 0 else {
      throw ClusterFailure("\(image) can not be made")
    }
    try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: false)
    // No room that only root may use, as the node here is root's; and all of it written now, or the kernel does so later.
    try await self.run(
      self.tools.make, ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
    try await self.run(self.tools.mount, ["-t", "ext4", "-o", "loop", image, self.path])
  }

  /// Removes it. Whoever uses it should be gone.
  func remove() async {
    await self.thaw()
    // Whoever still has a file open there does not keep it mounted.
    if (try? await self.run(self.tools.unmount, [self.path])) == nil {
      _ = try? await self.run(self.tools.unmount, ["-l", self.path])
    }
  }

  /// Removes what processes left behind that made disks and are gone. Their files are left to whoever cleans up there.
  private static func removeStale(_ tools: Tools, log: String) async {
    let mounts = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
    for line in mounts.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count > 1, let name = fields[1].split(separator: "/").last, name.hasPrefix(self.prefix),
        let owner = name.dropFirst(self.prefix.count).split(separator: "-").first.flatMap({ Int32($0) }),
        kill(owner, 0) != 0, errno == ESRCH
      else { continue }
      _ = try? await Command.run(tools.freeze, ["-u", String(fields[1])], log: log)
      _ = try? await Command.run(tools.unmount, ["-l", String(fields[1])], log: log)
    }
  }

  private func run(_ executable: String, _ arguments: [String]) async throws {
    try await Command.run(executable, arguments, log: self.log)
  }

  // MARK: What can happen to it

  private var ballast: String { "\(self.path)/ballast" }

  /// Takes all the room that is left, to the last block.
  func fill() throws {
    let file = open(self.ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw ClusterFailure("\(self.ballast) can not be made: \(errno)") }
    defer { close(file) }
    var end = off_t(0)
    // What is too much at once is asked for by halves.
    var step = off_t(64 << 20)
    while step >= 4_096 {
      let code = posix_fallocate(file, end, step)
      if code == 0 {
        end += step
      } else if code == ENOSPC {
        step /= 2
      } else if code != EINTR {
        throw ClusterFailure("\(self.ballast) can not grow: \(code)")
      }
    }
    guard fsync(file) == 0 else { throw ClusterFailure("\(self.ballast) can not be synced: \(errno)") }
  }

  /// Gives the room back that ``fill()`` took.
  func empty() throws { try FileManager.default.removeItem(atPath: self.ballast) }

  /// From now on, whoever writes or syncs there waits. Reading goes on.
  func freeze() async throws {
    try await self.run(self.tools.freeze, ["-f", self.path])
    self.isFrozen.withLock { $0 = true }
  }

  /// Lets those who wait go on. Does nothing where the disk is not frozen.
  func thaw() async {
    guard self.isFrozen.withLock({ $0 }) else { return }
    if (try? await self.run(self.tools.freeze, ["-u", self.path])) != nil { self.isFrozen.withLock { $0 = false } }
  }
}

enum DiskSupport {
  /// Whether this machine lets disks be made and frozen; says once why not.
  static var isPresent: Bool {
    get async { await Self.finding.value }
  }

  private static let finding = Task {
    guard let obstacle = await TestDisk.obstacle() else { return true }
    print("Tests with disks that fill up and hang are skipped. \(obstacle)")
    return false
  }
}
