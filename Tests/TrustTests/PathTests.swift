// SPDX-License-Identifier: Apache-2.0

import Crypto
import Testing
import Trust

@Suite("A path")
struct PathTests {
  @Test("prints what was parsed", arguments: ["/", "/a", "/a/b", "/a b/c%d/…", "/.a/..b/...", "/ä/a\u{308}", "/~"])
  func roundTrip(text: String) throws {
    let parsed = try TreePath(parsing: text)
    #expect(Array(parsed.description.utf8) == Array(text.utf8))
    #expect(try TreePath(parsing: Array(text.utf8)) == parsed)
    #expect(try TreePath(parsed.components) == parsed)
    #expect(parsed.depth == parsed.components.count)
  }

  @Test(
    "is refused for a reason",
    arguments: [
      ("", PathError.empty), ("a", .notAbsolute), ("a/b", .notAbsolute), ("//", .emptyComponent),
      ("/a/", .emptyComponent), ("//a", .emptyComponent), ("/a//b", .emptyComponent), ("/.", .dotComponent),
      ("/..", .dotComponent), ("/a/../b", .dotComponent), ("/a/.", .dotComponent), ("/a\0", .nul),
      ("/" + String(repeating: "x", count: 256), .componentTooLong),
      (String(repeating: "/" + String(repeating: "x", count: 255), count: 16) + "/", .pathTooLong),
    ])
  func refused(text: String, reason: PathError) {
    #expect(throws: reason) { try TreePath(parsing: text) }
    #expect(throws: reason) { try TreePath(parsing: Array(text.utf8)) }
  }

  @Test("has at most 4,096 bytes, and components of at most 255")
  func limits() throws {
    let longest = String(repeating: "/" + String(repeating: "x", count: 255), count: 16)
    #expect(longest.utf8.count == 4096)
    let parsed = try TreePath(parsing: longest)
    #expect(parsed.depth == 16)
    #expect(throws: PathError.pathTooLong) { try parsed.appending("y") }
    #expect(throws: PathError.pathTooLong) { try TreePath(parsed.components + [PathComponent("y")]) }
  }

  @Test("is UTF-8", arguments: [[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xc3]] as [[UInt8]])
  func notUTF8(bytes: [UInt8]) {
    #expect(throws: PathError.notUTF8) { try TreePath(parsing: Array("/a/".utf8) + bytes) }
    #expect(throws: PathError.notUTF8) { try PathComponent(bytes: bytes) }
  }

  @Test("is compared by bytes: composed and decomposed letters differ")
  func bytesNotCharacters() throws {
    let composed = try TreePath(parsing: "/\u{e4}")
    let decomposed = try TreePath(parsing: "/a\u{308}")
    #expect("/\u{e4}" == "/a\u{308}")
    #expect(composed != decomposed)
    #expect(Set([composed, decomposed]).count == 2)
    #expect(try PathComponent("\u{e4}") != PathComponent("a\u{308}"))
    #expect(!(try decomposed.appending("x")).bytes.starts(with: composed.bytes))
  }

  @Test("component is refused for a reason")
  func component() {
    #expect(throws: PathError.emptyComponent) { try PathComponent("") }
    #expect(throws: PathError.slash) { try PathComponent("a/b") }
    #expect(throws: PathError.slash) { try PathComponent("/") }
    #expect(throws: PathError.dotComponent) { try PathComponent(".") }
    #expect(throws: PathError.dotComponent) { try PathComponent("..") }
    #expect(throws: PathError.nul) { try PathComponent("a\0b") }
    #expect(throws: PathError.componentTooLong) { try PathComponent(String(repeating: "ä", count: 128)) }
  }

