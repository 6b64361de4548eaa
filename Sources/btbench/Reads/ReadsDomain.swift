// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeClient
internal import BlocktreeSchema
internal import Foundation
internal import Node

/// A new domain on this machine with processes in several directories, made as people make it.
struct ReadsDomain: Sendable {
  private let members: Members
  private let programs: NodePrograms
  private let home: String
  /// How many processes there are.
  private var count = 0
  /// `host:port` of the processes of each directory.
  private(set) var addresses: [String: [String]] = [:]
  /// What the first process of each directory has answered.
  private(set) var calls: [String: CallCounts] = [:]

  private static let patience = Duration.seconds(60)

  /// - Parameters:
  ///   - limit: how many processes there will be at most.
  ///   - directory: on the disk to be measured; must not exist.
  init(_ limit: Int, node: String, tool: String, directory: String) throws {
    self.members = Members(limit)
    self.programs = try NodePrograms(node: node, tool: tool, log: "\(directory)/log")
    self.home = directory
  }

  /// Where the programs' standard error goes.
  var log: String { self.programs.log }

  private func directory(_ process: Int) -> String { "\(self.home)/node\(process + 1)" }
  private var ownerProfile: String { "\(self.directory(0))/profile" }

  /// The owner's, with the processes of one directory and no others to begin with.
  func profile(startingIn directory: String) throws -> Profile {
    try Profile(contentsOf: self.ownerProfile).starting(from: self.addresses[directory] ?? [])
  }

  // MARK: Making it

  /// Makes the domain, with so many processes in the root directory, and returns when all of them vote.
  mutating func start(_ count: Int) async throws {
    try FileManager.default.createDirectory(atPath: self.home, withIntermediateDirectories: true)
    try await self.programs.makeDomain(in: self.directory(0))
    try await self.launch(in: "/")
    try await self.add(count - 1, to: "/")
  }

  /// Makes a directory, hands it to so many new processes, and returns when all of them vote.
  ///
  /// - Parameter services: their marks, with commas between.
  mutating func delegate(_ directory: String, to count: Int, services: String = "sector,filesystem") async throws {
    try await withClient(self.profile(startingIn: "/")) { _ = try await $0.makeDirectory(directory) }
    try await self.add(count, to: directory, services: services)
    try await withClient(self.profile(startingIn: "/")) { client in
      try await Self.wait(for: "\(directory) is served by a generation of its own") {
        try await client.stat(directory).servedByGeneration != nil
      }
    }
  }

  private mutating func add(_ count: Int, to directory: String, services: String = "sector,filesystem") async throws {
    for _ in 0..<count {
      let path = "\(directory == "/" ? "" : directory)/node\(self.count + 1)"
      try await self.programs.join(
        self.directory(self.count), as: path, services: services, owner: self.ownerProfile)
      try await self.launch(in: directory)
    }
    let expected = self.addresses[directory]?.count ?? 0
    try await withClient(self.profile(startingIn: "/")) { client in
      try await Self.wait(for: "all processes of \(directory) vote") {
        let members = try await client.cluster(serving: directory).status().members
        return members.count { $0.vote == .voter } == expected
          && members.allSatisfy { $0.process.hasPrefix("\(directory == "/" ? "" : directory)/node") }
      }
    }
  }

  /// Starts the next process, whose credential lies in a directory.
  private mutating func launch(in directory: String) async throws {
    let process = self.count
    let port = try await FreePort.find()
    let settings = "\(self.home)/settings-\(process + 1).json"
    try #"{"metrics": {"listen": "127.0.0.1:\#(port)"}}"#.write(toFile: settings, atomically: true, encoding: .utf8)
    let started = try self.members.start(
      process, self.programs.node, ["run", "--dir", self.directory(process), "--config", settings], log: self.log)
    guard let line = try await started.line(within: Self.patience), line.hasPrefix("ready ") else {
      throw BenchFailure("a process of \(directory) did not get ready")
    }
    let address = try NodePrograms.address(of: self.directory(process))
    self.addresses[directory, default: []].append(address)
    if self.calls[directory] == nil { self.calls[directory] = CallCounts(port: port) }
    self.count += 1
  }

  private static func wait(for what: String, _ condition: () async throws -> Bool) async throws {
    let deadline = ContinuousClock.now + Self.patience
    while true {
      do {
        if try await condition() { return }
        guard ContinuousClock.now < deadline else { throw BenchFailure("this never came true: \(what)") }
      } catch let error as BlocktreeError {
        guard ContinuousClock.now < deadline else { throw BenchFailure("this never came true: \(what): \(error)") }
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  func stop() async throws { try await self.members.stop(log: self.log) }
}
