// SPDX-License-Identifier: Apache-2.0

internal import ArgumentParser
internal import BlocktreeClient
internal import Foundation
internal import Node
internal import UnixSignals

/// `btnode demo`
struct Demo: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows in a few steps, on this machine, what a domain does.",
    discussion: """
      Makes a domain in a temporary directory, starts its process, stores a directory tree in it over mutual TLS, reads
      it back, and looks at what the disk holds. Everything is removed in the end.
      """)

  @Flag(help: "Leave the domain's directory as it is in the end.")
  var keep = false

  @Option(help: ArgumentHelp("The directory tree to store.", valueName: "dir"), completion: .directory)
  var source: String?

  func run() async throws {
    // From before there is anything to clean up.
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm)
    let directory = try TourFiles.makeTemporaryDirectory()
    let keeps = self.keep
    defer {
      if keeps {
        Output.line("\nThe domain is in \(directory)")
      } else {
        TourFiles.removeTree(directory)
      }
    }
    let source = try self.source ?? TourFiles.defaultSource()
    let outcome = await withTaskGroup(of: Outcome.self) { group in
      group.addTask { await Self.perform(Tour(directory: directory, source: source)) }
      group.addTask {
        for await _ in signals { return .interrupted }
        return .cancelled
      }
      let first = await group.next() ?? .cancelled
      group.cancelAll()
      // The tour ends its processes before it returns.
      await group.waitForAll()
      return first
    }
    switch outcome {
    case .done: break
    case .failed(let why): throw TourFailure(why)
    case .interrupted, .cancelled: throw TourFailure("interrupted")
    }
  }

  private enum Outcome: Sendable {
    case done
    case failed(String)
    case interrupted
    case cancelled
  }

  private static func perform(_ tour: Tour) async -> Outcome {
    do {
      try await tour.run()
      return .done
    } catch {
      return .failed("\(error)\(tour.logTail)")
    }
  }
}

/// Why the tour did not come to its end.
struct TourFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
