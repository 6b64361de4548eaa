// SPDX-License-Identifier: Apache-2.0

internal import ServiceLifecycle
internal import UnixSignals

/// Ends when one of the signals has come, and all other services with it, in order.
///
/// The signals are taken over by whoever makes the sequence, so that one that comes before the services run is not lost.
struct SignalWatch: ServiceLifecycle.Service {
  let signals: UnixSignalsSequence

  func run() async throws {
    await cancelWhenGracefulShutdown {
      for await _ in self.signals { return }
    }
  }
}
