// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// One node for all clients that mean well.
@Suite("Another language", .serialized, .scene(), .timeLimit(.minutes(5)))
struct OtherLanguageTests {}

extension OtherLanguageTests {
  @Suite("Python with grpcio")
  struct PythonTests {
    static let permittedChecks = [
      "is_known_by_its_own_credential", "describes_what_is_there", "makes_and_lists_directories",
      "writes_and_reads_3_mib", "changes_files_in_place", "renames_and_links", "sets_attributes",
      "performs_100_operations_over_one_stream", "repeats_an_operation_safely", "learns_why_a_call_failed",
      "asks_for_the_health",
    ]

    @Test("does what its credential permits", arguments: permittedChecks)
    func permitted(check: String) async throws {
      try await Scene.current.check("client.py", check)
    }

    static let refusedChecks = [
      "the_private_file_of_another", "to_learn_what_a_closed_directory_holds", "to_change_a_directory_of_another",
      "anonymous_callers_to_write", "anonymous_callers_in_the_sector_service", "a_forged_identity_header",
      "the_session_of_another", "to_admit_principals_without_an_authority",
    ]

    @Test("is refused what it may not do", arguments: refusedChecks)
    func refused(check: String) async throws {
      try await Scene.current.check("refusals.py", check)
    }

    @Test("leaves no check of its scripts out")
    func complete() async throws {
      #expect(try await Scene.current.checks("client.py") == Self.permittedChecks)
      #expect(try await Scene.current.checks("refusals.py") == Self.refusedChecks)
    }

    @Test("runs the example that the documentation shows")
    func example() async throws {
      let scene = try Scene.current
      let end = try await scene.python("example.py", ["\(scene.directory)/node/profile"])
      let expected = """
        /letter.txt: 19 bytes, owner /owner
        Hello from Python.
        /no/such/file: NOT_FOUND, NOT_FOUND

        """
      #expect(end.output == expected && end.status == 0, "\(end.errors)")
      // The README has the same program, without what stands before its imports.
      let program = try String(contentsOfFile: "\(Installed.clients)/python/example.py", encoding: .utf8)
      let shown = try #require(program.range(of: "import sys\n")).lowerBound
      let readme = try String(contentsOfFile: Installed.readme, encoding: .utf8)
      #expect(readme.contains("```python\n\(program[shown...])```"))
    }
  }
}
