// SPDX-License-Identifier: Apache-2.0

import Discovery
import Foundation
import Synchronization
import Testing
import Trust

@Suite("Looking up a caller's credential file")
struct CredentialLookupTests {
  /// Answers from a table, when it is told to.
  private final class Source: CredentialSource {
    struct Unreachable: Error {}

    private struct State {
      var files: [TreePath: [UInt8]] = [:]
      var lifetime = Duration.seconds(30)
      var isReachable = true
      var isHolding = false
      var count = 0
      var held: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    var count: Int { self.state.withLock { $0.count } }

    func set(_ path: TreePath, _ file: [UInt8]?, lifetime: Duration = .seconds(30)) {
      self.state.withLock {
        $0.files[path] = file
        $0.lifetime = lifetime
      }
    }

    func set(isReachable: Bool) { self.state.withLock { $0.isReachable = isReachable } }
    func hold() { self.state.withLock { $0.isHolding = true } }

    func letGo() {
      let held = self.state.withLock { state in
        state.isHolding = false
        defer { state.held = [] }
        return state.held
      }
      for continuation in held { continuation.resume() }
    }

    func readCredential(_ path: TreePath) async throws -> (file: [UInt8], lifetime: Duration)? {
      await withCheckedContinuation { continuation in
        let isHeld = self.state.withLock { state in
          state.count += 1
          if state.isHolding { state.held.append(continuation) }
          return state.isHolding
        }
        if !isHeld { continuation.resume() }
      }
      return try self.state.withLock { state in
        guard state.isReachable else { throw Unreachable() }
        return state.files[path].map { ($0, state.lifetime) }
      }
    }
  }

  private final class Guests: GuestRegister {
    private let confirmed = Mutex<[TreePath: Duration]>([:])

    var all: [TreePath: Duration] { self.confirmed.withLock { $0 } }
    func note(_ file: VerifiedCredentialFile, for lifetime: Duration) {
      self.confirmed.withLock { $0[file.credential.path] = lifetime }
    }
    func remove(_ path: TreePath) { self.confirmed.withLock { $0[path] = nil } }
  }

  private final class Clock: Sendable {
    private let time = Mutex<Int64>(0)

    var now: Int64 { self.time.withLock { $0 } }
    func advance(seconds: Int64) { self.time.withLock { $0 += seconds * 1_000_000_000 } }
  }

  private struct Setting {
    let authority: CertificateAuthority
    let keys = PrincipalKeys()
    let file: CredentialFile
    let ann: Credential
    let source = Source()
    let guests = Guests()
    let clock = Clock()
    let lookup: CredentialLookup

    init() throws {
      self.authority = try CertificateAuthority(newRoot: SigningKey(), at: Date())
      self.file = try TestTree.issue(.user, "/site/people/ann", self.keys, [], by: self.authority)
      let verifier = ChainVerifier(root: self.authority.root)
      self.ann = try verifier.verify(self.file.chain, at: Date())
      let clock = self.clock
      self.lookup = CredentialLookup(
        source: self.source, guests: self.guests, verifier: verifier, now: { clock.now }, date: { Date() })
    }

    func running(_ body: () async throws -> Void) async throws {
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { await self.lookup.run() }
        defer {
          self.source.letGo()
          group.cancelAll()
        }
        try await body()
      }
    }
  }

  /// Waits for a condition that something in the background brings about.
  private func eventually(_ condition: () -> Bool) async throws {
    let deadline = ContinuousClock.now + .seconds(60)
    while !condition() {
      try #require(ContinuousClock.now < deadline, "The condition never came true.")
      try await Task.sleep(for: .milliseconds(1))
    }
  }

