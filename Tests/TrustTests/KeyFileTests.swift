// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Trust

@Suite("A key file")
struct KeyFileTests {
  let directory: TemporaryDirectory
  let file: String
  let keys = PrincipalKeys()

  init() throws {
    self.directory = try TemporaryDirectory()
    self.file = self.directory.path + "/key"
  }

  private func mode() throws -> Int? {
    try FileManager.default.attributesOfItem(atPath: self.file)[.posixPermissions] as? Int
  }

  @Test("gives back its keys, has mode 0600, and is alone in its directory")
  func roundTrip() throws {
    try KeyFile.create(self.keys, at: self.file)
    let loaded = try KeyFile.load(from: self.file)
    #expect(loaded.signing.verifyingKey == self.keys.signing.verifyingKey)
    #expect(loaded.agreement.publicKey == self.keys.agreement.publicKey)
    #expect(try self.mode() == 0o600)
    #expect(try FileManager.default.contentsOfDirectory(atPath: self.directory.path) == ["key"])
  }

  @Test("is never overwritten, nor is what a link points to")
  func exists() throws {
    try KeyFile.create(self.keys, at: self.file)
    #expect(throws: KeyFileError.alreadyExists) { try KeyFile.create(PrincipalKeys(), at: self.file) }
    let loaded = try KeyFile.load(from: self.file)
    #expect(loaded.signing.verifyingKey == self.keys.signing.verifyingKey)
    let dangling = self.directory.path + "/dangling"
    try FileManager.default.createSymbolicLink(atPath: dangling, withDestinationPath: self.directory.path + "/target")
    #expect(throws: KeyFileError.alreadyExists) { try KeyFile.create(self.keys, at: dangling) }
    #expect(try FileManager.default.contentsOfDirectory(atPath: self.directory.path).sorted() == ["dangling", "key"])
  }

  @Test(
    "is refused when anybody else has a right to it", arguments: [0o640, 0o604, 0o660, 0o700, 0o601, 0o4600, 0o644])
  func tooOpen(mode: Int) throws {
    try KeyFile.create(self.keys, at: self.file)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: self.file)
    #expect(throws: KeyFileError.tooOpen(mode: UInt16(mode))) { try KeyFile.load(from: self.file) }
  }

  @Test("may be narrower than 0600")
  func narrower() throws {
    try KeyFile.create(self.keys, at: self.file)
    try FileManager.default.setAttributes([.posixPermissions: 0o400], ofItemAtPath: self.file)
    #expect(throws: Never.self) { try KeyFile.load(from: self.file) }
  }

  @Test("is refused when it belongs to somebody else", .enabled(if: geteuid() == 0))
  func foreignOwner() throws {
    try KeyFile.create(self.keys, at: self.file)
    #expect(chown(self.file, 65534, 65534) == 0)
    #expect(throws: KeyFileError.foreignOwner) { try KeyFile.load(from: self.file) }
  }

  @Test("is a regular file of moderate size with two keys")
  func others() throws {
    #expect(throws: KeyFileError.notFound) { try KeyFile.load(from: self.file) }
    #expect(throws: KeyFileError.notRegularFile) { try KeyFile.load(from: self.directory.path) }
    #expect(throws: KeyFileError.notFound) { try KeyFile.create(self.keys, at: self.directory.path + "/none/key") }
    let pipe = self.directory.path + "/pipe"
    #expect(mkfifo(pipe, 0o600) == 0)
    #expect(throws: KeyFileError.notRegularFile) { try KeyFile.load(from: pipe) }
    let text = self.keys.pemRepresentation
    let half = String(text[..<(text.range(of: "-----BEGIN BLOCKTREE")?.lowerBound ?? text.endIndex)])
    let wrong = [
      "", half, text + text, String(repeating: "x", count: 20_000),
      text.replacing("BEGIN PRIVATE", with: "BEGIN PUBLIC"),
    ]
    for (index, content) in wrong.enumerated() {
      let file = self.directory.path + "/wrong\(index)"
      #expect(
        FileManager.default.createFile(
          atPath: file, contents: Data(content.utf8), attributes: [.posixPermissions: 0o600]))
      #expect(throws: KeyFileError.malformed) { try KeyFile.load(from: file) }
    }
  }
}

@Suite("Keys")
struct KeyTests {
  @Test("come back from their encodings")
  func roundTrip() throws {
    let keys = PrincipalKeys()
    #expect(try SigningKey(derRepresentation: keys.signing.derRepresentation).verifyingKey == keys.signing.verifyingKey)
    let verifying = keys.signing.verifyingKey
    #expect(try VerifyingKey(derRepresentation: verifying.derRepresentation) == verifying)
    #expect(try VerifyingKey(x963Representation: verifying.x963Representation) == verifying)
    let agreement = keys.agreement.publicKey
    #expect(try AgreementPublicKey(x963Representation: agreement.x963Representation) == agreement)
    #expect(try AgreementKey(derRepresentation: keys.agreement.derRepresentation).publicKey == agreement)
    let parsed = try PrincipalKeys(pemRepresentation: keys.pemRepresentation)
    #expect(parsed.signing.verifyingKey == verifying && parsed.agreement.publicKey == agreement)
  }

  @Test("that are no points of the curve are refused")
  func invalid() {
    #expect(throws: TrustError.malformed) {
      try VerifyingKey(x963Representation: [4] + [UInt8](repeating: 1, count: 64))
    }
    #expect(throws: TrustError.malformed) { try VerifyingKey(x963Representation: []) }
    #expect(throws: TrustError.malformed) {
      try AgreementPublicKey(x963Representation: [4] + [UInt8](repeating: 1, count: 64))
    }
    #expect(throws: TrustError.malformed) { try SigningKey(derRepresentation: [1, 2, 3]) }
  }
}
