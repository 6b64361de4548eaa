// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Node

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// One large file from nginx to curl over TLS 1.3: the bar for bulk transfers.
struct TLSYardstick: Sendable {
  let scale: Scale
  /// Made, and removed after use.
  let directory: String

  private var log: String { "\(self.directory)/log" }

  func measure(_ figures: inout Figures) async throws {
    let files = FileManager.default
    try files.createDirectory(atPath: "\(self.directory)/www", withIntermediateDirectories: true)
    defer { try? files.removeItem(atPath: self.directory) }
    try self.makeFile()
    _ = try await Program.run(
      "openssl",
      [
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
        "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "\(self.directory)/key.pem", "-out",
        "\(self.directory)/certificate.pem",
      ], log: self.log)
    let port = try await FreePort.find()
    try self.configuration(port: port).write(
      toFile: "\(self.directory)/nginx.conf", atomically: true, encoding: .utf8)
    let server = try Program.start(
      "nginx", ["-c", "\(self.directory)/nginx.conf", "-p", self.directory, "-e", "\(self.directory)/error.log"],
      log: self.log)
    defer { server.signal(SIGTERM) }
    // Waits for the server, and brings the file into memory.
    _ = try await self.fetch(port, suite: Self.suites[0].suite)
    for (name, suite) in Self.suites { figures.add(name, try await self.fetch(port, suite: suite) / 1e6, "MB/s") }
    server.signal(SIGTERM)
    _ = try await server.end(within: .seconds(10))
  }

  private static let suites = [
    (name: "tls.aes-128-gcm", suite: "TLS_AES_128_GCM_SHA256"),
    (name: "tls.aes-256-gcm", suite: "TLS_AES_256_GCM_SHA384"),
  ]

  /// Bytes per second.
  private func fetch(_ port: Int, suite: String) async throws -> Double {
    let lines = try await Program.run(
      "curl",
      [
        "--silent", "--show-error", "--fail", "--retry", "10", "--retry-delay", "1", "--retry-connrefused", "--cacert",
        "\(self.directory)/certificate.pem", "--tls13-ciphers", suite, "--output", "/dev/null", "--write-out",
        "%{speed_download}\\n", "https://127.0.0.1:\(port)/file",
      ], log: self.log)
    guard let speed = lines.last.flatMap({ Double($0) }) else { throw BenchFailure("curl reported no speed") }
    return speed
  }

  private func makeFile() throws {
    let file = "\(self.directory)/www/file"
    guard FileManager.default.createFile(atPath: file, contents: nil), let handle = FileHandle(forWritingAtPath: file)
    else { throw BenchFailure("\(file) can not be made") }
    defer { try? handle.close() }
    let piece = Data(Noise.bytes(1 << 20))
    for _ in 0..<self.scale.transferByteCount / piece.count { try handle.write(contentsOf: piece) }
  }

  private func configuration(port: Int) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map { "  \($0)_temp_path \(self.directory)/\($0);" }.joined(separator: "\n")
    return """
      worker_processes 2;
      daemon off;
      pid \(self.directory)/nginx.pid;
      error_log \(self.directory)/error.log;
      \(getuid() == 0 ? "user root;" : "")
      events { worker_connections 64; }
      http {
        access_log off;
        sendfile off;
        output_buffers 2 128k;
      \(temporary)
        server {
          listen 127.0.0.1:\(port) ssl;
          ssl_protocols TLSv1.3;
          ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384;
          ssl_certificate \(self.directory)/certificate.pem;
          ssl_certificate_key \(self.directory)/key.pem;
          ssl_buffer_size 16k;
          root \(self.directory)/www;
        }
      }
      """
  }
}

/// Bytes that nothing can compress, the same each time.
enum Noise {
  static func bytes(_ count: Int) -> [UInt8] {
    var state: UInt64 = 0x9E37_79B9_7F4A_7C15
    return (0..<count).map { _ in
      // xorshift64
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return UInt8(truncatingIfNeeded: state >> 32)
    }
  }
}
