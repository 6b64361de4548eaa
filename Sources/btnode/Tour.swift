// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Foundation
internal import NIOPosix
internal import Node
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// The steps of `btnode demo`. Each prints what a person would type, does just that, and checks what came of it.
struct Tour: Sendable {
  /// Everything happens in here.
  let directory: String
  /// The directory tree that is stored.
  let source: String

  /// One of the processes.
  private struct Member {
    let path: String
    let directory: String
    let log: String
    var process: NodeProcess
  }

  private var profile: String { "\(self.directory)/node1/profile" }

  private static let target = "/files"
  private static let startTimeout = Duration.seconds(30)
  private static let concurrency = 8
  private static let memberCount = 3
  /// The directory that is handed to a cluster of its own, and the process that serves it.
  private static let site = "/site-b"
  private static let siteName = "nas1"
  /// What is being written when the leader dies.
  private static let largeByteCount = 48 << 20

  func run() async throws {
    let start = ContinuousClock.now
    let tree = try TourFiles.tree(self.source)
    let made = try await self.makeDomain()
    var members = [try await self.start(made)]
    for number in 2...Self.memberCount {
      members.append(try await self.addProcess("/node\(number)", named: "node\(number)"))
    }
    try await self.awaitVoters()
    try await self.store(tree)
    try await self.compare(tree, "Read everything back, and compare it byte for byte")
    try self.searchDisks(tree, members)
    try await self.killLeader(&members, tree)
    try await self.refuseOthers(made)
    let site = try await self.delegate(members)
    try await self.damage(tree, members)
    try await self.stop([site] + members)
    let seconds = ((ContinuousClock.now - start) / .milliseconds(100)).rounded() / 10
    Output.line("\nAll of this took \(seconds) seconds.")
  }

  /// What the nodes' logs say last, for a failure.
  var logTail: String {
    var text = ""
    for name in (1...Self.memberCount).map({ "node\($0)" }) + [Self.siteName] {
      guard let log = try? String(contentsOfFile: self.log(name), encoding: .utf8), !log.isEmpty else { continue }
      let lines = log.split(separator: "\n").suffix(10)
      text += "\n\nThe log of process \(name) ends with:\n" + lines.joined(separator: "\n")
    }
    return text
  }

  private func log(_ name: String) -> String { "\(self.directory)/\(name).log" }

  // MARK: Printing

  private func title(_ number: Int, _ text: String) { Output.line("\n\(number). \(text)\n") }

  private func command(_ text: String) { Output.line("   $ \(text)") }

  private func result(_ text: String) { Output.line("   \(text)") }

  private static func megabytes(_ byteCount: Int) -> String {
    byteCount < 1_000_000
      ? "\((byteCount + 500) / 1_000) kB" : "\(Double(byteCount / 100_000) / 10) MB"
  }

  // MARK: Steps

  private func makeDomain() async throws -> DomainCreation.Result {
    self.title(1, "Make a domain: a root principal, this machine's process, and a person who owns it")
    let node = "\(self.directory)/node1"
    self.command("btnode init --dir \(node) --listen 127.0.0.1:0")
    let made = try await DomainCreation(listen: ListenAddress(host: "127.0.0.1", port: 0)).run(at: NodeDirectory(node))
    self.result("domain \(made.domain)")
    self.result("process \(made.process) at \(made.address), person \(made.user)")
    return made
  }

  private func start(_ made: DomainCreation.Result) async throws -> Member {
    self.title(2, "Start the process, and have two more join it")
    let directory = "\(self.directory)/node1"
    let process = try self.launch(directory, log: self.log("node1"))
    let member = Member(path: made.process.description, directory: directory, log: self.log("node1"), process: process)
    try await self.awaitReady(member)
    return member
  }

  private func launch(_ directory: String, log: String) throws -> NodeProcess {
    self.command("btnode run --dir \(directory)")
    let environment = ProcessInfo.processInfo.environment
      .filter { !$0.key.hasPrefix("BLOCKTREE_") }.map { "\($0.key)=\($0.value)" }
    return try NodeProcess(
      NodeProcess.ownExecutable, ["run", "--dir", directory], environment: environment, log: log)
  }

  private func awaitReady(_ member: Member) async throws {
    guard let line = try await member.process.line(within: Self.startTimeout), line.hasPrefix("ready ") else {
      throw TourFailure("the process \(member.path) did not get ready")
    }
    self.result(line)
  }

