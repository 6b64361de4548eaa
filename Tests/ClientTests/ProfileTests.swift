// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing
import Trust

@Suite("A profile")
struct ProfileTests {
  let domain: TestDomain

  init() throws {
    self.domain = try TestDomain()
  }

  private func problem(_ directory: String) -> ProfileError.Problem? {
    do throws(ProfileError) {
      _ = try Profile(contentsOf: directory)
      return nil
    } catch {
      return error.problem
    }
  }

  private func mode(_ path: String) throws -> Int? {
    try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
  }

  private func setMode(_ mode: Int, _ path: String) throws {
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
  }

  @Test("is read as it was written")
  func roundTrip() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      let profile = try Profile(contentsOf: place)
      #expect(profile.domain == self.domain.authority.domain.description)
      #expect(profile.path == "/people/ann")
      #expect(profile.startingPoints.map { "\($0.address)" } == ["127.0.0.1:7001", "[::1]:7001"])
      #expect(profile.startingPoints.allSatisfy { $0.path?.description == "/node1" })
      #expect(profile.authority != nil)
      #expect(try #require(profile.expires) > .now)
      #expect(profile.anonymous.path == nil)
    }
  }

  @Test("is for its owner alone, from the moment that it exists")
  func modes() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      #expect(try self.mode(place) == 0o700)
      for name in try FileManager.default.contentsOfDirectory(atPath: place) {
        #expect(try self.mode("\(place)/\(name)") == 0o600, "\(name)")
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["profile"])
    }
  }

  @Test("is refused when others could read or change it")
  func tooOpen() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      try self.setMode(0o750, place)
      #expect(self.problem(place) == .tooOpen(mode: 0o750))
      try self.setMode(0o700, place)
      try self.setMode(0o640, "\(place)/key.pem")
      #expect(self.problem(place) == .tooOpen(mode: 0o640))
      try self.setMode(0o600, "\(place)/key.pem")
      try self.setMode(0o604, "\(place)/authority-key.pem")
      #expect(self.problem(place) == .tooOpen(mode: 0o604))
    }
  }

  @Test("says which file is missing or damaged", arguments: ["root.pem", "key.pem", "credential.pem", "profile.json"])
  func damaged(name: String) async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      let file = "\(place)/\(name)"
      try Data("nonsense".utf8).write(to: URL(fileURLWithPath: file))
      try self.setMode(0o600, file)
      guard case .malformed? = self.problem(place) else {
        Issue.record("\(String(describing: self.problem(place)))")
        return
      }
      try FileManager.default.removeItem(atPath: file)
      #expect(self.problem(place) == .missing)
      let error = #expect(throws: ProfileError.self) { try Profile(contentsOf: place) }
      #expect(error?.path == file)
    }
  }

  @Test("that does not exist is missing, and a file is none")
  func missing() async throws {
    try await withDirectory { directory in
      #expect(self.problem("\(directory)/nothing") == .missing)
      try Data().write(to: URL(fileURLWithPath: "\(directory)/file"))
      #expect(self.problem("\(directory)/file") == .wrongKind)
    }
  }

  @Test("of a newer version is refused, with its number")
  func newer() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      try Data(#"{"version": 2, "hosts": {}}"#.utf8).write(to: URL(fileURLWithPath: "\(place)/profile.json"))
      #expect(self.problem(place) == .newerVersion(2))
    }
  }

  @Test("with a credential that has expired, or for another key, is refused")
  func untrusted() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(
        at: place, validity: Validity(notBefore: .now - 7200, notAfter: .now - 3600))
      guard case .untrusted(let why)? = self.problem(place) else {
        Issue.record("\(String(describing: self.problem(place)))")
        return
      }
      #expect(why.contains("expired"))

      let other = "\(directory)/other"
      try self.domain.makeProfile(at: other)
      try FileManager.default.removeItem(atPath: "\(other)/key.pem")
      try KeyFile.create(PrincipalKeys(), at: "\(other)/key.pem")
      guard case .untrusted? = self.problem(other) else {
        Issue.record("\(String(describing: self.problem(other)))")
        return
      }
    }
  }

  @Test("is never written over another one")
  func existing() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      let before = try Data(contentsOf: URL(fileURLWithPath: "\(place)/key.pem"))
      let error = #expect(throws: ProfileError.self) { try self.domain.makeProfile(at: place) }
      #expect(error?.problem == .alreadyExists)
      #expect(try Data(contentsOf: URL(fileURLWithPath: "\(place)/key.pem")) == before)
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["profile"])
    }
  }

  @Test("without key and credential is anonymous")
  func anonymous() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try Profile.create(
        at: place, root: self.domain.authority.root, credential: nil, keys: nil, path: nil,
        processes: [Profile.Process(path: "/node1", addresses: ["localhost:1"])])
      let profile = try Profile(contentsOf: place)
      #expect(profile.path == nil)
      #expect(profile.expires == nil)
    }
  }

  @Test("can be started from other addresses, where any process may answer")
  func otherAddresses() async throws {
    let root = self.domain.authority.root.pemRepresentation
    let profile = try Profile(anonymousWithRoot: root, processes: [])
    let moved = try profile.starting(from: ["example.org:7"])
    #expect(moved.startingPoints.map(\.path) == [nil])
    #expect(throws: ProfileError.self) { try profile.starting(from: ["example.org"]) }
    #expect(throws: BlocktreeError.self) { try Client(profile) }
  }

  @Test("is looked for where the environment says, then in the home directory")
  func defaultDirectory() {
    #expect(Profile.defaultDirectory(environment: ["BLOCKTREE_PROFILE": "/p", "HOME": "/h"]) == "/p")
    #expect(Profile.defaultDirectory(environment: ["HOME": "/h"]) == "/h/.config/blocktree")
  }
}

