// SPDX-License-Identifier: Apache-2.0

import Inodes
import Sectors
import Synchronization
import Testing
import Trust

@testable import Filesystem

private func path(_ text: String) -> TreePath { TestDomain.path(text) }

@Suite("Taking a directory back from its cluster", .timeLimit(.minutes(5)))
struct DrainTests {
  /// Some of each kind.
  static func fill(_ site: TestSite, largeByteCount: Int = 3 << 20) async throws {
    let filesystem = site.siteFilesystem
    let request = filesystem.asOwner
    try await filesystem.put("/site/empty", [])
    try await filesystem.put("/site/small", [1, 2, 3], mode: 0o640)
    try await filesystem.put("/site/middle", pattern(1, 70_000))
    try await filesystem.put("/site/large", pattern(2, largeByteCount + 5))
    try await filesystem.makeDirectory("/site/d", mode: 0o750)
    try await filesystem.makeDirectory("/site/d/e")
    try await filesystem.makeDirectory("/site/d/none", mode: 0o700)
    for number in 0..<70 { try await filesystem.put("/site/d/e/f\(number)", [UInt8(number)]) }
    _ = try await filesystem.makeLink(path("/site/small"), as: path("/site/d/link"), request)
    _ = try await filesystem.makeLink(path("/site/d/e/f1"), as: path("/site/d/e/again"), request)
    _ = try await filesystem.makeSymbolicLink(path("/site/d/up"), target: Array("../small".utf8), request)
    _ = try await filesystem.makeSymbolicLink(path("/site/out"), target: Array("/elsewhere".utf8), request)
    _ = try await filesystem.truncate(path("/site/d/hole"), creating: filesystem, to: 400_000)
    var change = AttributeChange()
    change.modified = 1_000_000_000
    change.accessed = 2_000_000_000
    _ = try await filesystem.setAttributes(path("/site/middle"), follow: false, change, request)
    change.access = [AccessEntry(.principal(path("/ann")), [.read, .write])]
    _ = try await filesystem.setAttributes(path("/site/d/e"), follow: false, change, request)
    let ann = try TestDomain.issue(
      .user, "/site/d/ann", PrincipalKeys(), [], by: site.domain.authority, serial: 1)
    _ = try await filesystem.addCredential(ann.bytes, request)
  }