  /// As two machines do it: one makes its keys and asks, the other certifies it.
  private func addProcess(_ path: String, named name: String) async throws -> Member {
    let directory = "\(self.directory)/\(name)"
    self.command("btnode request --dir \(directory) --listen 127.0.0.1:0 > \(name).request")
    let enrollment = Enrollment(NodeDirectory(directory))
    let request = try await enrollment.request(listen: ListenAddress(host: "127.0.0.1", port: 0), advertise: nil)
    self.command(
      "btrpc process add \(path) --services sector,filesystem --request \(name).request > \(name).join")
    let package = try await self.withPerson { client in
      try await client.issueCredential(
        .process(services: ["sector", "filesystem"]), at: path, request: request, lifetime: .seconds(86_400))
    }
    if let process = package.newProcess { try Profile.add(process, in: self.profile) }
    self.command("btnode join --dir \(directory) --credential \(name).join")
    _ = try enrollment.join(package)
    let process = try self.launch(directory, log: self.log(name))
    let member = Member(path: path, directory: directory, log: self.log(name), process: process)
    try await self.awaitReady(member)
    return member
  }

  /// Waits until all processes decide together.
  private func awaitVoters() async throws {
    self.command("btrpc --profile \(self.profile) cluster status")
    let end = ContinuousClock.now + Self.startTimeout
    while true {
      let overview = try await self.withPerson { try await $0.cluster.overview() }
      let voters = overview.view.members.filter { $0.vote == .voter }
      if overview.hasLeader, voters.count == Self.memberCount {
        let leader = overview.view.leader.process
        for voter in voters { self.result("\(voter.process)  \(voter.process == leader ? "leader" : "follower")") }
        return
      }
      guard ContinuousClock.now < end else { throw TourFailure("the processes did not come together") }
      try await Task.sleep(for: .milliseconds(50))
    }
  }

  private func store(_ tree: TourFiles.Tree) async throws {
    self.title(3, "Store a directory tree, over mutual TLS")
    self.command("btrpc --profile \(self.profile) put --recursive \(self.source) \(Self.target)")
    let clock = ContinuousClock.now
    try await self.withPerson { client in
      try await client.makeDirectory(Self.target)
      for path in tree.directories { try await client.makeDirectory("\(Self.target)/\(path)") }
      try await Self.forEach(tree.files) { file in
        try await client.upload(fromFile: "\(self.source)/\(file.path)", to: "\(Self.target)/\(file.path)")
      }
    }
    let milliseconds = Int((ContinuousClock.now - clock) / .milliseconds(1))
    self.result(
      "\(tree.files.count) files in \(tree.directories.count + 1) directories, \(Self.megabytes(tree.byteCount)), "
        + "durable on the disk after \(milliseconds) ms")
    self.command("btrpc --profile \(self.profile) ls \(Self.target)")
    try await self.withPerson { client in
      var names: [String] = []
      for try await entry in client.list(Self.target) { names.append(entry.name) }
      self.result(names.sorted().prefix(8).joined(separator: "  ") + (names.count > 8 ? "  …" : ""))
    }
  }

  private func compare(_ tree: TourFiles.Tree, _ title: String) async throws {
    self.title(4, title)
    self.command("btrpc --profile \(self.profile) get --recursive \(Self.target) copy && diff -r \(self.source) copy")
    try await self.compare(tree)
    self.result("\(tree.files.count) files are the same")
  }

  private func compare(_ tree: TourFiles.Tree) async throws {
    try await self.withPerson { client in
      try await Self.forEach(tree.files) { file in
        let original = try TourFiles.read("\(self.source)/\(file.path)")
        let stored = try await client.readAll("\(Self.target)/\(file.path)").bytes
        guard stored == original else { throw TourFailure("\(file.path) is not what was stored") }
      }
    }
  }

  /// Looks for pieces of the files, and for their names, in everything that the stores have on the disk.
  private func searchDisks(_ tree: TourFiles.Tree, _ members: [Member]) throws {
    self.title(5, "Look for the files in what is on the disks")
    self.command("grep --recursive --text 'a line of each file' \(self.directory)/node*/generation-1")
    var patterns: [[UInt8]] = []
    var originals: [String] = []
    for file in tree.files where file.byteCount >= 64 && patterns.count < 100 {
      let bytes = try TourFiles.read("\(self.source)/\(file.path)")
      let middle = max(bytes.count / 2 - 16, 0)
      let piece = Array(bytes[middle..<min(middle + 32, bytes.count)])
      guard Set(piece).count > 8 else { continue }
      patterns.append(piece)
      originals.append("\(self.source)/\(file.path)")
    }
    let names = tree.files.compactMap { $0.path.split(separator: "/").last }.filter { $0.utf8.count >= 8 }.prefix(100)
    let files = members.flatMap { TourFiles.allFiles(NodeDirectory($0.directory).store(generation: 1)) }
    guard try TourFiles.search(originals, for: patterns).count == patterns.count else {
      throw TourFailure("the search does not even find what is there")
    }
    let found = try TourFiles.search(files, for: patterns + names.map { Array($0.utf8) })
    guard found.isEmpty else {
      throw TourFailure("plaintext is on the disk: \(found.values.map { "\($0.file) at \($0.offset)" })")
    }
    self.result(
      "pieces of \(patterns.count) files, and \(names.count) file names: the originals have them all, "
        + "the \(files.count) files of the three stores none")
  }

