// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import SwiftProtobuf

/// Something that processes do in the background, as it stood when they were asked. It goes on after a crash, wherever
/// the next leader of the cluster is.
public struct BackgroundTask: Hashable, Sendable {
  /// What is done. Programs should expect to meet kinds that they do not know.
  public struct Kind: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int

    public init(rawValue: Int) {
      self.rawValue = rawValue
    }

    /// Everything at or below a path is given new keys, and sealed under them.
    public static let rekey = Kind(rawValue: 1)
    /// A directory is taken back from its cluster.
    public static let drain = Kind(rawValue: 2)

    /// `rekey`, `drain`, or `kind-` and a number.
    public var description: String {
      switch self {
      case .rekey: "rekey"
      case .drain: "drain"
      default: "kind-\(self.rawValue)"
      }
    }
  }

  public enum State: String, Hashable, Sendable {
    case running
    /// It will be tried again later; ``BackgroundTask/problem`` says why.
    case waiting
    /// It is done; ``BackgroundTask/problem`` says what was left, if anything.
    case finished
    /// It was given up.
    case cancelled
  }

  /// Names it; never given to another one.
  public var id: String
  public var kind: Kind
  /// Of the file or directory, when it was begun.
  public var path: String
  public var file: FileID
  public var started: Timestamp
  public var state: State
  /// Files, directories and links that are done. The figures count from zero when another process takes over.
  public var inodesDone: UInt64
  /// How many there are, as far as they were counted; more may come.
  public var inodesTotal: UInt64
  /// Bytes of their contents that are done.
  public var bytesDone: UInt64
  /// How many there are, as far as they were counted.
  public var bytesTotal: UInt64
  /// What is done just now, for people.
  public var step: String
  /// What it waits for, or what could not be done, for people; nil when there is nothing.
  public var problem: String?

  public init(
    id: String, kind: Kind, path: String, file: FileID, started: Timestamp, state: State, inodesDone: UInt64 = 0,
    inodesTotal: UInt64 = 0, bytesDone: UInt64 = 0, bytesTotal: UInt64 = 0, step: String = "", problem: String? = nil
  ) {
    self.id = id
    self.kind = kind
    self.path = path
    self.file = file
    self.started = started
    self.state = state
    self.inodesDone = inodesDone
    self.inodesTotal = inodesTotal
    self.bytesDone = bytesDone
    self.bytesTotal = bytesTotal
    self.step = step
    self.problem = problem
  }

  /// Whether nothing more comes of it.
  public var isOver: Bool { self.state == .finished || self.state == .cancelled }
}

extension BackgroundTask {
  /// As many as the schema allows.
  static let countMax = 1_000

  init(_ message: Blocktree_V1_Task) throws(BlocktreeError) {
    guard !message.id.isEmpty else { throw .malformedAnswer("id") }
    guard message.kind != .unspecified else { throw .malformedAnswer("kind") }
    let state: State
    switch message.state {
    case .running: state = .running
    case .waiting: state = .waiting
    case .finished: state = .finished
    case .cancelled: state = .cancelled
    // Whoever waits would not know what for.
    case .unspecified, .UNRECOGNIZED: throw .malformedAnswer("state")
    }
    try self.init(
      id: message.id, kind: Kind(rawValue: message.kind.rawValue), path: message.path, file: FileID(message.fileID),
      started: Timestamp(nanoseconds: message.startedNs), state: state, inodesDone: message.inodesDone,
      inodesTotal: message.inodesTotal, bytesDone: message.bytesDone, bytesTotal: message.bytesTotal,
      step: message.step, problem: message.problem.isEmpty ? nil : message.problem)
  }
}
