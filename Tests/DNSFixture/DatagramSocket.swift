// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A UDP socket on the loopback interface.
package final class DatagramSocket: Sendable {
  package let descriptor: Int32
  package let port: UInt16

  package init(port wanted: UInt16 = 0) throws {
    self.descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    address.sin_port = wanted.bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let descriptor = self.descriptor
    let code = withUnsafeMutableBytes(of: &address) { bytes -> Int32 in
      guard let start = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return -1 }
      guard bind(descriptor, start, length) == 0 else { return -1 }
      return getsockname(descriptor, start, &length)
    }
    guard code == 0 else {
      close(descriptor)
      throw DNSServerFailure(description: "no port: \(String(cString: strerror(errno)))")
    }
    self.port = UInt16(bigEndian: address.sin_port)
  }

  deinit { close(self.descriptor) }

  /// Waits for a datagram, hands it over, and answers with what that gives. Nil ends it; so does a while without any.
  package func serve(_ answer: ([UInt8]) -> [UInt8]?) {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      var peer = sockaddr_storage()
      var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
      let reply = withUnsafeMutableBytes(of: &peer) { bytes -> [UInt8]? in
        guard let start = bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return nil }
        let count = recvfrom(self.descriptor, &buffer, buffer.count, 0, start, &length)
        guard count >= 0, let reply = answer(Array(buffer[..<count])) else { return nil }
        _ = sendto(self.descriptor, reply, reply.count, 0, start, length)
        return reply
      }
      if reply == nil { return }
    }
  }
}