  /// The process that leads, by its place in the list.
  private func leader(_ members: [Member]) async throws -> Int {
    let leader = try await self.withPerson { try await $0.cluster.overview().view.leader.process }
    guard let index = members.firstIndex(where: { $0.path == leader }) else {
      throw TourFailure("nobody leads")
    }
    return index
  }

  private func killLeader(_ members: inout [Member], _ tree: TourFiles.Tree) async throws {
    self.title(6, "Kill the leader without warning, in the middle of a write")
    let large = "\(self.directory)/large"
    try TourFiles.writeRandom(Self.largeByteCount, to: large)
    let target = "\(Self.target)/large"
    let index = try await self.leader(members)
    let victim = members[index]
    self.command("btrpc --profile \(self.profile) put \(large) \(target) &")
    let start = ContinuousClock.now
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask {
        try await self.withPerson { client in _ = try await client.upload(fromFile: large, to: target) }
      }
      // Some of it is there by then.
      try await Task.sleep(for: .milliseconds(400))
      self.command("kill -KILL \(victim.process.pid)    # \(victim.path), which leads")
      victim.process.signal(9)
      guard try await victim.process.end(within: Self.startTimeout) != nil else {
        throw TourFailure("the process did not end")
      }
      try await group.waitForAll()
    }
    let milliseconds = Int((ContinuousClock.now - start) / .milliseconds(1))
    let next = try await self.leader(members)
    self.result(
      "\(Self.megabytes(Self.largeByteCount)) written all the same, after \(milliseconds) ms; "
        + "\(members[next].path) leads now")
    try await self.compare(tree)
    let isSame = try await self.withPerson { client in
      try await client.readAll(target).bytes == TourFiles.read(large)
    }
    guard isSame else { throw TourFailure("the large file is not what was written") }
    self.result("it and all \(tree.files.count) other files are what was stored")
    members[index].process = try self.launch(victim.directory, log: victim.log)
    try await self.awaitReady(members[index])
    try await self.awaitVoters()
  }

  private func refuseOthers(_ made: DomainCreation.Result) async throws {
    self.title(7, "Come without a certificate, and with one of another domain")
    let path = "\(Self.target)/secret"
    try await self.withPerson { client in
      _ = try await client.write(Array("for my eyes only\n".utf8), to: path, mode: 0o600)
    }
    let profile = try Profile(contentsOf: self.profile)
    self.command("btrpc --profile \(self.profile) --anonymous cat \(path)")
    try await self.refused(.permissionDenied) {
      _ = try await withClient(profile.anonymous) { try await $0.readAll(path) }
    }
    self.command("btrpc --profile \(self.profile) --anonymous put note \(Self.target)/note")
    try await self.refused(.permissionDenied) {
      _ = try await withClient(profile.anonymous) { try await $0.write([1], to: "\(Self.target)/note") }
    }
    self.command("btrpc --profile another-domain/profile --address \(made.address) ls /")
    try await self.dialAsForeigner(made)
    self.result("refused: the process did not accept the certificate in the TLS handshake")
  }

  private func refused(_ code: BlocktreeError.Code, _ body: () async throws -> Void) async throws {
    do {
      try await body()
    } catch let error as BlocktreeError where error.code == code {
      self.result("refused: \(error)")
      return
    }
    throw TourFailure("that should have been refused")
  }

  /// Dials with a certificate for the person's path, but from another domain's root.
  private func dialAsForeigner(_ made: DomainCreation.Result) async throws {
    let key = SigningKey()
    let foreign = try CertificateAuthority(newRoot: SigningKey(), at: .now)
    let chain = try foreign.issueCredential(
      .user, at: made.user, key: key.verifyingKey, validity: Validity(from: .now, lifetime: .seconds(3_600)))
    let security = try TransportSecurity(
      root: try Profile(contentsOf: self.profile).root,
      identity: TransportSecurity.Identity(chain: chain, key: key))
    do {
      _ = try await Dialer(security, group: .singletonMultiThreadedEventLoopGroup)
        .withConnection(to: made.address) { _ in }
    } catch TransportError.handshakeFailed {
      return
    }
    throw TourFailure("the foreign certificate was accepted")
  }

  /// What is made in the directory from then on is stored by the new process, and found through the others.
  private func delegate(_ members: [Member]) async throws -> Member {
    self.title(8, "Hand a directory to a process of its own")
    let (old, new) = ("\(Self.site)/before.txt", "\(Self.site)/after.txt")
    self.command("btrpc --profile \(self.profile) mkdir \(Self.site)")
    try await self.withPerson { client in
      try await client.makeDirectory(Self.site)
      try await client.write(Array("Here before.\n".utf8), to: old)
    }
    let member = try await self.addProcess("\(Self.site)/\(Self.siteName)", named: Self.siteName)
    // The profile names the other three processes, and nothing else: they say where to go on.
    self.command("echo 'Stored elsewhere.' | btrpc --profile \(self.profile) put - \(new)")
    let bytes = Array("Stored elsewhere.\n".utf8)
    try await withClient(self.profile(startingFrom: members)) { client in
      _ = try await client.write(bytes, to: new)
    }
    try await withClient(self.profile(startingFrom: members)) { client in
      guard try await client.readAll(new).bytes == bytes else { throw TourFailure("\(new) is not what was stored") }
      for path in [old, new] {
        self.command("btrpc --profile \(self.profile) stat \(path)")
        self.result("generation \(try await client.stat(path).id.generation)")
      }
      let generations = (try await client.stat(old).id.generation, try await client.stat(new).id.generation)
      guard generations == (1, 2) else { throw TourFailure("the files are stored by the wrong clusters") }
    }
    return member
  }

  private func profile(startingFrom members: [Member]) throws -> Profile {
    let paths = Set(members.map(\.path))
    let profile = try Profile(contentsOf: self.profile)
    let points = profile.startingPoints.filter { $0.path.map { paths.contains($0.description) } ?? false }
    return try profile.starting(from: points.map { "\($0.address)" })
  }

  private func damage(_ tree: TourFiles.Tree, _ members: [Member]) async throws {
    self.title(9, "Change one bit on each disk")
    guard let file = tree.files.max(by: { $0.byteCount < $1.byteCount }) else { throw TourFailure("no file") }
    let path = "\(Self.target)/\(file.path)"
    try await self.withPerson { client in
      let info = try await client.stat(path)
      let sealed = try await client.sectors.readSectors(
        info.id,
        runs: [
          Blocktree_V1_SectorRun.with {
            $0.start = 1; $0.count = 1
          }
        ]
      ) { blocks in
        var bytes: [UInt8] = []
        for try await message in blocks { for block in message.blocks { bytes += Array(block.bytes) } }
        return bytes
      }
      for member in members {
        let store = NodeDirectory(member.directory).store(generation: 1)
        // The log may have it, too, and nobody reads it there any more.
        let place = try TourFiles.search(TourFiles.allFiles("\(store)/data"), for: [sealed])[0]
        guard let place else { throw TourFailure("the sector is not where it should be") }
        try TourFiles.flipBit(TourFiles.Place(file: place.file, offset: place.offset + 100))
        self.result("sector 1 of \(path) is at byte \(place.offset) of \(place.file)")
      }
      self.command("btrpc --profile \(self.profile) cat \(path)")
      do {
        try await client.read(path) { file in for try await _ in file {} }
      } catch let error as BlocktreeError where error.code == .dataLoss {
        self.result("refused: \(error)")
        return
      }
      throw TourFailure("the damage went unnoticed")
    }
  }

  private func stop(_ members: [Member]) async throws {
    self.title(10, "Stop the processes")
    for member in members {
      self.command("kill -TERM \(member.process.pid)    # \(member.path)")
      member.process.signal(15)
      guard try await member.process.end(within: Self.startTimeout) == .exited(0) else {
        throw TourFailure("the process \(member.path) did not stop as it should")
      }
    }
    self.result("each handed over what it led, wrote a checkpoint, and ended with status 0")
  }

  // MARK: Helpers

  private func withPerson<Result>(_ body: (Client) async throws -> Result) async throws -> Result {
    try await withClient(Profile(contentsOf: self.profile), body)
  }

  /// A few at a time.
  private static func forEach<Item: Sendable>(
    _ items: [Item], _ body: @escaping @Sendable (Item) async throws -> Void
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (count, item) in items.enumerated() {
        if count >= Self.concurrency { try await group.next() }
        group.addTask { try await body(item) }
      }
      try await group.waitForAll()
    }
  }
}
