// SPDX-License-Identifier: Apache-2.0

internal import BlocktreeSchema
internal import GRPCCore
internal import SwiftProtobuf
internal import Transport
internal import Trust

/// Who may do what with a file, beyond owner, group and mode; and who has its key. A principal with the key of a
/// directory can read it, and everything below, from whoever stores it: see ``Client/openSealed(_:)``.
///
/// All of this is done by the processes that serve the directory above, where the key of the file stands, and is for
/// the owner of the file and for the owner of the root directory. It is durable when the method returns, and repeated
/// safely when its answer was lost.
extension Client {
  /// Gives a principal or group permission. It takes the place of what it had in the access list.
  ///
  /// - Parameters:
  ///   - path: symbolic links are followed, but not out of the cluster that serves the path.
  ///   - principal: the path of its credential, or of the directory that is the group.
  ///   - permission: 4 read, 2 write, 1 execute (for a directory: pass through); at least one.
  ///   - withKey: whether the principal is given the key, sealed to it. It takes the permission to read; a group can
  ///     have none.
  @discardableResult
  public func grant(
    _ path: String, to principal: String, isGroup: Bool = false, permission: UInt8, withKey: Bool = false
  ) async throws -> FileInfo {
    let principal = try self.treePath(principal)
    let response = try await self.numbered(path) { path, id, service, options in
      try await service.grant(
        .with {
          $0.path = path
          $0.principal = principal
          $0.isGroup = isGroup
          $0.permission = UInt32(permission)
          $0.withKey = withKey
          if let id { $0.operation = id }
        }, options: options)
    }
    return try FileInfo(response.info)
  }

  /// Takes back what ``grant(_:to:isGroup:permission:withKey:)`` gave. If the principal had the key, a new one is
  /// drawn: what is written from now on, there and below, the former key does not open.
  ///
  /// - Parameter principal: its credential need not be there any more.
  /// - Returns: the file, and what seals anew what was written before; nil when the principal had no key.
  @discardableResult
  public func revoke(
    _ path: String, from principal: String, isGroup: Bool = false
  ) async throws -> (info: FileInfo, task: BackgroundTask?) {
    let principal = try self.treePath(principal)
    let response = try await self.numbered(path) { path, id, service, options in
      try await service.revoke(
        .with {
          $0.path = path
          $0.principal = principal
          $0.isGroup = isGroup
          if let id { $0.operation = id }
        }, options: options)
    }
    return (try FileInfo(response.info), response.hasTask ? try BackgroundTask(response.task) : nil)
  }

  /// Draws a new key for a file or directory, and for everything below, as a revocation does.
  ///
  /// - Returns: the file, and what seals anew what was written before.
  @discardableResult
  public func rekey(_ path: String) async throws -> (info: FileInfo, task: BackgroundTask?) {
    let response = try await self.numbered(path) { path, id, service, options in
      try await service.rekey(
        .with {
          $0.path = path
          if let id { $0.operation = id }
        }, options: options)
    }
    return (try FileInfo(response.info), response.hasTask ? try BackgroundTask(response.task) : nil)
  }

  /// Takes the key of a directory out of its entry in the directory above, under a new key: from then on only those
  /// read it who have a readcap, and those who serve the directories above do not.
  ///
  /// - Parameter isCutOff: false to put the key back, which only processes can that have it.
  @discardableResult
  public func setCutOff(_ path: String, _ isCutOff: Bool) async throws -> FileInfo {
    let response = try await self.numbered(path) { path, id, service, options in
      try await service.cutOff(
        .with {
          $0.path = path
          $0.isCutOff = isCutOff
          if let id { $0.operation = id }
        }, options: options)
    }
    return try FileInfo(response.info)
  }

  // MARK: Tasks