  @Test("knows what is above and below it")
  func ancestry() {
    #expect(path("/a").isAncestor(of: path("/a/b")))
    #expect(path("/a").isAncestor(of: path("/a/b/c")))
    #expect(path("/").isAncestor(of: path("/a")))
    #expect(!path("/").isAncestor(of: path("/")))
    #expect(!path("/a").isAncestor(of: path("/a")))
    #expect(!path("/a").isAncestor(of: path("/ab")))
    #expect(!path("/a").isAncestor(of: path("/ab/c")))
    #expect(!path("/a/b").isAncestor(of: path("/a")))
    #expect(!path("/a").isAncestor(of: path("/")))
    #expect(path("/a").isSameOrAncestor(of: path("/a")))
    #expect(!path("/a").isSameOrAncestor(of: path("/ab")))
    #expect(path("/a/b/c").ancestors == [path("/"), path("/a"), path("/a/b")])
    #expect(path("/").ancestors == [])
    #expect(path("/a/b").parent == path("/a"))
    #expect(path("/a").parent == .root)
    #expect(path("/").parent == nil)
    #expect(path("/a/b").last?.description == "b")
    #expect(path("/").last == nil)
  }

  @Test("agrees with a slow and obvious model")
  func model() throws {
    var random = SeededGenerator.forTest()
    let names = ["a", "b", "ab", "a b", "ä", "%2F", "..."]
    for _ in 0..<2000 {
      let first = (0..<Int.random(in: 0...4, using: &random)).map { _ in names.randomElement(using: &random) ?? "a" }
      let second = (0..<Int.random(in: 0...4, using: &random)).map { _ in names.randomElement(using: &random) ?? "a" }
      var left = TreePath.root
      for name in first { left = try left.appending(name) }
      let right = try TreePath(parsing: "/" + second.joined(separator: "/"))
      #expect(left.description == "/" + first.joined(separator: "/"))
      #expect(left.isAncestor(of: right) == (second.count > first.count && second.starts(with: first)))
      #expect(
        left.parent == (first.isEmpty ? nil : try TreePath(parsing: "/" + first.dropLast().joined(separator: "/"))))
      #expect(left.ancestors.allSatisfy { $0.isAncestor(of: left) })
      #expect(left.ancestors.count == left.depth)
    }
  }
}

@Suite("A path in a domain")
struct DomainPathTests {
  let domain = DomainID(rootKey: SigningKey().verifyingKey)

  @Test("is printed as a URI in which other bytes than unreserved ones are encoded")
  func canonical() throws {
    let text = DomainPath(domain: domain, path: path("/a b/c%d/ä/~_-.x")).uri
    #expect(text == "bt://\(domain)/a%20b/c%25d/%C3%A4/~_-.x")
    #expect(DomainPath(domain: domain, path: .root).uri == "bt://\(domain)/")
  }

