// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Where the programs and files are that these tests use. What is missing fails the test: interoperability that was
/// not tested is not known.
enum Installed {
  private static let package = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

  static var schema: String { self.package.appending(path: "Schema").path() }
  static var readme: String { self.package.appending(path: "README.md").path() }
  static var clients: String { self.package.appending(path: "Tests/Interop").path() }

  static var openssl: String { get throws { try self.find(["/usr/bin/openssl"], install: "apt-get install openssl") } }
  static var compiler: String { get throws { try self.find(["/usr/bin/gcc"], install: "apt-get install gcc") } }
  static var packageConfiguration: String {
    get throws { try self.find(["/usr/bin/pkg-config"], install: "apt-get install pkg-config") }
  }
  static var schemaCompilerForC: String {
    get throws { try self.find(["/usr/bin/protoc-c"], install: "apt-get install protobuf-c-compiler") }
  }

  /// The interpreter that has the packages of scripts/requirements.txt.
  static var python: String {
    get throws {
      let named = ProcessInfo.processInfo.environment["BLOCKTREE_PYTHON"]
      let own = self.package.appending(path: ".build/python/bin/python").path()
      return try self.find([named ?? own], install: "scripts/install-python")
    }
  }

  /// Of scripts/requirements.txt, too.
  static var buf: String {
    get throws {
      let place = try URL(filePath: self.python).deletingLastPathComponent().appending(path: "buf").path()
      return try self.find([place], install: "scripts/install-python")
    }
  }

  /// An executable of this package: beside the tests, or where the build has put it.
  static func product(_ name: String) throws -> String {
    let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let folders =
      [URL(filePath: own).deletingLastPathComponent()]
      + ["debug", "release"].map { self.package.appending(path: ".build/\($0)") }
    return try self.find(folders.map { $0.appending(path: name).path() }, install: "swift build --product \(name)")
  }

  private static func find(_ places: [String], install command: String) throws -> String {
    try #require(
      places.first { FileManager.default.isExecutableFile(atPath: $0) },
      "\(places.joined(separator: " or ")) is missing: \(command)")
  }
}
