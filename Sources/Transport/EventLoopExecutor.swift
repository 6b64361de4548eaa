// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// Runs tasks on the event loop of the connection that they serve.
///
/// Waking a thread on another core costs more than most calls do. A task that prefers this executor reads, computes
/// and writes on the thread that owns the socket, so a call needs no hop at all. In return such a task must not block:
/// whatever waits for a disk or computes for milliseconds belongs on a thread of its own.
///
/// Tasks enqueued after the event loop has shut down never run.
package final class EventLoopExecutor: TaskExecutor {
  package let eventLoop: any EventLoop

  package init(_ eventLoop: any EventLoop) {
    self.eventLoop = eventLoop
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    self.eventLoop.execute {
      job.runSynchronously(on: self.asUnownedTaskExecutor())
    }
  }
}
