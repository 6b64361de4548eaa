// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Generates the sources of BlocktreeSchema, or takes the committed ones.
///
/// The package's plugin runs it in each build that finds Schema changed. With `--protoc` everything is made anew; without
/// it the files come from the committed directory, and only if that was made from the very same Schema. Either way the
/// output directory holds afterwards what the committed one should hold, and nothing else.
@main
struct SchemaGenerator {
  static func main() {
    do {
      let arguments = try Arguments(CommandLine.arguments.dropFirst())
      try Self.run(arguments)
    } catch {
      FileHandle.standardError.write(Data("error: \(error)\n".utf8))
      exit(1)
    }
  }

  static func run(_ arguments: Arguments) throws {
    let schema = try Schema(directory: arguments.schema)
    let files =
      if let generators = arguments.generators {
        try Generation(schema: schema, generators: generators).files()
      } else {
        try CommittedOutput(directory: arguments.committed).files(madeFrom: schema)
      }
    try OutputDirectory(directory: arguments.output).replaceContents(with: files)
  }
}

/// What the command line said.
struct Arguments {
  /// The directory with the schema, below which imports are resolved.
  let schema: URL
  /// The directory with the committed output.
  let committed: URL
  /// The directory that receives the output.
  let output: URL
  /// What generates; nil where `protoc` is not installed.
  let generators: Generators?

  struct Generators {
    let protoc: URL
    /// `protoc-gen-swift`.
    let messages: URL
    /// `protoc-gen-grpc-swift-2`.
    let stubs: URL
  }

  init(_ words: some Collection<String>) throws(SchemaError) {
    var values: [String: String] = [:]
    var rest = Array(words)[...]
    while let name = rest.popFirst() {
      guard name.hasPrefix("--"), let value = rest.popFirst() else { throw .usage("unexpected argument '\(name)'") }
      values[name] = value
    }
    func directory(_ name: String) throws(SchemaError) -> URL {
      guard let path = values.removeValue(forKey: name) else { throw .usage("\(name) is missing") }
      return URL(filePath: path, directoryHint: .isDirectory)
    }
    func tool(_ name: String) throws(SchemaError) -> URL {
      guard let path = values.removeValue(forKey: name) else { throw .usage("\(name) is missing") }
      return URL(filePath: path)
    }
    self.schema = try directory("--schema")
    self.committed = try directory("--committed")
    self.output = try directory("--output")
    self.generators =
      values["--protoc"] == nil
      ? nil
      : Generators(protoc: try tool("--protoc"), messages: try tool("--messages"), stubs: try tool("--stubs"))
    if let unknown = values.keys.sorted().first { throw .usage("unknown option '\(unknown)'") }
  }
}

/// Why nothing was generated.
enum SchemaError: Error, CustomStringConvertible {
  case usage(String)
  case emptySchema(URL)
  case unreadableCommittedOutput(URL, missing: String)
  case staleCommittedOutput(changed: [String])
  case toolFailed(String, status: Int32)

  var description: String {
    switch self {
    case .usage(let problem):
      """
      \(problem)
      usage: schema-generator --schema DIR --committed DIR --output DIR [--protoc FILE --messages FILE --stubs FILE]
      """
    case .emptySchema(let directory):
      "there is no .proto file below \(directory.path())"
    case .unreadableCommittedOutput(let directory, let missing):
      """
      protoc is not installed, and \(directory.path()) can not be used instead: it has no \(missing). \
      \(Self.remedy)
      """
    case .staleCommittedOutput(let changed):
      """
      protoc is not installed, and Generated was made from another Schema (differs: \(changed.joined(separator: ", "))). \
      \(Self.remedy)
      """
    case .toolFailed(let tool, let status):
      "\(tool) failed with status \(status)"
    }
  }

  private static let remedy = "Install protoc (Debian: apt-get install protobuf-compiler), then run `make generate`."
}
