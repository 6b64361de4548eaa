// SPDX-License-Identifier: Apache-2.0

/// A message between processes, as a value: what links carry, whatever their encoding.
package struct Envelope: Hashable, Sendable {
  package enum Destination: Hashable, Sendable {
    case actor(ActorAddress)
    case service(ServiceAddress)
  }

  package enum Kind: Hashable, Sendable {
    /// Wants no answer; comes back as `undeliverable`, if it does.
    case tell
    /// Wants one `reply` or `undeliverable`.
    case call
    /// Answers the call with that id.
    case reply(to: UInt64)
    /// Nobody handled, or will handle, the tell with that id; nobody answered the call.
    case undeliverable(id: UInt64, UndeliverableReason)
  }

  /// Different for all envelopes from the same `from`.
  package var id: UInt64
  package var from: ActorAddress
  package var to: Destination
  package var kind: Kind
  /// How long it is of use, counted from when it arrived here: clocks of different machines do not agree. nil for ever.
  package var timeLeft: Duration?
  /// How many processes it may still pass.
  package var hopLimit: UInt8
  package var trace: TraceContext?
  /// Empty for `undeliverable`.
  package var payload: Payload

  package init(
    id: UInt64, from: ActorAddress, to: Destination, kind: Kind, timeLeft: Duration? = nil,
    hopLimit: UInt8 = ActorLimits.hopCountMax, trace: TraceContext? = nil, payload: Payload = .empty
  ) {
    self.id = id
    self.from = from
    self.to = to
    self.kind = kind
    self.timeLeft = timeLeft
    self.hopLimit = min(hopLimit, ActorLimits.hopCountMax)
    self.trace = trace
    self.payload = payload
  }

  /// What says to its sender that this was not delivered. nil if nobody wants to hear that: an answer that finds nobody
  /// is over, or two processes would send each other such words for ever.
  package func undeliverable(_ reason: UndeliverableReason, id: UInt64, by reporter: ActorAddress) -> Envelope? {
    switch self.kind {
    case .tell, .call:
      Envelope(
        id: id, from: reporter, to: .actor(self.from), kind: .undeliverable(id: self.id, reason), trace: self.trace)
    case .reply, .undeliverable: nil
    }
  }
}

/// Bytes and what they are.
package struct Payload: Hashable, Sendable {
  /// The full name of a protobuf message, at most 255 bytes.
  package let typeName: String
  /// At most `ActorLimits.payloadByteCountMax`.
  package let bytes: [UInt8]

  /// - Returns: nil if one of them is too long.
  package init?(typeName: String, bytes: [UInt8]) {
    guard typeName.utf8.count <= ActorLimits.nameByteCountMax, bytes.count <= ActorLimits.payloadByteCountMax else {
      return nil
    }
    self.init(trusted: typeName, bytes)
  }

  private init(trusted typeName: String, _ bytes: [UInt8]) {
    self.typeName = typeName
    self.bytes = bytes
  }

  package static let empty = Payload(trusted: "", [])
}

/// What an envelope belongs to, as W3C Trace Context has it.
package struct TraceContext: Hashable, Sendable {
  /// The upper and lower half of the trace's id.
  package var traceHigh: UInt64
  package var traceLow: UInt64
  package var span: UInt64
  package var flags: UInt8

  package init(traceHigh: UInt64, traceLow: UInt64, span: UInt64, flags: UInt8) {
    self.traceHigh = traceHigh
    self.traceLow = traceLow
    self.span = span
    self.flags = flags
  }
}

/// Why a message was not delivered, or a call was not answered.
package enum UndeliverableReason: String, Hashable, Sendable, CaseIterable {
  /// There is none at this address: it has ended, or its process began again.
  case noSuchActor
  /// Nobody hosts the service there.
  case noSuchService
  /// No way to the process is known, or the hops were used up.
  case noRoute
  /// Whoever got it does not take it: from nobody, not from this sender, or not of this type.
  case refused
  /// The time was over. A call may have been handled.
  case expired
  /// There was no room for it.
  case mailboxFull
  /// The actor ended before it came to it, failed at it, or dropped the call.
  case stopped
}
