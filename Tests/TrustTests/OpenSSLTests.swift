// SPDX-License-Identifier: Apache-2.0

import Foundation
import SwiftASN1
import Testing
import Trust
import X509

/// An ordinary TLS stack that knows nothing of our paths must come to the same answers by DNS names.
@Suite(
  "OpenSSL", .enabled(if: FileManager.default.isExecutableFile(atPath: OpenSSL.path)), .timeLimit(.minutes(5)))
struct OpenSSLTests {
  let domain: TestDomain
  let site: CertificateAuthority
  let other: CertificateAuthority
  let openssl: OpenSSL
  let key = SigningKey()

  init() throws {
    self.domain = try TestDomain()
    self.site = try self.domain.makeAuthority("/a", by: try self.domain.makeAuthority("/"))
    self.other = try self.domain.makeAuthority("/b")
    self.openssl = try OpenSSL(root: self.domain.root)
  }

  @Test("accepts a process by its DNS name, at any depth")
  func accepts() async throws {
    let deep = "/a/1/2/3/4/5/6/7/8/9/10/11"
    let site9 = try domain.makeAuthority("/a/1/2/3/4/5/6/7/8", by: site)
    for (authority, text) in [
      (domain.authority, "/n"), (site, "/a/n"), (site, "/a/ä b/%/n"), (site, deep), (site9, deep),
    ] {
      let chain = try authority.issueCredential(.process, at: path(text), key: key.verifyingKey, validity: day)
      let name = domain.place(text).dnsName
      let result = try await openssl.verify(chain, ["-verify_hostname", name, "-purpose", "sslserver", "-x509_strict"])
      #expect(result.isAccepted, "\(text): \(result.output)")
      let wrong = try await openssl.verify(chain, ["-verify_hostname", domain.place("/a/m").dnsName])
      #expect(!wrong.isAccepted && wrong.output.contains("hostname mismatch"))
      let client = try await openssl.verify(chain, ["-purpose", "sslclient", "-x509_strict"])
      #expect(client.isAccepted, "\(client.output)")
    }
  }

  @Test("accepts a user as a client and not as a server")
  func users() async throws {
    let chain = try site.issueCredential(.user, at: path("/a/u"), key: key.verifyingKey, validity: day)
    #expect(try await openssl.verify(chain, ["-purpose", "sslclient"]).isAccepted)
    #expect(try await !openssl.verify(chain, ["-purpose", "sslserver"]).isAccepted)
  }

  @Test("refuses a name that a sibling directory's authority certified")
  func sibling() async throws {
    let good = domain.place("/a/n")
    var leaf = try Forgery(good, key: key.verifyingKey, issuer: other.key)
    var result = try await openssl.verify(leaf.chain(other.chain), ["-verify_hostname", good.dnsName])
    #expect(!result.isAccepted && result.output.contains("permitted subtree violation"), "\(result.output)")
    // The same with a place of its own in the URI, which is all that OpenSSL does not look at.
    leaf.names = [.uniformResourceIdentifier(domain.place("/b/n").uri), .dnsName(good.dnsName)]
    result = try await openssl.verify(leaf.chain(other.chain), ["-verify_hostname", good.dnsName])
    #expect(!result.isAccepted && result.output.contains("permitted subtree violation"), "\(result.output)")
    // With an IP address, for those who check that instead of a name.
    leaf.names = [.dnsName(domain.place("/b/n").dnsName), .ipAddress(ASN1OctetString(contentBytes: [127, 0, 0, 1]))]
    result = try await openssl.verify(leaf.chain(other.chain), ["-verify_ip", "127.0.0.1"])
    #expect(!result.isAccepted && result.output.contains("excluded subtree violation"), "\(result.output)")
    // And by an authority in between that gives itself wider constraints.
    let between = SigningKey()
    var wide = try Forgery.authority(domain.place("/b/c"), key: between.verifyingKey, issuer: other.key)
    wide.constraints = nil
    let below = try Forgery(good, key: key.verifyingKey, issuer: between)
    result = try await openssl.verify(below.chain(wide.chain(other.chain)), ["-verify_hostname", good.dnsName])
    #expect(!result.isAccepted && result.output.contains("permitted subtree violation"), "\(result.output)")
    // What it may certify it can: the refusals above have no other reason.
    let own = try Forgery(domain.place("/b/n"), key: key.verifyingKey, issuer: other.key)
    result = try await openssl.verify(own.chain(other.chain), ["-verify_hostname", domain.place("/b/n").dnsName])
    #expect(result.isAccepted, "\(result.output)")
  }

  @Test("refuses a credential as an authority, an expired one and another domain's")
  func others() async throws {
    let chain = try site.issueCredential(.process, at: path("/a/n"), key: key.verifyingKey, validity: day)
    let below = try Forgery(domain.place("/a/n/x"), key: SigningKey().verifyingKey, issuer: key)
    #expect(try await !openssl.verify(below.chain(chain)).isAccepted)
    #expect(try await !openssl.verify(chain, at: day.notAfter + 1).isAccepted)
    let foreign = try TestDomain().authority.issueCredential(
      .process, at: path("/a/n"), key: key.verifyingKey, validity: day)
    #expect(try await !openssl.verify(foreign).isAccepted)
  }

  @Test("reads the first key of a key file")
  func keyFile() async throws {
    let keys = PrincipalKeys()
    let file = openssl.directory.path + "/principal"
    try KeyFile.create(keys, at: file)
    let result = try await openssl.run(["pkey", "-in", file, "-pubout", "-outform", "DER"])
    #expect(result.bytes == keys.signing.verifyingKey.derRepresentation)
  }
}

struct OpenSSL {
  static let path = "/usr/bin/openssl"

  struct Result {
    let bytes: [UInt8]
    let isAccepted: Bool
    var output: String { String(decoding: self.bytes, as: UTF8.self) }
  }

  let directory: TemporaryDirectory
  private let root: String

  init(root: RootCertificate) throws {
    self.directory = try TemporaryDirectory()
    self.root = self.directory.path + "/root.pem"
    try Data(root.pemRepresentation.utf8).write(to: URL(fileURLWithPath: self.root))
  }

  func verify(_ chain: CertificateChain, at time: Date = now, _ arguments: [String] = []) async throws -> Result {
    let leaf = self.directory.path + "/leaf.pem"
    let above = self.directory.path + "/above.pem"
    try Data(CertificateChain([chain.certificates[0]]).pemRepresentation.utf8).write(to: URL(fileURLWithPath: leaf))
    var untrusted: [String] = []
    if chain.certificates.count > 1 {
      let rest = try CertificateChain(Array(chain.certificates.dropFirst()))
      try Data(rest.pemRepresentation.utf8).write(to: URL(fileURLWithPath: above))
      untrusted = ["-untrusted", above]
    }
    let start = ["verify", "-no-CApath", "-no-CAstore", "-CAfile", self.root]
    return try await self.run(
      start + ["-attime", "\(Int(time.timeIntervalSince1970))"] + untrusted + arguments + [leaf])
  }

  func verify(_ chain: CertificateChain, _ arguments: [String]) async throws -> Result {
    try await self.verify(chain, at: now, arguments)
  }

  /// Runs it to its end: on a thread of its own, as reading and waiting block.
  func run(_ arguments: [String]) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      Thread.detachNewThread {
        continuation.resume(with: Swift.Result { try Self.run(arguments) })
      }
    }
  }

  private static func run(_ arguments: [String]) throws -> Result {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: Self.path)
    process.arguments = arguments
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return Result(bytes: Array(output), isAccepted: process.terminationStatus == 0)
  }
}
