// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A directory that receives generated files.
struct OutputDirectory {
  /// The name of the file with the serialized descriptor set.
  static let descriptorSet = "blocktree.binpb"
  /// The name of the file that records the digests of the schema files.
  static let digests = "schema.sha256"

  let directory: URL

  /// Makes the directory hold these files and no others. A file that is right already is not touched, so what was
  /// compiled from it stays valid.
  func replaceContents(with files: [String: Data]) throws {
    let manager = FileManager.default
    try manager.createDirectory(at: self.directory, withIntermediateDirectories: true)
    for name in try manager.contentsOfDirectory(atPath: self.directory.path()) where files[name] == nil {
      try manager.removeItem(at: self.directory.appending(path: name))
    }
    for (name, contents) in files {
      let file = self.directory.appending(path: name)
      if let present = try? Data(contentsOf: file), present == contents { continue }
      try contents.write(to: file, options: .atomic)
    }
  }
}

/// The committed output, which stands in where `protoc` is not installed.
struct CommittedOutput {
  let directory: URL

  /// All files by name, if they were made from `schema`.
  func files(madeFrom schema: Schema) throws -> [String: Data] {
    let manager = FileManager.default
    let record = self.directory.appending(path: OutputDirectory.digests)
    guard let recorded = try? String(contentsOf: record, encoding: .utf8) else {
      throw SchemaError.unreadableCommittedOutput(self.directory, missing: OutputDirectory.digests)
    }
    let differences = schema.differences(from: recorded)
    guard differences.isEmpty else { throw SchemaError.staleCommittedOutput(changed: differences) }

    var files: [String: Data] = [:]
    for name in try manager.contentsOfDirectory(atPath: self.directory.path()) {
      files[name] = try Data(contentsOf: self.directory.appending(path: name))
    }
    return files
  }
}
