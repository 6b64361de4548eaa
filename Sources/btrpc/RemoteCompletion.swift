// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import FoundationEssentials

extension RemotePath {
  /// The shell's tab key: names of the domain.
  static let completion = CompletionKind.custom { arguments, _, prefix in
    (try? await RemoteCompletion.candidates(for: prefix, arguments: arguments)) ?? []
  }
}

/// Finds the paths that begin with what has been typed.
private enum RemoteCompletion {
  private static let countMax = 1000

  static func candidates(for prefix: String, arguments: [String]) async throws -> [String] {
    let prefix = prefix.isEmpty ? "/" : prefix
    guard let slash = prefix.lastIndex(of: "/"), let directory = RemotePath(argument: String(prefix[...slash])) else {
      return []
    }
    let typed = prefix[prefix.index(after: slash)...]
    // The shell hands over the words as they stand, with the common options somewhere among them.
    var place = Profile.defaultDirectory(environment: ProcessInfo.processInfo.environment)
    if let option = arguments.firstIndex(of: "--profile"), option + 1 < arguments.count {
      place = arguments[option + 1]
    }
    let configuration = ClientConfiguration(timeout: .seconds(2), connectionPatience: .zero)
    return try await withClient(Profile(contentsOf: place), configuration: configuration) { client in
      var found: [String] = []
      for try await entry in client.list(directory.text) where entry.name.hasPrefix(typed) {
        found.append(directory.appending(entry.name).text + (entry.type == .directory ? "/" : ""))
        if found.count >= self.countMax { break }
      }
      return found.sorted()
    }
  }
}