  /// Begins to move what the cluster of a directory stores to the cluster that stores the directory, in use; at the end
  /// the directory belongs to that one, and its own processes can be removed. Or gives that up.
  ///
  /// - Throws: with the reason ``BlocktreeError/Reason/drainRefused``; metadata: `cause`.
  public func drain(_ path: String, cancelling: Bool = false) async throws -> BackgroundTask {
    let path = try self.treePath(path)
    let response = try await self.core.routed(path, levels: 1, timeout: self.timeout, isMutation: true) { attempt in
      let request = Blocktree_V1_DrainRequest.with {
        $0.path = attempt.path
        $0.cancel = cancelling
      }
      return try await attempt.call { connection, options in
        try await connection.filesystem.drain(request, options: options)
      }
    }
    return try BackgroundTask(response.task)
  }

  /// What is done in the background for files and directories at or below a path: those that go on, oldest first, and
  /// those that were finished lately. Both the processes that serve the path are asked, and those that serve the
  /// directory above.
  ///
  /// For the owner of the path and of the root directory.
  public func tasks(at path: String = "/") async throws -> [BackgroundTask] {
    let path = try self.treePath(path)
    let above: [BackgroundTask]
    do {
      above = try await self.tasks(at: path, levels: 1)
    } catch let error as BlocktreeError {
      // Who owns a directory may still see what its own processes do.
      guard let own = try? await self.tasks(at: path, levels: 0) else { throw error }
      return own
    }
    // Only so it becomes known who serves the path; that it can not be asked now keeps nobody from hearing of the rest.
    _ = try? await self.core.settle(path, timeout: self.timeout)
    let own = (try? await self.tasks(at: path, levels: 0)) ?? []
    let known = Set(above.map(\.id))
    return above + own.filter { !known.contains($0.id) }
  }

  /// How a task is, at those who were asked to begin it; nil when they do not remember it any more.
  public func task(_ task: BackgroundTask) async throws -> BackgroundTask? {
    try await self.tasks(at: task.path, levels: 1).first { $0.id == task.id }
  }

  private func tasks(at path: String, levels: Int) async throws -> [BackgroundTask] {
    let response = try await self.core.routed(path, levels: levels, timeout: self.timeout, isMutation: false) {
      attempt in
      let request = Blocktree_V1_ListTasksRequest.with { $0.path = attempt.path }
      return try await attempt.call { connection, options in
        try await connection.filesystem.listTasks(request, options: options)
      }
    }
    guard response.tasks.count <= BackgroundTask.countMax else { throw BlocktreeError.malformedAnswer("tasks") }
    return try response.tasks.map { (message) throws(BlocktreeError) in try BackgroundTask(message) }
  }

  /// Makes a call that changes a file, at the cluster that serves the directory above, with an operation id.
  private func numbered<Response>(
    _ path: String,
    _ body: (String, Blocktree_V1_OperationId?, any Blocktree_V1_FilesystemService.ClientProtocol, CallOptions)
      async throws -> Response
  ) async throws -> Response {
    let path = try self.treePath(path)
    return try await self.core.routed(path, levels: 1, timeout: self.timeout, isMutation: true) { attempt in
      let (cluster, timeout, path) = (attempt.cluster, attempt.timeout, attempt.path)
      return try await cluster.withOperationID(timeout: timeout, &attempt.trace) { id, trace, wasRepeated in
        var attemptCount = 0
        defer { wasRepeated = attemptCount > 1 }
        return try await cluster.call(timeout: timeout, &trace, isRepeatable: { id != nil }) { connection, options in
          attemptCount += 1
          return try await body(path, id, connection.filesystem, options)
        }
      }
    }
  }
}

extension BlocktreeError.Reason {
  /// The process that answers has no key for this, or the readcap of the caller is of a former key. Metadata: `file`.
  public static let noKey = BlocktreeError.Reason(rawValue: "NO_KEY")
  /// What is stored there is being moved to the cluster of the directory above; nothing can be changed until that is
  /// done, in a moment.
  public static let generationFrozen = BlocktreeError.Reason(rawValue: "GENERATION_FROZEN")
  /// The directory can not be taken back from its cluster. Metadata: `cause`, which is `NOT_DELEGATED`, `NESTED`,
  /// `NO_KEY`, `UNDER_WAY` or `FINISHING`.
  public static let drainRefused = BlocktreeError.Reason(rawValue: "DRAIN_REFUSED")
}
