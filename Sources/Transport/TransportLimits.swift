// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Every bound that the transport puts on what a peer may cost us, in one place.
///
/// Nothing a peer sends can raise one of these. The defaults are for a machine with a few GiB of memory.
package struct TransportLimits: Hashable, Sendable {
  // MARK: Connections

  /// Connections that a server holds open at once, handshakes included. One more is closed as it is accepted.
  package var maxConnections = 1024

  /// Connections of anonymous callers among them, and never more than half of them all. Strangers can not lock out those
  /// who belong here.
  package var maxAnonymousConnections = 512

  /// TLS handshakes that a server has under way at once. When one more begins, the oldest is closed: somebody who
  /// opens connections and says nothing can slow others down, but not lock them out.
  package var maxConcurrentHandshakes = 128

  /// From the first byte of a connection to the end of its handshake, on both sides. Later it is closed.
  package var handshakeTimeout: Duration = .seconds(10)

  /// For the TCP connect of one dial.
  package var connectTimeout: Duration = .seconds(5)

  /// Connections that are being accepted, in the kernel.
  package var acceptBacklog = 512

  /// How long a server keeps a connection without open streams.
  package var serverIdleTime: Duration = .seconds(30 * 60)

  /// How long a client keeps one. Shorter than the server's, so that it is the client who hangs up and no call runs
  /// into a connection that is just being closed.
  package var clientIdleTime: Duration = .seconds(10 * 60)

  /// After this time without anything received, each side asks with an HTTP/2 ping whether the other still lives.
  package var keepaliveInterval: Duration = .seconds(60)

  /// How long it waits for the answer. A connection on which nothing at all arrives for interval and timeout together
  /// is closed, whatever was open on it.
  package var keepaliveTimeout: Duration = .seconds(20)

  /// A client that pings more often than this, three times over, is disconnected.
  package var minClientPingInterval: Duration = .seconds(10)

  /// How long calls may go on after a connection has been asked to close (shutdown, an expired certificate).
  package var drainTime: Duration = .seconds(30)

  // MARK: Streams and messages

  /// Calls that one client may have open at once on one connection. Its further ones wait in the client.
  package var maxConcurrentStreams = 256

  /// The same for an anonymous caller.
  package var maxAnonymousStreams = 32

  /// The largest message that either side receives. A larger one ends its call with RESOURCE_EXHAUSTED as soon as its
  /// length has been read; nothing is buffered for it.
  package var maxMessageByteCount = 8 << 20

  /// The same for what an anonymous caller sends. They never write; it is enough for a piece of a file all the same, so
  /// that somebody who tries is told what is wrong.
  package var anonymousMessageByteCount = 256 << 10

  /// What a stream may have received beyond the message that its handler waits for. When it holds at least one whole
  /// message and this many bytes, no more is read from it until the handler has taken some.
  package var readAheadByteCount = 256 << 10

  /// What all calls of one connection may have sent, together, that their handlers have not taken yet. The call that
  /// exceeds it ends with RESOURCE_EXHAUSTED. Beyond this, a connection can cost one window for each of its streams.
  package var connectionReceiveByteCount = 64 << 20

  /// The same for a connection of an anonymous caller.
  package var anonymousReceiveByteCount = 1 << 20

  /// The same for all connections of a server together.
  package var totalReceiveByteCount = 512 << 20

  /// Of that, for all connections of anonymous callers together: however many strangers there are, this much is left
  /// for those who belong here.
  package var totalAnonymousReceiveByteCount = 64 << 20

  /// The HTTP/2 flow control window of a stream. With TLS, 1 MiB gave the best throughput by far; with 8 MiB the frame
  /// decoder spends its time on copying what has piled up.
  package var windowByteCount = 1 << 20

  /// The same for what an anonymous caller sends: requests are small.
  package var anonymousWindowByteCount = 16 << 10

  /// The largest HTTP/2 frame. Larger than 16 KiB made everything slower.
  package var frameByteCount = 1 << 14

  /// How long written frames may wait for others to be sent with them, so that many small answers become one packet.
  /// With zero they wait for the end of the event loop's turn.
  package var flushDelay: Duration = .microseconds(100)

  /// The largest list of headers of a call. Fixed: grpc-swift does not let it be set.
  package static let headerListByteCount = 1 << 14

  // MARK: The pool of outgoing connections

  /// Peers that a pool knows at once: connected, connecting, or waiting to be tried again.
  package var maxPooledPeers = 1024

  /// How long a pool leaves a peer alone after the first failure to reach it. Doubles with each further one.
  package var initialBackoff: Duration = .milliseconds(100)

  /// The longest that it leaves a peer alone. The actual time is drawn at random between half of that and all of it, so
  /// that peers which lost the same server do not come back in step.
  package var maxBackoff: Duration = .seconds(15)

  package init() {}
}

extension TransportLimits {
  /// What holds for a connection of an anonymous caller: nowhere more than for others.
  var forAnonymous: TransportLimits {
    var limits = self
    limits.maxConcurrentStreams = min(self.maxConcurrentStreams, self.maxAnonymousStreams)
    limits.maxMessageByteCount = min(self.maxMessageByteCount, self.anonymousMessageByteCount)
    limits.connectionReceiveByteCount = min(self.connectionReceiveByteCount, self.anonymousReceiveByteCount)
    limits.windowByteCount = min(self.windowByteCount, self.anonymousWindowByteCount)
    return limits
  }

  /// ``maxConnections`` may have been set to less than ``maxAnonymousConnections``.
  var anonymousConnectionCountMax: Int { min(self.maxAnonymousConnections, self.maxConnections / 2) }

  /// After this much silence a connection is closed.
  var silence: TimeAmount { TimeAmount(self.keepaliveInterval + self.keepaliveTimeout) }
}
