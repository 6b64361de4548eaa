// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
internal import BlocktreeClient

/// Which cluster a command is about.
package struct ClusterScope: ParsableArguments {
  @Option(
    name: [.customLong("path"), .customLong("scope")],
    help: ArgumentHelp(
      "The cluster that stores what is created in this directory (default: that of the profile's first process).",
      valueName: "path"), completion: RemotePath.completion, transform: RemotePath.parse)
  package var path: RemotePath?

  package init() {}

  func cluster(_ client: Client) async throws -> ClusterClient {
    guard let path else { return client.cluster }
    return try await about(path.text) { try await client.cluster(serving: path.text) }
  }
}