  @Test("keeps every kind of inode as it was, and has the cluster above store it")
  func everything() async throws {
    try await TestSite.with(before: { root in
      try await root.put("/site/old", [9])
      try await root.put("/elsewhere", [8])
    }) { site in
      try await Self.fill(site)
      let image = try await site.image(by: site.siteFilesystem)
      #expect(image.nodes["/site/small"]?.links == 2)
      #expect(site.root.credentials.entry(path("/site/d/ann")) == nil)
      let file = try await site.rootFilesystem.checkDrain(TestSite.path, for: TestDomain.owner).file
      #expect(try await file == site.directory)
      let progress = try await site.drain()
      try await site.expectTakenBack(image)
      let figures = progress.figures
      #expect(figures.inodesDone == figures.inodesTotal)
      #expect(figures.bytesDone == figures.bytesTotal)
      #expect(figures.bytesTotal > 3 << 20)
      for name in image.nodes.keys {
        let info = try await site.rootFilesystem.stat(path(name), follow: false, for: TestDomain.owner)
        #expect(info.fileID.generation == .root, "\(name)")
      }
      // One file with two names is one still.
      func id(_ text: String) async throws -> FileID {
        try await site.rootFilesystem.stat(path(text), follow: false, for: TestDomain.owner).fileID
      }
      #expect(try await id("/site/small") == id("/site/d/link"))
      #expect(try await id("/site/d/e/f1") == id("/site/d/e/again"))
      #expect(site.root.credentials.entry(path("/site/d/ann")) != nil)
      // And it goes on, by whichever service.
      for (number, filesystem) in [site.rootFilesystem, site.siteFilesystem].enumerated() {
        try await filesystem.put("/site/new\(number)", [7])
        try await filesystem.put("/site/d/new\(number)", [7])
        try await filesystem.move("/site/new\(number)", to: "/site/d/moved\(number)")
        #expect(try await filesystem.get("/site/d/moved\(number)") == [7])
        #expect(try await filesystem.get("/site/d/up") == [1, 2, 3])
      }
      // Nothing keeps the process any more.
      try await site.rootFilesystem.remove("/site/nas1")
      #expect(try await !site.rootFilesystem.names("/site").contains("nas1"))
      await #expect(throws: FilesystemError.drainRefused(.notDelegated)) {
        try await site.rootFilesystem.checkDrain(TestSite.path, for: TestDomain.owner)
      }
      // To do it again does nothing.
      _ = try await site.rootFilesystem.drain(TestSite.path, file, from: nil, try await site.progress())
    }
  }

  @Test("goes on with whoever comes next, wherever it was broken off")
  func brokenOff() async throws {
    // How many commits there are.
    var count = 0
    try await Self.withSmallSite { site, image in
      let breaker = Breaker(after: .max)
      breaker.install(in: site.rootFilesystem)
      try await site.drain()
      count = breaker.passed
      try await site.expectTakenBack(image)
    }
    #expect(count >= 6)
    var retiredCount = 0
    for number in 0..<count {
      try await Self.withSmallSite { site, image in
        Breaker(after: number).install(in: site.rootFilesystem)
        await #expect(throws: FilesystemError.self, "\(number)") { try await site.drain() }
        // What was there can be read, unless its cluster is retired: then it is to be repeated.
        if site.site.freeze == .retired {
          retiredCount += 1
          do {
            #expect(try await site.image(by: site.siteFilesystem) == image, "\(number)")
          } catch {
            #expect(error as? FilesystemError == .sector(.frozen(TestSite.generation)), "\(number)")
          }
        } else {
          #expect(site.site.freeze == .open, "\(number)")
          #expect(try await site.image(by: site.siteFilesystem) == image, "\(number)")
          try await site.siteFilesystem.put("/site/between", [4])
          try await site.siteFilesystem.remove("/site/between")
        }
        try await site.drain(by: try await site.anotherRootFilesystem())
        var expected = image
        // The directory "d" is as it was.
        if let node = image.nodes["/site/d"] { expected.nodes["/site/d"] = node }
        try await site.expectTakenBack(expected)
      }
    }
    #expect(retiredCount > 0)
    #expect(retiredCount < count)
  }

  private static func withSmallSite(_ body: (TestSite, TestSite.Image) async throws -> Void) async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.put("/site/a", [1])
      try await filesystem.makeDirectory("/site/d")
      try await filesystem.put("/site/d/large", pattern(3, 600_000))
      _ = try await filesystem.makeLink(path("/site/a"), as: path("/site/d/link"), filesystem.asOwner)
      let ann = try TestDomain.issue(.user, "/site/d/ann", PrincipalKeys(), [], by: site.domain.authority, serial: 1)
      _ = try await filesystem.addCredential(ann.bytes, filesystem.asOwner)
      try await body(site, try await site.image(by: filesystem))
    }
  }

  @Test("keeps the copies for as long as they are all that there is, also when the directory is not found at its path")
  func notFound() async throws {
    try await Self.withSmallSite { site, image in
      // The commit that switches over is the first one behind the retirement that is not one of the copies.
      var left = 0
      while site.site.freeze != .retired {
        Breaker(after: left).install(in: site.rootFilesystem)
        await #expect(throws: FilesystemError.self) { try await site.drain() }
        left += 1
      }
      let file = try await site.directory
      let progress = TaskProgress(
        TaskRecord(kind: .drain, path: path("/elsewhere"), file: file, holder: nil, started: 1))
      #expect(progress.start())
      await #expect(throws: FilesystemError.drainRefused(.noKey)) {
        try await site.rootFilesystem.drain(path("/elsewhere"), file, from: nil, progress)
      }
      try await site.drain(by: try await site.anotherRootFilesystem())
      try await site.expectTakenBack(image)
    }
  }

  @Test("is thawed when its cluster can not be retired")
  func unreachable() async throws {
    try await Self.withSmallSite { site, image in
      // Freezing is the first thing that the cluster is asked for; the second is retiring, the third thawing.
      site.siteGate.close(after: 1)
      await #expect(throws: FilesystemError.self) { try await site.drain() }
      #expect(site.site.freeze == .frozen)
      await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
        try await site.siteFilesystem.put("/site/b", [2])
      }
      #expect(try await site.image(by: site.siteFilesystem) == image)
      site.siteGate.open()
      try await site.drain()
      try await site.expectTakenBack(image)
    }
  }

  @Test("follows what changes between passes: contents, sizes, names, links, attributes, removals")
  func passes() async throws {
    try await TestSite.with { site in
      try await Self.fill(site, largeByteCount: 1 << 20)
      let filesystem = site.siteFilesystem
      let request = filesystem.asOwner
      var pass = try await site.pass()
      try await pass.run(.contents)
      try await pass.run(.contents)
      #expect(pass.isClean)
      let changes: [(String, () async throws -> Void)] = [
        ("a small content", { try await filesystem.put("/site/d/e/f3", [9, 9]) }),
        (
          "in place",
          {
            _ = try await filesystem.write([5, 5][...], to: path("/site/large"), at: 500_000, request)
          }
        ),
        ("shorter", { _ = try await filesystem.truncate(path("/site/large"), to: 300_001, request) }),
        ("longer", { _ = try await filesystem.truncate(path("/site/large"), to: 2_000_000, request) }),
        ("tiny", { _ = try await filesystem.truncate(path("/site/large"), to: 3, request) }),
        ("large again", { try await filesystem.put("/site/large", pattern(7, 700_000)) }),
        ("a renamed file", { try await filesystem.move("/site/d/e/f4", to: "/site/d/renamed") }),
        ("a renamed directory", { try await filesystem.move("/site/d/e", to: "/site/d/moved") }),
        ("a directory into another", { try await filesystem.move("/site/d/moved", to: "/site/d/none/e") }),
        ("a file over another", { try await filesystem.move("/site/d/none/e/f5", to: "/site/d/none/e/f6") }),
        (
          "a directory in the place of a file",
          {
            try await filesystem.remove("/site/d/none/e/f7")
            try await filesystem.makeDirectory("/site/d/none/e/f7")
            try await filesystem.put("/site/d/none/e/f7/x", [1])
          }
        ),
        (
          "a file in the place of a directory",
          {
            try await filesystem.remove("/site/d/none/e/f7/x")
            try await filesystem.remove("/site/d/none/e/f7")
            try await filesystem.put("/site/d/none/e/f7", [2])
          }
        ),
        (
          "a directory that changes places with its parent",
          {
            try await filesystem.makeDirectory("/site/d/p")
            try await filesystem.makeDirectory("/site/d/p/q")
            try await filesystem.put("/site/d/p/q/x", [1])
            try await pass.run(.contents)
            try await filesystem.move("/site/d/p/q", to: "/site/d/q")
            try await filesystem.move("/site/d/p", to: "/site/d/q/p")
          }
        ),
        ("a removed link", { try await filesystem.remove("/site/d/link") }),
        (
          "another link",
          {
            _ = try await filesystem.makeLink(path("/site/small"), as: path("/site/d/third"), request)
          }
        ),
        (
          "attributes",
          {
            var change = AttributeChange()
            change.mode = Mode(truncating: 0o604)
            change.modified = 5
            _ = try await filesystem.setAttributes(path("/site/small"), follow: false, change, request)
          }
        ),
        (
          "a removed tree",
          {
            for name in try await filesystem.names("/site/d/none/e") {
              try await filesystem.remove("/site/d/none/e/\(name)")
            }
            try await filesystem.remove("/site/d/none/e")
          }
        ),
      ]
      for (name, change) in changes {
        try await change()
        var passCount = 0
        repeat {
          try await pass.run(.contents)
          passCount += 1
        } while !pass.isClean && passCount < 5
        #expect(pass.isClean, "\(name)")
        var image = try await site.image(by: filesystem)
        // The copy of a credential file would count.
        #expect(image.nodes.removeValue(forKey: "/site/d/ann") != nil)
        #expect(try await site.stagedImage() == image, "\(name)")
      }
      // Another service finds which copy is whose.
      var other = try await site.pass()
      try await other.run(.contents)
      #expect(other.isClean)
      let image = try await site.image(by: filesystem)
      try await site.drain()
      try await site.expectTakenBack(image)
    }
  }

  @Test("loses nothing that was acknowledged, and shows nobody anything old, while it is written and read all the time")
  func load() async throws {
    try await TestSite.with { site in
      for number in 0..<4 {
        try await site.siteFilesystem.put("/site/w\(number)", [0, 0])
        try await site.siteFilesystem.makeDirectory("/site/d\(number)")
      }
      try await site.siteFilesystem.put("/site/large", pattern(4, 5 << 20))
      let load = Load()
      let other = try await site.anotherSiteFilesystem()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<4 {
          let filesystem = number.isMultiple(of: 2) ? site.siteFilesystem : other
          group.addTask {
            var value: UInt16 = 0
            while !load.isDone.load(ordering: .relaxed) || value < 10 {
              value += 1
              let bytes = [UInt8(value >> 8), UInt8(value & 0xFF)]
              _ = try await Self.patiently { try await filesystem.put("/site/w\(number)", bytes) }
              load.acknowledged.withLock { $0[number] = value }
              _ = try await Self.patiently { try await filesystem.put("/site/d\(number)/\(value)", bytes) }
              if value > 3 { try await Self.patiently { try await filesystem.remove("/site/d\(number)/\(value - 3)") } }
            }
          }
          group.addTask {
            while !load.isDone.load(ordering: .relaxed) {
              let before = load.acknowledged.withLock { $0[number] } ?? 0
              let bytes = try await Self.patiently { try await other.get("/site/w\(number)") }
              let value = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
              #expect(value >= before)
              await Task.yield()
            }
          }
        }
        group.addTask {
          defer { load.isDone.store(true, ordering: .relaxed) }
          try await Task.sleep(for: .milliseconds(50))
          for attempt in 1... {
            do {
              try await site.drain()
              return
            } catch FilesystemError.contended where attempt < 5 {}
          }
        }
        try await group.waitForAll()
      }
      let root = try await site.anotherRootFilesystem()
      for (number, value) in load.acknowledged.withLock({ $0 }) {
        let bytes = [UInt8(value >> 8), UInt8(value & 0xFF)]
        #expect(try await root.get("/site/w\(number)") == bytes)
        let names = Set(try await root.names("/site/d\(number)"))
        #expect(names == Set((0..<3).map { "\(Int(value) - $0)" }), "\(number)")
      }
      #expect(try await root.get("/site/large") == pattern(4, 5 << 20))
      try await site.expectTakenBack(try await site.image(by: root))
    }
  }

  /// As clients do: what was refused as its cluster is frozen is done again.
  private static func patiently<Result>(_ body: () async throws -> Result) async throws -> Result {
    while true {
      do { return try await body() } catch FilesystemError.sector(.frozen) {
        try await Task.sleep(for: .milliseconds(2))
      }
    }
  }

  @Test("can be given up until its cluster is retired, and begun again")
  func cancelled() async throws {
    try await Self.withSmallSite { site, image in
      let file = try await site.directory
      Breaker(after: 2).install(in: site.rootFilesystem)
      await #expect(throws: FilesystemError.self) { try await site.drain() }
      #expect(try await site.rootFilesystem.names("/").contains { $0.hasPrefix(".drain") })
      Breaker(after: .max).install(in: site.rootFilesystem)
      try await site.site.setFreeze(.frozen, by: path("/node1"))
      try await site.rootFilesystem.cancelDrain(TestSite.path, file)
      #expect(site.site.freeze == .open)
      #expect(try await !site.rootFilesystem.names("/").contains { $0.hasPrefix(".drain") })
      #expect(try await site.image(by: site.siteFilesystem) == image)
      try await site.siteFilesystem.put("/site/b", [2])
      let later = try await site.image(by: site.siteFilesystem)
      try await site.drain()
      try await site.expectTakenBack(later)
      await #expect(throws: FilesystemError.drainRefused(.finishing)) {
        try await site.rootFilesystem.cancelDrain(TestSite.path, file)
      }
    }
    try await Self.withSmallSite { site, _ in
      let file = try await site.directory
      try await site.site.setFreeze(.frozen, by: path("/node1"))
      try await site.site.setFreeze(.retired, by: path("/node1"))
      await #expect(throws: FilesystemError.drainRefused(.finishing)) {
        try await site.rootFilesystem.cancelDrain(TestSite.path, file)
      }
    }
  }

  @Test("is refused where it is not to be had, and to whoever has no say in it")
  func refused() async throws {
    try await Self.withSmallSite { site, _ in
      let root = site.rootFilesystem
      try await root.makeDirectory("/plain")
      await #expect(throws: FilesystemError.drainRefused(.notDelegated)) {
        try await root.checkDrain(path("/plain"), for: TestDomain.owner)
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await root.checkDrain(TestSite.path, for: .principal(path("/ann")))
      }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await root.checkDrain(TestSite.path, for: .anonymous)
      }
      // Those of the directory itself send callers to those above.
      await #expect {
        try await site.siteFilesystem.checkDrain(TestSite.path, for: TestDomain.owner)
      } throws: { error in
        guard case FilesystemError.redirected(let to) = error else { return false }
        return to.directory == .root
      }
      // Whoever has the key of "/" would have that of the copies.
      let node = try site.domain.identity.path
      _ = try await root.grant(TestSite.path, to: .principal(node), .read, withKey: true, root.asOwner)
      _ = try await root.cutOff(TestSite.path, true, root.asOwner)
      await #expect(throws: FilesystemError.drainRefused(.noKey)) {
        try await root.checkDrain(TestSite.path, for: TestDomain.owner)
      }
      await #expect(throws: FilesystemError.drainRefused(.noKey)) { try await site.drain() }
      #expect(site.site.freeze == .open)
      _ = try await root.cutOff(TestSite.path, false, root.asOwner)
      let nested = try TestDomain.issue(
        .process, "/site/d/nas9", PrincipalKeys(), [.sector], by: site.domain.authority, serial: 1)
      _ = try await site.siteFilesystem.addCredential(nested.bytes, site.siteFilesystem.asOwner)
      await #expect(throws: FilesystemError.drainRefused(.nested)) {
        try await root.checkDrain(TestSite.path, for: TestDomain.owner)
      }
      await #expect(throws: FilesystemError.drainRefused(.nested)) { try await site.drain() }
      #expect(site.site.freeze == .open)
    }
  }

  @Test("leaves where copies lie to the processes above, and takes nothing for it that somebody else has made")
  func staging() async throws {
    try await Self.withSmallSite { site, image in
      let name = "/.drain-\(try await site.directory.inode)"
      try await site.rootFilesystem.makeDirectory(name, mode: 0o700)
      try await site.rootFilesystem.put(name + "/mine", [1])
      await #expect(throws: FilesystemError.alreadyExists) { try await site.drain() }
      #expect(try await site.rootFilesystem.get(name + "/mine") == [1])
      try await site.rootFilesystem.remove(name + "/mine")
      try await site.rootFilesystem.remove(name)
      Breaker(after: 3).install(in: site.rootFilesystem)
      await #expect(throws: FilesystemError.self) { try await site.drain() }
      await #expect(throws: FilesystemError.permissionDenied) { try await site.rootFilesystem.get(name + "/a") }
      await #expect(throws: FilesystemError.permissionDenied) { try await site.rootFilesystem.names(name) }
      await #expect(throws: FilesystemError.permissionDenied) {
        try await site.rootFilesystem.move(name, to: "/mine")
      }
      try await site.drain(by: try await site.anotherRootFilesystem())
      try await site.expectTakenBack(image)
    }
  }

  @Test("has no step over two clusters completed that had begun before its cluster was frozen")
  func crossing() async throws {
    try await Self.withSmallSite { site, image in
      // Somebody stops for long between the first commit of a step and the second one.
      let filesystem = try await site.anotherSiteFilesystem()
      let place = try await filesystem.place(of: path("/site/late"), for: TestDomain.owner, follow: false)
      let directory = try #require(place.parent)
      let file = try await filesystem.numbers.next(in: site.site)
      var edit = Edit(filesystem, caller: TestDomain.owner)
      try await edit.open(directory)
      var content = ContentPart(
        fileID: file, version: 1, sectorSize: 4_096, contentID: Filesystem.randomContentID(), modified: edit.time)
      content.directoryFormat = DirectoryContent.format
      try edit.create(
        DirectoryEntry(name: try PathComponent("late"), fileID: file, type: .directory, key: .random()), in: directory,
        content: content, mode: Mode(truncating: 0o755), owner: path("/owner"))
      let parted = try edit.parted()
      _ = try #require(await filesystem.mark(parted.others, of: directory.fileID, for: edit))
      var own = parted.own
      let sealed = try await own.sealDirectories()
      let prepared = Edit.Prepared(commit: try own.sign(), directories: sealed)
      try await site.site.setFreeze(.frozen, by: path("/node1"))
      try await site.drain()
      #expect(try await filesystem.commit(prepared, of: own) == nil)
      // Nor does it go on with what it has marked.
      var again = Edit(filesystem, caller: TestDomain.owner)
      try await again.open(directory)
      await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
        try await filesystem.mark(parted.others, of: directory.fileID, for: again)
      }
      try await site.expectTakenBack(image)
    }
  }
}

