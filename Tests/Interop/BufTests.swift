// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

extension OtherLanguageTests {
  /// A program that has never seen the schema, and asks the node for it.
  @Suite("buf curl")
  struct BufTests {
    let scene: Scene

    init() throws { self.scene = try Scene.current }

    @Test("learns from the node what can be called")
    func reflection() async throws {
      let services = try await self.curl(["--list-services"])
      #expect(
        services.output == """
          blocktree.v1.DiscoveryService
          blocktree.v1.FilesystemService
          blocktree.v1.RelayService
          blocktree.v1.SectorService
          grpc.health.v1.Health
          grpc.reflection.v1.ServerReflection

          """, "\(services.errors)")
      let methods = try await self.curl(["--list-methods"])
      #expect(methods.output.contains("blocktree.v1.FilesystemService/Stat\n"), "\(methods.errors)")
    }

    @Test("makes typed calls, unary and streamed, as the person and as nobody")
    func calls() async throws {
      try await withClient(self.scene.owner) { client in
        try await client.makeDirectory("/buf")
        try await client.write(Array("for buf\n".utf8), to: "/buf/file", mode: 0o600)
      }
      let health = try await self.curl([], "grpc.health.v1.Health/Check")
      #expect(try health.json([String: String].self) == ["status": "SERVING"])
      let read = ["-d", #"{"path": "/buf/file"}"#]
      let found = try await self.curl(self.person + read, "blocktree.v1.FilesystemService/Read")
      let data = Data("for buf\n".utf8).base64EncodedString()
      #expect(found.output.contains(#""data": "\#(data)""#), "\(found.errors)")

      // The exit status is eight times the status of gRPC.
      let denied = try await self.curl(read, "blocktree.v1.FilesystemService/Read")
      #expect(denied.status == 7 * 8 && denied.errors.contains("permission_denied"), "\(denied.errors)")
    }

    private var person: [String] {
      let profile = "\(self.scene.directory)/node/profile"
      return ["--cert", "\(profile)/credential.pem", "--key", "\(profile)/key.pem"]
    }

    private func curl(_ options: [String], _ call: String = "") async throws -> Program.End {
      try await Program.run(
        Installed.buf,
        [
          "curl", "--protocol", "grpc", "--cacert", "\(self.scene.directory)/node/root.pem", "--servername",
          self.scene.dnsName("/node1"),
        ] + options + ["https://\(self.scene.address)/\(call)"])
    }
  }
}
