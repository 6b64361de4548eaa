// SPDX-License-Identifier: Apache-2.0

internal import Transport
internal import Trust

#if canImport(Glibc)
  private import Glibc
#elseif canImport(Musl)
  private import Musl
#endif

/// What this machine can tell about addresses of its own.
enum LocalAddress {
  /// Below the ports that a kernel hands out to connections of its own choice: what is written down at one time has to
  /// be free at another.
  private static let choosablePorts: ClosedRange<UInt16> = 10_000...29_999
  private static let attemptsMax = 64

  /// The same address, and for port 0 a port that is free now: an address that is written down needs one.
  static func withChosenPort(_ address: ListenAddress) throws(NodeError) -> ListenAddress {
    guard address.port == 0 else { return address }
    for _ in 0..<Self.attemptsMax {
      let candidate = ListenAddress(host: address.host, port: UInt16.random(in: Self.choosablePorts))
      if try Self.isFree(candidate) { return candidate }
    }
    throw .listening("\(address)", why: "no free port was found")
  }

  private static func isFree(_ address: ListenAddress) throws(NodeError) -> Bool {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    hints.ai_flags = AI_PASSIVE
    var found: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(address.host, "\(address.port)", &hints, &found) == 0, let found else {
      throw .listening("\(address)", why: "the host is not known")
    }
    defer { freeaddrinfo(found) }
    let file = socket(
      found.pointee.ai_family, found.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), found.pointee.ai_protocol)
    guard file >= 0 else { throw OwnerFiles.failure("socket", "\(address)") }
    defer { close(file) }
    if bind(file, found.pointee.ai_addr, found.pointee.ai_addrlen) == 0 { return true }
    guard errno == EADDRINUSE || errno == EACCES else { throw OwnerFiles.failure("bind", "\(address)") }
    return false
  }

  /// What others may dial. For an address that stands for all of this machine's, that is its name.
  static func advertised(for address: ListenAddress) throws(NodeError) -> NetworkAddress {
    var host = address.host
    if host == "0.0.0.0" || host == "::" {
      var buffer = [CChar](repeating: 0, count: 256)
      guard gethostname(&buffer, buffer.count - 1) == 0 else { throw OwnerFiles.failure("gethostname", "\(address)") }
      host = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    do { return try NetworkAddress(host: host, port: address.port) } catch {
      throw .setting("advertise", expected: "HOST:PORT")
    }
  }
}
