// SPDX-License-Identifier: Apache-2.0

import Testing
import Trust

@Suite("Access rules")
struct AccessTests {
  private static let everything: [Permission] = (0..<8).map { Permission(rawValue: $0) }

  private func granted(
    _ mode: UInt32, _ entries: [AccessEntry] = [], to caller: String?, named: [(group: String, member: String)] = []
  ) -> Permission {
    let rules = AccessRules(owner: path("/u/owner"), group: path("/g"), mode: Mode(truncating: mode), entries: entries)
    let identity = caller.map { CallerIdentity.principal(path($0)) } ?? .anonymous
    let isNamed: (TreePath) -> Bool = { group in
      named.contains { path($0.group) == group && $0.member == caller }
    }
    var result: Permission = []
    for one in [Permission.read, .write, .execute] where rules.permits(one, caller: identity, memberOf: isNamed) {
      result.insert(one)
    }
    // In these tables one line decides, so wanting several at once is wanting each.
    for wanted in Self.everything {
      #expect(rules.permits(wanted, caller: identity, memberOf: isNamed) == wanted.isSubset(of: result))
    }
    return result
  }

  @Test("give owner, group, others and anonymous callers their bits")
  func classes() {
    for owner in 0..<8 as Range<UInt32> {
      for group in 0..<8 as Range<UInt32> {
        for others in 0..<8 as Range<UInt32> {
          let mode = owner << 6 | group << 3 | others
          #expect(granted(mode, to: "/u/owner").rawValue == UInt8(owner))
          #expect(granted(mode, to: "/g/someone").rawValue == UInt8(group))
          #expect(granted(mode, to: "/x").rawValue == UInt8(others))
          #expect(granted(mode, to: nil).rawValue == UInt8(others & 5))
        }
      }
    }
  }

  @Test("stop at the first class that a caller belongs to")
  func order() {
    let entries = [
      AccessEntry(.principal(path("/u/owner")), .all), AccessEntry(.principal(path("/g/named")), [.read]),
      AccessEntry(.group(path("/h")), [.write]), AccessEntry(.principal(path("/h/both")), []),
    ]
    // The owner has the owner's bits even when they are fewer than everybody's.
    #expect(granted(0o077, entries, to: "/u/owner") == [])
    #expect(granted(0o777, entries, to: "/g/named") == [.read])
    #expect(granted(0o777, entries, to: "/h/both") == [])
    #expect(granted(0o707, entries, to: "/h/x") == [.write])
    #expect(granted(0o707, entries, to: "/g/x") == [])
    #expect(granted(0o700, entries, to: "/x") == [])
    #expect(granted(0o705, entries, to: nil) == [.read, .execute])
    #expect(granted(0o702, entries, to: nil) == [])
  }

  @Test("never let anonymous callers write")
  func anonymous() {
    let open = AccessRules(owner: path("/o"), group: path("/g"), mode: Mode(truncating: 0o777))
    #expect(!open.permits(.write, caller: .anonymous) { _ in true })
    #expect(!open.permits(.all, caller: .anonymous) { _ in true })
    #expect(open.permits([.read, .execute], caller: .anonymous) { _ in false })
    #expect(open.permits([], caller: .anonymous) { _ in false })
  }

  @Test("join several lines for one principal, and never several groups for one request")
  func several() {
    let rules = AccessRules(
      owner: path("/o"), group: path("/g"), mode: Mode(truncating: 0o747),
      entries: [
        AccessEntry(.principal(path("/p")), .read), AccessEntry(.principal(path("/p")), .write),
        AccessEntry(.group(path("/g/h")), .write),
      ])
    #expect(rules.permits([.read, .write], caller: .principal(path("/p"))) { _ in false })
    let member = CallerIdentity.principal(path("/g/h/m"))
    #expect(rules.permits(.read, caller: member) { _ in false })
    #expect(rules.permits(.write, caller: member) { _ in false })
    #expect(!rules.permits([.read, .write], caller: member) { _ in false })
    #expect(!rules.permits(.execute, caller: member) { _ in false })
  }

  @Test("count as members whose credential lies below the group, and who is named in it")
  func membership() {
    #expect(granted(0o070, to: "/g/deep/below") == .all)
    #expect(granted(0o070, to: "/g") == [])
    #expect(granted(0o070, to: "/gg/x") == [])
    #expect(granted(0o070, to: "/x", named: [("/g", "/x")]) == .all)
    #expect(granted(0o070, to: "/x", named: [("/other", "/x")]) == [])
    #expect(granted(0o077, to: "/u/owner", named: [("/g", "/u/owner")]) == [])
  }

  @Test("do not confuse paths that begin alike")
  func prefixes() {
    let entries = [AccessEntry(.principal(path("/p")), .all)]
    #expect(granted(0, entries, to: "/p") == .all)
    #expect(granted(0, entries, to: "/p/q") == [])
    #expect(granted(0, entries, to: "/pp") == [])
    #expect(granted(0o700, to: "/u/owner2") == [])
    #expect(granted(0o700, to: "/u/owner/x") == [])
    #expect(granted(0o700, to: "/u") == [])
  }

  @Test("see a caller as the path of its credential")
  func callers() throws {
    let domain = try TestDomain()
    let chain = try domain.authority.issueCredential(
      .user, at: path("/u/owner"), key: SigningKey().verifyingKey, validity: day)
    let caller = Caller.credential(try domain.verifier.verify(chain, at: now))
    #expect(caller.identity == .principal(path("/u/owner")))
    #expect(caller.credential?.path == path("/u/owner"))
    #expect(Caller.anonymous.identity == .anonymous)
    #expect(Caller.anonymous.credential == nil)
  }

  @Test("have modes of 12 bits")
  func modes() {
    #expect(Mode(rawValue: 0o7777)?.description == "7777")
    #expect(Mode(rawValue: 0o10000) == nil)
    #expect(Mode(truncating: 0o100644).description == "0644")
    #expect(Mode(truncating: 0).description == "0000")
    #expect(Mode(truncating: 0o754).owner == .all)
    #expect(Mode(truncating: 0o754).group == [.read, .execute])
    #expect(Mode(truncating: 0o754).others == .read)
    #expect(Permission([.read, .execute]).description == "r-x")
  }
}
