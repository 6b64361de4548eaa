// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import Node
internal import Transport
internal import Trust

/// Where a node's directory is.
struct DirectoryOption: ParsableArguments {
  @Option(name: [.customLong("dir"), .short], help: "The node's directory.", completion: .directory)
  var directory: String
}

/// Does what a command does with the settings that its options gave. One that is out of its bounds is wrong usage, as
/// one that can not be parsed is; the same setting in a file or in the environment is a failure.
///
/// - Parameter options: which option gave a setting, by the setting's name.
func withOptions<Result>(_ options: [String: String], _ body: () async throws -> Result) async throws -> Result {
  do {
    return try await body()
  } catch NodeError.setting(let name, let expected) {
    guard let option = options[name] else { throw NodeError.setting(name, expected: expected) }
    throw ValidationError("\(option) should be \(expected).")
  }
}

extension ListenAddress: ExpressibleByArgument {
  package init?(argument: String) {
    guard let address = try? ListenAddress(parsing: argument) else { return nil }
    self = address
  }
}

extension NetworkAddress: ExpressibleByArgument {
  package init?(argument: String) {
    guard let address = try? NetworkAddress(parsing: argument) else { return nil }
    self = address
  }
}
