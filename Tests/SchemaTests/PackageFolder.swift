// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The folders of the package that these tests look into.
enum PackageFolder {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  static let schema = root.appending(path: "Schema")
  static let generated = root.appending(path: "Generated")

  /// All schema files, as paths relative to the folder, sorted.
  static func schemaPaths() throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: Self.schema.path())
      .filter { $0.hasSuffix(".proto") }
      .sorted()
  }
}
