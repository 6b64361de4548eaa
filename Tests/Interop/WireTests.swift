// SPDX-License-Identifier: Apache-2.0

import Testing

/// Each case sends something bad, sees the right answer, and then stores and reads a file over a new connection. That
/// the node met no fault of its own in any of them is checked at the end, in its log.
@Suite(
  "Bad input", .serialized, .scene(["BLOCKTREE_LIMITS_HANDSHAKE_SECONDS": "10"]), .timeLimit(.minutes(5)))
struct WireTests {
  static let messageChecks = [
    "malformed_protobuf", "random_messages", "an_oversized_message", "an_announced_size_that_never_comes",
    "unknown_calls_and_values", "paths_that_are_none", "a_generation_of_others", "stale_versions",
    "operations_that_are_too_old",
  ]

  @Test("in messages is refused with its reason", arguments: messageChecks)
  func messages(check: String) async throws {
    try await Scene.current.check("wire.py", check)
  }

  static let connectionChecks = [
    "garbage_instead_of_tls", "older_tls_and_other_protocols", "certificates_that_do_not_verify",
    "handshakes_that_dawdle", "garbage_after_the_handshake", "headers_without_end", "pings_and_resets_without_end",
    "a_flood_of_idle_connections",
  ]

  @Test("on connections ends these, and no others", arguments: connectionChecks)
  func connections(check: String) async throws {
    try await Scene.current.check("wire.py", check)
  }

  static let streamChecks = [
    "streams_that_never_end", "a_client_that_stops_reading", "writes_that_break_off", "clients_that_vanish",
  ]

  @Test("in streams leaves nothing behind", arguments: streamChecks)
  func streams(check: String) async throws {
    try await Scene.current.check("wire.py", check)
  }

  @Test("is tested in all its kinds")
  func complete() async throws {
    #expect(try await Scene.current.checks("wire.py") == Self.messageChecks + Self.connectionChecks + Self.streamChecks)
  }
}
