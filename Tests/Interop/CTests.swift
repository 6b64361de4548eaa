// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing
import Trust

extension OtherLanguageTests {
  /// OpenSSL, nghttp2 and protobuf-c; no gRPC library.
  @Suite("C without a gRPC library")
  struct CTests {
    let scene: Scene

    init() throws { self.scene = try Scene.current }

    @Test("makes typed calls and reads what another language wrote, or is refused it")
    func statAndRead() async throws {
      let content = (0..<(3 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
      let path = "/c"
      try await withClient(scene.owner) { client in
        try await client.makeDirectory(path)
        try await client.write(content, to: "\(path)/file")
      }
      let client = try await self.compile()

      let found = try await self.call(client, "\(path)/file")
      #expect(found.status == 0, "\(found.errors)")
      let lines = found.output.split(separator: "\n")
      try #require(lines.count == 2, "\(found.output)")
      #expect(lines[0].hasPrefix("stat \(path)/file: 3145728 bytes, mode 0644, owner /owner, version "))
      #expect(lines[1] == "read \(path)/file: 3145728 bytes, sha256 \(Self.hexadecimal(Digest32(sha256: content)))")

      let missing = try await self.call(client, "\(path)/missing")
      #expect(missing.status == 0, "\(missing.errors)")
      #expect(
        missing.output == """
          stat \(path)/missing: grpc-status 5, There is no such file.
          read \(path)/missing: grpc-status 5, There is no such file.

          """)

      _ = try await withClient(scene.owner) { client in
        try await client.setAttributes("\(path)/file", AttributeChanges(mode: 0o600))
        try await client.setAttributes(path, AttributeChanges(mode: 0o700))
      }
      for (profile, more) in [("alice", []), ("node/profile", ["anonymous"])] {
        let denied = try await self.call(client, "\(path)/file", profile: profile, more)
        #expect(denied.status == 0, "\(denied.errors)")
        #expect(
          denied.output == """
            stat \(path)/file: grpc-status 7, You may not do this.
            read \(path)/file: grpc-status 7, You may not do this.

            """)
      }
    }

    @Test("hangs up on a process that is not the one it wants")
    func wrongName() async throws {
      let client = try await self.compile()
      let wrong = try await self.call(client, "/", name: self.scene.dnsName("/node2"))
      #expect(wrong.status == 1 && wrong.output.isEmpty)
      #expect(wrong.errors.contains("hostname mismatch"), "\(wrong.errors)")
      let foreign = try await self.call(client, "/", profile: "foreign/profile", name: self.scene.dnsName("/node1"))
      #expect(foreign.status == 1 && foreign.output.isEmpty)
      #expect(foreign.errors.contains("certificate"), "\(foreign.errors)")
    }

    private func call(
      _ client: String, _ path: String, profile: String = "node/profile", name: String? = nil, _ more: [String] = []
    ) async throws -> Program.End {
      let address = try self.scene.address
      let colon = try #require(address.lastIndex(of: ":"))
      let name = try name ?? self.scene.dnsName("/node1")
      return try await Program.run(
        client,
        [
          String(address[..<colon]), String(address[address.index(after: colon)...]), name,
          "\(self.scene.directory)/\(profile)", path,
        ] + more)
    }

    /// Generates messages from the schema and compiles the client.
    private func compile() async throws -> String {
      let directory = "\(self.scene.directory)/c"
      let client = "\(directory)/client"
      if FileManager.default.isExecutableFile(atPath: client) { return client }
      let schema = "\(directory)/schema"
      let package = "blocktree/v1"
      try FileManager.default.createDirectory(atPath: "\(schema)/\(package)", withIntermediateDirectories: true)
      var sources: [String] = []
      var schemas: [String] = []
      for name in try FileManager.default.contentsOfDirectory(atPath: "\(Installed.schema)/\(package)").sorted() {
        // protobuf-c before 1.5 does not know the word `optional` of proto3. The bytes are the same without it.
        let text = try String(contentsOfFile: "\(Installed.schema)/\(package)/\(name)", encoding: .utf8)
          .replacing("  optional ", with: "  ")
        try text.write(toFile: "\(schema)/\(package)/\(name)", atomically: true, encoding: .utf8)
        schemas.append("\(package)/\(name)")
        sources.append("\(directory)/\(package)/\(name.replacing(".proto", with: ".pb-c.c"))")
      }
      try await Program.output(
        Installed.schemaCompilerForC, ["--proto_path=\(schema)", "--c_out=\(directory)"] + schemas)
      let flags = try await Program.output(
        Installed.packageConfiguration, ["--cflags", "--libs", "libnghttp2", "libprotobuf-c", "openssl"])
      try await Program.output(
        Installed.compiler,
        ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I\(directory)", "-o", client]
          + ["\(Installed.clients)/c/client.c"] + sources + flags.split(whereSeparator: \.isWhitespace).map(String.init)
      )
      return client
    }

    private static func hexadecimal(_ digest: Digest32) -> String {
      digest.bytes.map { String(format: "%02x", $0) }.joined()
    }
  }
}