/// What goes on in a test.
private final class Load: Sendable {
  /// Whether that is over which the others go on beside.
  let isDone = Atomic<Bool>(false)
  /// By writer, the last value that is known to be written.
  let acknowledged = Mutex<[Int: UInt16]>([:])
  /// Names that are known to be there.
  let answered = Mutex<Set<String>>([])
}

@Suite("A generation that is frozen")
struct FreezeTests {
  @Test("takes no commit, answers reads and repetitions, and is thawed or retired only by whoever may")
  func rules() async throws {
    try await TestSite.with { site in
      let (node1, node2) = (path("/node1"), path("/node2"))
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      let session = try await site.site.openSession(owner: path("/owner"))
      let request = Request(caller: TestDomain.owner, operation: OperationID(session: session, sequence: 1))
      try await filesystem.put("/site/d/a", [1], as: request)
      await #expect(throws: SectorError.invalid(field: "state")) { try await site.site.setFreeze(.retired, by: node1) }
      try await site.site.setFreeze(.frozen, by: node1)
      await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
        try await filesystem.put("/site/d/b", [1])
      }
      #expect(try await filesystem.get("/site/d/a") == [1])
      // What was done is answered.
      try await filesystem.put("/site/d/a", [1], as: request)
      // Another one has followed.
      try await site.site.setFreeze(.frozen, by: node2)
      await #expect(throws: SectorError.invalid(field: "state")) { try await site.site.setFreeze(.retired, by: node1) }
      try await site.site.setFreeze(.open, by: node1)
      try await filesystem.put("/site/d/b", [1])
      try await site.site.setFreeze(.frozen, by: node2)
      try await site.site.setFreeze(.retired, by: node2)
      try await site.site.setFreeze(.retired, by: node1)
      for state in [FreezeState.open, .frozen] {
        await #expect(throws: SectorError.invalid(field: "state")) { try await site.site.setFreeze(state, by: node2) }
      }
      await #expect(throws: FilesystemError.sector(.frozen(TestSite.generation))) {
        try await filesystem.get("/site/d/a")
      }
      await #expect(throws: SectorError.invalid(field: "generation")) {
        try await site.root.setFreeze(.frozen, by: node1)
      }
      // Who is above, and who is not.
      #expect(site.site.isFilesystemAbove(try site.domain.identity))
      #expect(!site.site.isFilesystemAbove(site.siteFilesystem.identity))
    }
  }

  @Test("has every commit that was answered before, and none that is answered later")
  func race() async throws {
    try await TestSite.with { site in
      let filesystem = site.siteFilesystem
      try await filesystem.makeDirectory("/site/d")
      let load = Load()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for writer in 0..<8 {
          group.addTask {
            for number in 0..<200 {
              let wasFrozen = load.isDone.load(ordering: .acquiring)
              do {
                try await filesystem.put("/site/d/\(writer)-\(number)", [1])
                #expect(!wasFrozen)
                _ = load.answered.withLock { $0.insert("\(writer)-\(number)") }
              } catch FilesystemError.sector(.frozen) {
                return
              }
            }
          }
        }
        group.addTask {
          try await Task.sleep(for: .milliseconds(30))
          try await site.site.setFreeze(.frozen, by: path("/node1"))
          load.isDone.store(true, ordering: .releasing)
        }
        try await group.waitForAll()
      }
      #expect(Set(try await filesystem.names("/site/d")) == load.answered.withLock { $0 })
    }
  }
}

