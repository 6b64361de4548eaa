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

  private var node: String { "\(self.directory)/node" }
  private var profile: String { "\(self.node)/profile" }
  private var log: String { "\(self.directory)/node.log" }

  private static let target = "/files"
  private static let startTimeout = Duration.seconds(20)
  private static let concurrency = 8

  func run() async throws {
    let start = ContinuousClock.now
    let tree = try TourFiles.tree(self.source)
    let made = try await self.makeDomain()
    var process = try await self.start()
    try await self.store(tree)
    try await self.compare(tree, "Read everything back, and compare it byte for byte")
    try self.searchDisk(tree)
    process = try await self.crash(process, tree)
    try await self.refuseOthers(made)
    try await self.damage(tree)
    try await self.stop(process)
    let seconds = ((ContinuousClock.now - start) / .milliseconds(100)).rounded() / 10
    Output.line("\nAll of this took \(seconds) seconds.")
  }

  /// What the node's log says last, for a failure.
  var logTail: String {
    guard let text = try? String(contentsOfFile: self.log, encoding: .utf8), !text.isEmpty else { return "" }
    let lines = text.split(separator: "\n").suffix(10)
    return "\n\nThe process's log ends with:\n" + lines.joined(separator: "\n")
  }

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
    self.command("btnode init --dir \(self.node) --listen 127.0.0.1:0")
    let made = try await DomainCreation(listen: ListenAddress(host: "127.0.0.1", port: 0))
      .run(at: NodeDirectory(self.node))
    self.result("domain \(made.domain)")
    self.result("process \(made.process) at \(made.address), person \(made.user)")
    return made
  }

  private func start() async throws -> NodeProcess {
    self.title(2, "Start the process")
    return try await self.launch()
  }

  private func launch() async throws -> NodeProcess {
    self.command("btnode run --dir \(self.node)")
    let environment = ProcessInfo.processInfo.environment
      .filter { !$0.key.hasPrefix("BLOCKTREE_") }.map { "\($0.key)=\($0.value)" }
    let process = try NodeProcess(
      NodeProcess.ownExecutable, ["run", "--dir", self.node], environment: environment, log: self.log)
    guard let line = try await process.line(within: Self.startTimeout), line.hasPrefix("ready ") else {
      throw TourFailure("the process did not get ready")
    }
    self.result(line)
    return process
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

  /// Looks for pieces of the files, and for their names, in everything that the store has on the disk.
  private func searchDisk(_ tree: TourFiles.Tree) throws {
    self.title(5, "Look for the files in what is on the disk")
    let store = NodeDirectory(self.node).store(generation: 1)
    self.command("grep --recursive --text 'a line of each file' \(store)")
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
    let files = TourFiles.allFiles(store)
    guard try TourFiles.search(originals, for: patterns).count == patterns.count else {
      throw TourFailure("the search does not even find what is there")
    }
    let found = try TourFiles.search(files, for: patterns + names.map { Array($0.utf8) })
    guard found.isEmpty else {
      throw TourFailure("plaintext is on the disk: \(found.values.map { "\($0.file) at \($0.offset)" })")
    }
    self.result(
      "pieces of \(patterns.count) files, and \(names.count) file names: the originals have them all, "
        + "the store's \(files.count) files none")
  }

  private func crash(_ process: NodeProcess, _ tree: TourFiles.Tree) async throws -> NodeProcess {
    self.title(6, "Kill the process without warning, and start it again")
    self.command("kill -KILL \(process.pid)")
    process.signal(9)
    guard try await process.end(within: Self.startTimeout) != nil else { throw TourFailure("the process did not end") }
    let next = try await self.launch()
    try await self.compare(tree)
    self.result("all \(tree.files.count) files are still the same")
    return next
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

  private func damage(_ tree: TourFiles.Tree) async throws {
    self.title(8, "Change one bit on the disk")
    guard let file = tree.files.max(by: { $0.byteCount < $1.byteCount }) else { throw TourFailure("no file") }
    let path = "\(Self.target)/\(file.path)"
    let store = NodeDirectory(self.node).store(generation: 1)
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
      let place = try TourFiles.search(TourFiles.allFiles(store), for: [sealed])[0]
      guard let place else { throw TourFailure("the sector is not where it should be") }
      try TourFiles.flipBit(TourFiles.Place(file: place.file, offset: place.offset + 100))
      self.result("sector 1 of \(path) is at byte \(place.offset) of \(place.file)")
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

  private func stop(_ process: NodeProcess) async throws {
    self.title(9, "Stop the process")
    self.command("kill -TERM \(process.pid)")
    process.signal(15)
    guard try await process.end(within: Self.startTimeout) == .exited(0) else {
      throw TourFailure("the process did not stop as it should")
    }
    self.result("it finished what it had promised, wrote a checkpoint, and ended with status 0")
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
