// SPDX-License-Identifier: Apache-2.0

internal import Actors

/// Bounds of what programs and their callers may do, in one place. The schema states them.
package enum MessageLimits {
  /// Bytes of a payload.
  package static let payloadByteCountMax = ActorLimits.payloadByteCountMax
  /// Bytes of the name of its type.
  package static let typeNameByteCountMax = ActorLimits.nameByteCountMax
  /// Bytes of what a program says when it refuses a call.
  package static let refusalByteCountMax = 1_024
  /// Messages that wait for one program.
  package static let waitingCountMax = 1_024
  /// Calls that a program works on at a time.
  package static let concurrencyMax = 256
  package static let concurrencyDefault = 16
  /// Services that one program hosts.
  package static let servicesMax = 16
  /// Programs that are attached to one process.
  package static let programsMax = 1_024
  /// Of these, with one principal's credential.
  package static let programsOfPrincipalMax = 64
  package static let timeoutMax = Duration.seconds(600)
  package static let timeoutDefault = Duration.seconds(10)
}
