// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The schema as it is on disk.
struct Schema {
  let directory: URL
  /// All schema files, as paths relative to the directory, sorted.
  let paths: [String]
  /// Those of them that define a service.
  let pathsWithServices: [String]
  /// One line a file, as `sha256sum` prints it: `cd Schema && sha256sum -c ../Generated/schema.sha256` checks it too.
  let digests: [String: String]

  init(directory: URL) throws {
    self.directory = directory
    self.paths = try FileManager.default.subpathsOfDirectory(atPath: directory.path())
      .filter { $0.hasSuffix(".proto") }
      .sorted()
    if self.paths.isEmpty { throw SchemaError.emptySchema(directory) }

    var pathsWithServices: [String] = []
    var digests: [String: String] = [:]
    for path in self.paths {
      let contents = try Data(contentsOf: directory.appending(path: path))
      digests[path] = SHA256.hexadecimalDigest(of: contents)
      if String(decoding: contents, as: UTF8.self).split(whereSeparator: \.isNewline)
        .contains(where: { $0.hasPrefix("service ") })
      {
        pathsWithServices.append(path)
      }
    }
    self.pathsWithServices = pathsWithServices
    self.digests = digests
  }

  /// The contents of the file that records what Generated was made from.
  var digestFile: String {
    self.digests.sorted { $0.key < $1.key }.map { "\($0.value)  \($0.key)\n" }.joined()
  }

  /// The files for which `recorded`, the contents of such a file, says something else, sorted.
  func differences(from recorded: String) -> [String] {
    var others: [String: String] = [:]
    for line in recorded.split(whereSeparator: \.isNewline) {
      let fields = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
      guard fields.count == 2 else { continue }
      others[fields[1].drop { $0 == " " }.description] = String(fields[0])
    }
    return Set(self.digests.keys).union(others.keys).filter { self.digests[$0] != others[$0] }.sorted()
  }
}
