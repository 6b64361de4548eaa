// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import Transport
internal import Trust

extension ClientCore {
  /// When the members are asked for first: programs that do one thing and end need not know.
  private static var firstLook: Duration { .seconds(1) }
  private static var lookInterval: Duration { .seconds(60) }
  private static var lookPatience: Duration { .seconds(5) }
  private static var memberCountMax: Int { 64 }

  /// Learns, now and then, which processes belong to the cluster. A profile may name one only, and others may have
  /// joined since: when that one is gone, nobody could say any more who else there is.
  func learnMembers() async {
    // Nobody tells anonymous callers.
    guard !self.isAnonymous else { return }
    var pause = Self.firstLook
    while (try? await Task.sleep(for: pause)) != nil {
      guard let connection = self.openConnection else { continue }
      pause = Self.lookInterval
      var options = CallOptions.defaults
      options.timeout = Self.lookPatience
      let cluster = Blocktree_V1_ClusterService.Client(wrapping: connection.client)
      // It is only to be prepared: whatever this fails for, calls notice it when they need to.
      guard let status = try? await cluster.getStatus(.init(), options: options) else { continue }
      for member in status.members.prefix(Self.memberCountMax) {
        guard let path = try? TreePath(parsing: member.process) else { continue }
        self.learn(ProcessHint(path: path, addresses: member.addresses.compactMap { try? NetworkAddress(parsing: $0) }))
      }
    }
  }
}
