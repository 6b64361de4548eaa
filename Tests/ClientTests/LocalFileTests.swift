// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

@Suite("A file of this machine that comes from the domain")
struct LocalFileTests {
  private func mode(_ path: String) throws -> Int {
    try #require(FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int)
  }

  @Test(
    "gets permissions, and no bits that let others act as who fetched it", arguments: [nil, Timestamp(nanoseconds: 0)])
  func modes(modified: Timestamp?) async throws {
    try await withDirectory { directory in
      for mode: FileMode in [0o700, 0o4700, 0o2700, 0o1700, 0o7700] {
        let file = "\(directory)/file"
        try LocalFile.writeWhole([1], to: file, mode: mode, modified: modified)
        #expect(try self.mode(file) == 0o700)
        let made = "\(directory)/\(mode)"
        try LocalFile.makeDirectory(made)
        try LocalFile.setAttributes(made, mode: mode, modified: modified ?? Timestamp(nanoseconds: 0))
        #expect(try self.mode(made) == 0o700)
      }
    }
  }
}
