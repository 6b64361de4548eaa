// SPDX-License-Identifier: Apache-2.0

import BlocktreeClient
import Foundation
import Testing

@Suite("Moving files between clusters", .timeLimit(.minutes(3)))
struct MoveTests {
  @Test("refuses to put a directory into itself, by whichever links the path leads there, before anything is copied")
  func intoItself() async throws {
    try await TestCluster.with(1) { cluster in
      try await cluster.withClient { client in
        try await client.makeDirectory("/d")
        try await client.makeDirectory("/d/site")
        try await client.write([1], to: "/d/file")
      }
      try await cluster.add(1, to: "/d/site")
      try await cluster.withClient { client in
        try await client.makeDirectory("/d/site/deep")
        try await client.makeSymbolicLink("/link", to: "/d/site/deep")
        try await client.makeSymbolicLink("/relative", to: "x/../link/.")
        for target in ["/link", "/relative", "/link/new", "/d/site/deep/new"] {
          let error = await #expect(throws: (any Error).self) { try await cluster.btrpc("mv", "/d", target) }
          #expect(error.map { "\($0)" }?.contains("into itself") == true, "\(target): \(String(describing: error))")
          #expect(try await client.listPage("/d/site/deep").entries.isEmpty, "\(target)")
        }
        #expect(try await client.readAll("/d/file").bytes == [1])
        // Beside it is another matter.
        try await client.makeDirectory("/e")
        try await client.write([2], to: "/e/file")
        try await cluster.btrpc("mv", "/e", "/link")
        #expect(try await client.readAll("/d/site/deep/e/file").bytes == [2])
        #expect(try await !client.exists("/e"))
      }
    }
  }
}
