// SPDX-License-Identifier: Apache-2.0

/// Every bound on what discovery says and takes, in one place. How long answers hold stands in `AnswerLifetime`.
package enum DiscoveryLimits {
  /// Processes in an answer.
  package static let foundMax = 256
  /// Routes in a list.
  package static let routesMax = 1_000
  /// Refusals come at multiples of this after the question. Longer than it takes to read a directory from the disk.
  package static let refusalStep = Duration.milliseconds(20)
  /// For one call, and for dialling before it.
  package static let callTimeout = Duration.seconds(3)
}