  @Test("confirms whose file is there with this key, writes that down, and asks once for all who wait")
  func confirms() async throws {
    let setting = try Setting()
    setting.source.set(setting.ann.path, setting.file.bytes)
    setting.source.hold()
    try await setting.running {
      try await withThrowingTaskGroup(of: Standing.self) { group in
        for _ in 0..<20 { group.addTask { await setting.lookup.confirm(setting.ann) } }
        try await self.eventually { setting.source.count > 0 }
        setting.source.letGo()
        for try await answer in group { #expect(answer == .confirmed) }
      }
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      #expect(setting.source.count == 1)
      #expect(setting.guests.all == [setting.ann.path: .seconds(30)])
    }
  }

  @Test("refuses another key, a missing file, one that does not verify, and one of somebody else")
  func refuses() async throws {
    let setting = try Setting()
    let path = setting.ann.path
    let other = try TestTree.issue(.user, "/site/people/ann", PrincipalKeys(), [], by: setting.authority)
    let foreign = try TestTree.issue(
      .user, "/site/people/ann", PrincipalKeys(), [], by: CertificateAuthority(newRoot: SigningKey(), at: Date()))
    // The same key at another place.
    let somebody = try TestTree.issue(.user, "/site/people/bob", setting.keys, [], by: setting.authority)
    var broken = setting.file.bytes
    broken[broken.count / 2] ^= 1
    try await setting.running {
      for file in [other.bytes, nil, foreign.bytes, somebody.bytes, broken, []] {
        setting.source.set(path, file)
        #expect(await setting.lookup.confirm(setting.ann) == .refused)
        setting.clock.advance(seconds: 31)
      }
      #expect(setting.source.count == 6)
    }
  }

  @Test("takes a confirmation back when the file is gone, within the lifetime of somebody who is in use")
  func revokes() async throws {
    let setting = try Setting()
    setting.source.set(setting.ann.path, setting.file.bytes)
    try await setting.running {
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      setting.source.set(setting.ann.path, nil)
      setting.clock.advance(seconds: 14)
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      #expect(setting.source.count == 1)
      setting.clock.advance(seconds: 1)
      // Asked for again, and nobody waits for it.
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      try await self.eventually { setting.guests.all.isEmpty }
      try await self.eventually { setting.lookup.hasLapsed(setting.ann) }
      #expect(await setting.lookup.confirm(setting.ann) == .refused)
    }
  }

  @Test("asks for somebody with an open connection again without being called")
  func keepsFresh() async throws {
    let setting = try Setting()
    setting.source.set(setting.ann.path, setting.file.bytes)
    try await setting.running {
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      for round in 1...4 {
        setting.clock.advance(seconds: 16)
        #expect(!setting.lookup.hasLapsed(setting.ann))
        try await self.eventually { setting.source.count == 1 + round && setting.lookup.questionCount == 0 }
        #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      }
    }
  }

  @Test(
    "keeps what is confirmed when nobody can be asked, to the end of the lifetime, and confirms again when somebody can"
  )
  func cutOff() async throws {
    let setting = try Setting()
    setting.source.set(setting.ann.path, setting.file.bytes)
    try await setting.running {
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      setting.source.set(isReachable: false)
      setting.clock.advance(seconds: 29)
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      try await self.eventually { setting.source.count == 2 && setting.lookup.questionCount == 0 }
      #expect(!setting.lookup.hasLapsed(setting.ann))
      setting.clock.advance(seconds: 1)
      try await self.eventually { setting.lookup.hasLapsed(setting.ann) }
      setting.clock.advance(seconds: 10)
      #expect(await setting.lookup.confirm(setting.ann) == .unreachable)
      setting.source.set(isReachable: true)
      setting.clock.advance(seconds: 10)
      #expect(await setting.lookup.confirm(setting.ann) == .confirmed)
      #expect(!setting.lookup.hasLapsed(setting.ann))
    }
  }

  @Test("answers whoever gives up or waits while it stops")
  func ends() async throws {
    let setting = try Setting()
    setting.source.hold()
    try await setting.running {
      let waiting = Task { await setting.lookup.confirm(setting.ann) }
      try await self.eventually { setting.source.count == 1 }
      waiting.cancel()
      #expect(await waiting.value == .unreachable)
      let other = Task { await setting.lookup.confirm(setting.ann) }
      try await Task.sleep(for: .milliseconds(5))
      let running = Task { await setting.lookup.confirm(setting.ann) }
      running.cancel()
      _ = await running.value
      setting.source.letGo()
      #expect(await other.value == .refused)
    }
    #expect(await setting.lookup.confirm(setting.ann) == .unreachable)
  }
}