  @Test("comes back from its URI byte for byte")
  func roundTrip() throws {
    var random = SeededGenerator.forTest()
    for _ in 0..<500 {
      var components: [PathComponent] = []
      while components.count < 4, Bool.random(using: &random) || Bool.random(using: &random) {
        let scalars = (0..<Int.random(in: 1...12, using: &random)).compactMap { _ in
          Unicode.Scalar(UInt32.random(in: 1...0x2fff, using: &random))
        }
        let name = String(String.UnicodeScalarView(scalars))
        if let component = try? PathComponent(name) { components.append(component) }
      }
      let place = DomainPath(domain: domain, path: try TreePath(components))
      #expect(try DomainPath(canonical: place.uri) == place)
      #expect(try DomainPath(parsing: place.uri) == place)
      #expect(place.uri.utf8.allSatisfy { $0 < 128 && $0 > 32 })
      // What people type, without encoding, is taken too where it can not be misunderstood.
      let typed = "bt://\(domain)\(place.path)"
      // By bytes: with a combining mark behind it, `%` is another character.
      if !typed.utf8.contains(UInt8(ascii: "%")) { #expect(try DomainPath(parsing: typed) == place) }
    }
  }

  @Test(
    "has one canonical text, and no tricks",
    arguments: [
      "%61", "%2E%2E", "%2e", "a%2Fb", "a%00", "%", "%4", "%zz", "a%c3%a4", "a b", "a?b", "a#b", "ä", "%C3", "a//b",
      "a/", "a;b", "%E2%84%AA%", "..", "a/../b",
    ])
  func tricks(text: String) {
    #expect(throws: PathError.self) { try DomainPath(canonical: "bt://\(domain)/\(text)") }
  }

  @Test("does not become another place when its text is decoded leniently")
  func lenient() throws {
    #expect(try DomainPath(parsing: "bt://\(domain)/a%c3%a4 b").path == path("/aä b"))
    #expect(throws: PathError.slash) { try DomainPath(parsing: "bt://\(domain)/a%2Fb") }
    #expect(throws: PathError.dotComponent) { try DomainPath(parsing: "bt://\(domain)/%2e%2E/b") }
    #expect(throws: PathError.nul) { try DomainPath(parsing: "bt://\(domain)/a%00") }
    #expect(throws: PathError.invalidURI) { try DomainPath(parsing: "bt://\(domain)") }
    #expect(throws: PathError.invalidURI) { try DomainPath(parsing: "BT://\(domain)/") }
    #expect(throws: PathError.invalidURI) { try DomainPath(parsing: "http://\(domain)/") }
    #expect(throws: PathError.invalidURI) { try DomainPath(parsing: "bt://\(domain)a/") }
    #expect(throws: PathError.invalidDomain) { try DomainPath(parsing: "bt://\(domain.description.uppercased())/") }
    #expect(throws: PathError.invalidDomain) { try DomainPath(parsing: "bt://user@\(domain)/") }
  }

  @Test("nests its DNS names as its directories, down to any depth")
  func dnsNames() throws {
    var here = TreePath.root
    var names: [String] = []
    for depth in 0...40 {
      let name = DomainPath(domain: domain, path: here).dnsName
      #expect(name.utf8.count <= 253)
      #expect(name.split(separator: ".").allSatisfy { $0.utf8.count <= 63 })
      #expect(!names.contains(name))
      for (above, ancestor) in names.prefix(DomainPath.authorityDepthMax + 1).enumerated() where above < depth {
        #expect(name.hasSuffix("." + ancestor))
      }
      names.append(name)
      here = try here.appending("directory \(depth)")
    }
    #expect(names[0] == "\(domain).blocktree.internal")
    let sibling = DomainPath(domain: domain, path: path("/b")).dnsName
    #expect(!DomainPath(domain: domain, path: path("/a/b")).dnsName.hasSuffix(sibling))
  }
}

@Suite("A domain id")
struct DomainIDTests {
  @Test("is 52 characters that lead back to it")
  func roundTrip() throws {
    for _ in 0..<50 {
      let domain = DomainID(rootKey: SigningKey().verifyingKey)
      #expect(domain.description.count == 52)
      #expect(try DomainID(parsing: domain.description) == domain)
    }
  }

  @Test("has one text")
  func oneText() {
    let text = DomainID(digest: .zero).description
    #expect(text == String(repeating: "a", count: 52))
    // The last character carries one bit: b differs from a in bits that no byte holds.
    #expect(throws: PathError.invalidDomain) { try DomainID(parsing: text.dropLast() + "b") }
    #expect(throws: Never.self) { try DomainID(parsing: text.dropLast() + "q") }
    for wrong in [
      "", text + "a", String(text.dropLast()), text.uppercased(), text.dropLast() + "=", text.dropLast() + "1",
    ] {
      #expect(throws: PathError.invalidDomain) { try DomainID(parsing: wrong) }
    }
  }

  @Test("is the SHA-256 of the root's public key info")
  func ofKey() throws {
    let key = SigningKey().verifyingKey
    #expect(key.derRepresentation == Array(key.key.derRepresentation))
    #expect(DomainID(rootKey: key).digest == Digest32(sha256: Array(key.key.derRepresentation)))
  }
}

@Suite("A digest")
struct DigestTests {
  @Test("is SHA-256, prints as hexadecimal digits and is ordered by bytes")
  func basics() throws {
    let digest = Digest32(sha256: Array("abc".utf8))
    #expect(digest.description == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(Digest32(sha256: "abc".utf8) == digest)
    #expect(Digest32(bytes: digest.bytes) == digest)
    #expect(Digest32(bytes: digest.bytes.dropLast()) == nil)
    #expect(Digest32(bytes: digest.bytes + [0]) == nil)
    #expect(Digest32.zero < digest)
    #expect(Digest32.zero.bytes == [UInt8](repeating: 0, count: 32))
  }
}