extension TestSite {
  fileprivate func pass() async throws -> DrainPass {
    let place = try await self.rootFilesystem.place(of: Self.path, for: TestDomain.owner, follow: false)
    let directory = try #require(place.found).state
    self.rootFilesystem.volumes.note(Self.generation, serving: Self.path, directory.fileID)
    let target = try await DrainStaging(filesystem: self.rootFilesystem, directory: directory.fileID).make()
    return DrainPass(
      self.rootFilesystem, of: directory, generation: Self.generation, to: target, try await self.progress())
  }

  /// The copies, under the names that they will have.
  fileprivate func stagedImage() async throws -> Image {
    let root = self.rootFilesystem
    let target = try await DrainStaging(filesystem: root, directory: try await self.directory).make()
    var image = Image()
    func add(_ directory: InodeState, _ text: String) async throws {
      for entry in try await root.knownDirectory(directory).directory?.all.map(\.self) ?? [] {
        let state = try await root.state(of: entry)
        let known = try #require(await root.known(state))
        var tree = known.tree
        let part = known.record.content.part
        let bytes =
          state.type == .directory
          ? []
          : try await root.content.read(
            0..<part.size, of: part, tree: &tree, key: state.key, version: known.record.version)
        let info = FileInfo(known.record)
        let name = "\(text)/\(entry.name)"
        image.nodes[name] = Image.Node(
          type: info.type, bytes: bytes, rules: info.rules,
          times: [info.modified, info.changed, info.accessed, info.created], links: info.linkCount)
        if state.type == .directory { try await add(state, name) }
      }
    }
    try await add(target, "/site")
    return image
  }
}

extension Filesystem {
  /// Makes a file that is nothing but a hole.
  fileprivate func truncate(_ path: TreePath, creating filesystem: Filesystem, to size: UInt64) async throws -> FileInfo
  {
    try await self.put("\(path)", [])
    return try await self.truncate(path, to: size, self.asOwner)
  }
}
