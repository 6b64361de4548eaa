// SPDX-License-Identifier: Apache-2.0

import Crypto
import Foundation
import Testing

@Suite("Generated")
struct GeneratedTests {
  @Test("was made from Schema as it is")
  func digests() throws {
    let lines = try PackageFolder.schemaPaths().map { path in
      let contents = try Data(contentsOf: PackageFolder.schema.appending(path: path))
      let digest = SHA256.hash(data: contents).map { byte in
        let digits = String(byte, radix: 16)
        return digits.count == 1 ? "0\(digits)" : digits
      }
      return "\(digest.joined())  \(path)\n"
    }
    let recorded = try String(contentsOf: PackageFolder.generated.appending(path: "schema.sha256"), encoding: .utf8)
    #expect(recorded == lines.joined(), "run `make generate`")
  }
}

@Suite("schema-generator, where protoc is not installed,", .timeLimit(.minutes(5)))
struct SchemaGeneratorTests {
  @Test("takes the committed files, leaves alone those that are right, and removes all others")
  func takesCommittedFiles() async throws {
    try await withWorkspace { workspace in
      let first = try await workspace.generate()
      #expect(first.status == 0, "\(first.errors)")
      let output = try workspace.contents(of: "output")
      #expect(output == (try workspace.contents(of: "Generated")))
      #expect(output.keys.contains("blocktree_v1_sector.grpc.swift"))

      let stale = workspace.url("output/of_a_removed_file.pb.swift")
      try Data().write(to: stale)
      let untouched = workspace.url("output/blocktree_v1_types.pb.swift")
      let changed = workspace.url("output/blocktree_v1_inode.pb.swift")
      try Data("changed".utf8).write(to: changed)
      let old = Date(timeIntervalSince1970: 1_000_000)
      try FileManager.default.setAttributes([.modificationDate: old], ofItemAtPath: untouched.path())

      #expect(try await workspace.generate().status == 0)
      #expect(try workspace.contents(of: "output") == output)
      let date = try FileManager.default.attributesOfItem(atPath: untouched.path())[.modificationDate] as? Date
      #expect(date == old)
    }
  }

  @Test("refuses them when a schema file changed, came or went, and says which")
  func refusesStaleFiles() async throws {
    try await withWorkspace { workspace in
      let types = workspace.url("Schema/blocktree/v1/types.proto")
      let contents = try Data(contentsOf: types)
      try (contents + Data("// One more line.\n".utf8)).write(to: types)
      let changed = try await workspace.generate()
      #expect(changed.status == 1)
      #expect(changed.errors.hasPrefix("error: protoc is not installed"))
      #expect(changed.errors.contains("(differs: blocktree/v1/types.proto)"))
      #expect(changed.errors.contains("make generate"))
      #expect(!FileManager.default.fileExists(atPath: workspace.url("output").path()))

      try contents.write(to: types)
      #expect(try await workspace.generate().status == 0)

      try Data("syntax = \"proto3\";\n".utf8).write(to: workspace.url("Schema/blocktree/v1/another.proto"))
      let added = try await workspace.generate()
      #expect(added.status == 1)
      #expect(added.errors.contains("(differs: blocktree/v1/another.proto)"))

      try FileManager.default.removeItem(at: workspace.url("Schema/blocktree/v1/another.proto"))
      try FileManager.default.removeItem(at: types)
      let removed = try await workspace.generate()
      #expect(removed.status == 1)
      #expect(removed.errors.contains("(differs: blocktree/v1/types.proto)"))
    }
  }

  @Test("says what to do when there are no committed files")
  func needsCommittedFiles() async throws {
    try await withWorkspace { workspace in
      try FileManager.default.removeItem(at: workspace.url("Generated"))
      let result = try await workspace.generate()
      #expect(result.status == 1)
      #expect(result.errors.contains("it has no schema.sha256"))
      #expect(result.errors.contains("apt-get install protobuf-compiler"))
    }
  }

  @Test("refuses a command line that it does not understand", arguments: [["--shema", "x"], ["--schema"], ["x"]])
  func refusesUnknownArguments(_ arguments: [String]) async throws {
    try await withWorkspace { workspace in
      let result = try await workspace.generate(arguments)
      #expect(result.status == 1)
      #expect(result.errors.contains("usage: schema-generator"))
    }
  }
}

@Suite("schema-generator, with protoc,", .timeLimit(.minutes(5)))
struct SchemaGeneratorWithProtocTests {
  @Test("fails and changes nothing when protoc does")
  func protocFails() async throws {
    try await withWorkspace { workspace in
      #expect(try await workspace.generate().status == 0)
      let before = try workspace.contents(of: "output")
      let result = try await workspace.generate(["--protoc", "--messages", "--stubs"].flatMap { [$0, "/bin/false"] })
      #expect(result.status == 1)
      #expect(result.errors == "error: /bin/false failed with status 1\n")
      #expect(try workspace.contents(of: "output") == before)
    }
  }
}

/// A folder with copies of Schema and Generated, in which the generator is run as the build runs it.
private struct Workspace {
  let root: URL

  func url(_ path: String) -> URL { self.root.appending(path: path) }

  /// The files directly in a folder, by name.
  func contents(of folder: String) throws -> [String: Data] {
    let url = self.url(folder)
    var contents: [String: Data] = [:]
    for name in try FileManager.default.contentsOfDirectory(atPath: url.path()) {
      contents[name] = try Data(contentsOf: url.appending(path: name))
    }
    return contents
  }

  func generate(_ more: [String] = []) async throws -> (status: Int32, errors: String) {
    let generator = try #require(Self.generator, "schema-generator was not built")
    let arguments =
      ["--schema", self.url("Schema").path(), "--committed", self.url("Generated").path()]
      + ["--output", self.url("output").path()] + more
    return try await withCheckedThrowingContinuation { continuation in
      // Waiting for a process blocks: not on a thread that tasks share.
      Thread.detachNewThread { continuation.resume(with: Result { try Self.run(generator, arguments) }) }
    }
  }

  private static func run(_ program: URL, _ arguments: [String]) throws -> (status: Int32, errors: String) {
    let process = Process()
    process.executableURL = program
    process.arguments = arguments
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    let text = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: text, as: UTF8.self))
  }

  /// The build puts it beside the test bundle.
  private static let generator: URL? = [
    URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent(),
    PackageFolder.root.appending(path: ".build/debug"),
    PackageFolder.root.appending(path: ".build/release"),
  ]
  .lazy
  .map { $0.appending(path: "schema-generator") }
  .first { FileManager.default.isExecutableFile(atPath: $0.path()) }
}

private func withWorkspace(_ body: (Workspace) async throws -> Void) async throws {
  let manager = FileManager.default
  let root = manager.temporaryDirectory.appending(path: "schema-tests-\(UUID().uuidString)")
  try manager.createDirectory(at: root, withIntermediateDirectories: true)
  defer { try? manager.removeItem(at: root) }
  try manager.copyItem(at: PackageFolder.schema, to: root.appending(path: "Schema"))
  try manager.copyItem(at: PackageFolder.generated, to: root.appending(path: "Generated"))
  try await body(Workspace(root: root))
}