@Suite("A profile that is requested and joined")
struct ProfileJoiningTests {
  @Test("is complete when the package for its keys has come, and takes no other")
  func joining() async throws {
    let domain = try TestDomain()
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      let request = try CredentialRequest(pemRepresentation: Profile.makeRequest(at: place))
      func package(for request: CredentialRequest) throws -> JoinPackage {
        let file = try domain.authority.issueCredentialFile(
          .user, at: TreePath(parsing: "/people/bob"), request: request, services: [],
          validity: Validity(from: .now, lifetime: .seconds(3600)), serial: 1, issuedAtMilliseconds: 1)
        return try JoinPackage(
          root: domain.authority.root, credential: file,
          processes: [Profile.Process(path: "/node1", addresses: ["127.0.0.1:7001"])])
      }
      let foreign = try CredentialRequest(keys: PrincipalKeys(), issuedAtMilliseconds: 1)
      #expect(throws: BlocktreeError.self) { try Profile.join(package(for: foreign), in: place) }
      #expect(throws: ProfileError.self) { try Profile(contentsOf: place) }

      let carried = try JoinPackage(pemRepresentation: "Hello,\n\n\(package(for: request).pemRepresentation)\nbye\n")
      try Profile.join(carried, in: place)
      let profile = try Profile(contentsOf: place)
      #expect(profile.path == "/people/bob")
      #expect(profile.startingPoints.count == 1)
    }
  }

  @Test("refuses a package that is cut off or changed")
  func damaged() throws {
    let domain = try TestDomain()
    let keys = PrincipalKeys()
    let package = try JoinPackage(
      root: domain.authority.root, credential: domain.credential(.user, "/people/bob", keys: keys), processes: [])
    let text = package.pemRepresentation
    #expect(throws: Never.self) { try JoinPackage(pemRepresentation: text).verify(for: keys) }
    let lines = text.split(separator: "\n")
    let cut = (lines.prefix(5) + lines.suffix(1)).joined(separator: "\n")
    #expect(throws: BlocktreeError.self) { try JoinPackage(pemRepresentation: cut) }
    #expect(throws: BlocktreeError.self) { try JoinPackage(pemRepresentation: String(text.prefix(200))) }
    #expect(throws: BlocktreeError.self) { try JoinPackage(pemRepresentation: "") }
    // Another domain's root with this domain's credential.
    let other = try JoinPackage(
      root: TestDomain().authority.root, credential: domain.credential(.user, "/people/bob", keys: keys), processes: [])
    #expect(throws: BlocktreeError.self) { try other.verify() }
  }
}

@Suite("The processes of a profile")
struct ProfileProcessTests {
  let domain: TestDomain

  init() throws {
    self.domain = try TestDomain()
  }

  private func places(_ directory: String) throws -> [String] {
    try Profile(contentsOf: directory).startingPoints.map { "\($0.path.map { "\($0)" } ?? "-") \($0.address)" }
  }

  private func withProfile(_ body: (String) throws -> Void) async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      try body(place)
    }
  }

  @Test("can be added to, changed and struck out, and the rest of the profile stays")
  func changes() async throws {
    try await self.withProfile { (place: String) throws in
      let first = ["/node1 127.0.0.1:7001", "/node1 [::1]:7001"]
      #expect(try Profile.add(.init(path: "/node2", addresses: ["10.0.0.2:7001"]), in: place))
      #expect(try self.places(place) == first + ["/node2 10.0.0.2:7001"])
      #expect(try Profile.add(.init(path: "/node2", addresses: ["10.0.0.3:7001"]), in: place))
      #expect(try self.places(place) == first + ["/node2 10.0.0.3:7001"])
      #expect(try Profile.removeProcess(at: "/node1", in: place))
      #expect(try self.places(place) == ["/node2 10.0.0.3:7001"])
      let profile = try Profile(contentsOf: place)
      #expect(profile.path == "/people/ann")
      #expect(profile.authority != nil)
    }
  }

  @Test("are never without one, and never too many")
  func bounds() async throws {
    try await self.withProfile { (place: String) throws in
      #expect(try !Profile.removeProcess(at: "/node1", in: place))
      #expect(try Profile.removeProcess(at: "/node7", in: place))
      #expect(try self.places(place).count == 2)
      #expect(try !Profile.add(.init(path: "/node2", addresses: []), in: place))
      for number in 2...Profile.addedProcessCountMax {
        #expect(try Profile.add(.init(path: "/node\(number)", addresses: ["10.0.0.2:\(number)"]), in: place))
      }
      #expect(try !Profile.add(.init(path: "/more", addresses: ["10.0.0.2:1"]), in: place))
    }
  }

  @Test("are checked before they are written")
  func malformed() async throws {
    try await self.withProfile { (place: String) throws in
      for wrong in [
        Profile.Process(path: "node2", addresses: ["10.0.0.2:7001"]), .init(path: "/node2", addresses: ["nowhere"]),
      ] {
        #expect(throws: ProfileError.self) { try Profile.add(wrong, in: place) }
      }
      #expect(try self.places(place).count == 2)
    }
  }

  @Test("are all there when several are added at once")
  func concurrent() async throws {
    try await withDirectory { directory in
      let place = "\(directory)/profile"
      try self.domain.makeProfile(at: place)
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 2..<30 {
          group.addTask { @concurrent in
            try Profile.add(.init(path: "/node\(number)", addresses: ["10.0.0.2:\(number)"]), in: place)
          }
        }
        try await group.waitForAll()
      }
      #expect(try self.places(place).count == 30)
    }
  }
}
