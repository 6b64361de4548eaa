// SPDX-License-Identifier: Apache-2.0

import Foundation
import PackagePlugin

/// Turns Schema into the sources of the target that uses it: messages, gRPC stubs, and the compiled descriptor set.
///
/// It plans one command, a run of `schema-generator`. With the installed `protoc` that generates; without one it copies
/// Generated, as long as that was made from the same Schema. `PROTOC_PATH` names another `protoc`; set but empty, it
/// stands for none.
@main
struct SchemaPlugin: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    let schema = context.package.directoryURL.appending(path: "Schema")
    let committed = context.package.directoryURL.appending(path: "Generated")
    let output = context.pluginWorkDirectoryURL.appending(path: "Generated")

    let protos = try Self.files(below: schema, suffix: ".proto")
    var sources = ["DescriptorSet.swift"]
    for proto in protos {
      // The generators' own naming "PathToUnderscores".
      let name = proto.dropLast(".proto".count).replacing("/", with: "_")
      sources.append("\(name).pb.swift")
      if try Self.hasService(schema.appending(path: proto)) {
        sources.append("\(name).grpc.swift")
      }
    }

    var inputs = protos.map { schema.appending(path: $0) }
    var arguments = ["--schema", schema.path(), "--committed", committed.path(), "--output", output.path()]
    if let protoc = Self.installedProtoc() {
      let messages = try context.tool(named: "protoc-gen-swift").url
      let stubs = try context.tool(named: "protoc-gen-grpc-swift-2").url
      inputs += [messages, stubs]
      arguments += ["--protoc", protoc, "--messages", messages.path(), "--stubs", stubs.path()]
    } else {
      inputs += try Self.files(below: committed, suffix: "").map { committed.appending(path: $0) }
    }
    return [
      .buildCommand(
        displayName: "Generating \(target.name) from Schema",
        executable: try context.tool(named: "schema-generator").url,
        arguments: arguments,
        inputFiles: inputs,
        outputFiles: sources.map { output.appending(path: $0) }
      )
    ]
  }

  /// Paths relative to `directory`, sorted.
  private static func files(below directory: URL, suffix: String) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: directory.path())
      .filter { $0.hasSuffix(suffix) }
      .sorted()
  }

  /// Whether a stub file comes out of this schema file. `schema-generator` fails when the answer was wrong.
  private static func hasService(_ proto: URL) throws -> Bool {
    try String(contentsOf: proto, encoding: .utf8)
      .split(whereSeparator: \.isNewline)
      .contains { $0.hasPrefix("service ") }
  }

  private static func installedProtoc() -> String? {
    let environment = ProcessInfo.processInfo.environment
    if let path = environment["PROTOC_PATH"] { return path.isEmpty ? nil : path }
    return (environment["PATH"] ?? "").split(separator: ":")
      .map { "\($0)/protoc" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }
}
