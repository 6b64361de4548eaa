// SPDX-License-Identifier: Apache-2.0

internal import Filesystem
internal import ServiceLifecycle

/// Does what the cluster has to do in the background, while this process leads it.
struct TaskKeeper: ServiceLifecycle.Service {
  let filesystem: Filesystem

  func run() async throws {
    await cancelWhenGracefulShutdown { await self.filesystem.runTasks() }
  }
}
