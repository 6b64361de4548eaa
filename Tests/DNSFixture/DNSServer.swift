// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A real DNS server on the loopback interface, with records of its own.
package final class DNSServer: Sendable {
  package static let program = ["/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq", "/usr/bin/dnsmasq"]
    .first { FileManager.default.isExecutableFile(atPath: $0) }

  package let port: UInt16
  private let process: pid_t

  /// Starts it, and waits until it answers. It knows `example.test` and nothing else.
  package init(_ records: [String]) async throws {
    guard let program = Self.program else { throw DNSServerFailure(description: "there is no dnsmasq") }
    self.port = try DatagramSocket().port
    // Nothing of this machine's own configuration.
    let arguments =
      [
        program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=",
        "--port=\(self.port)", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/example.test/",
        "--user=\(NSUserName())", "--log-facility=/dev/null",
      ] + records
    var process: pid_t = 0
    var strings = arguments.map { strdup($0) } + [nil]
    defer { strings.forEach { free($0) } }
    let code = posix_spawn(&process, program, nil, nil, &strings, environ)
    guard code == 0 else { throw DNSServerFailure(description: "no dnsmasq: \(String(cString: strerror(code)))") }
    self.process = process
    for _ in 0..<1_000 {
      if self.isListening() { return }
      // It has not been waited for, so this is no other process.
      guard waitpid(process, nil, WNOHANG) == 0 else { break }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw DNSServerFailure(description: "dnsmasq does not start")
  }

  deinit { self.stop() }

  private func isListening() -> Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    address.sin_port = self.port.bigEndian
    return withUnsafeBytes(of: &address) { bytes in
      guard let start = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return false }
      return connect(descriptor, start, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
    }
  }

  private func stop() {
    // It would not hear of SIGTERM: the thread that started it may have blocked that.
    kill(self.process, SIGKILL)
    waitpid(self.process, nil, 0)
  }

}

package struct DNSServerFailure: Error, CustomStringConvertible {
  package let description: String
}
