# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 and gRPC frames by hand, to say what no library would say."""

import socket
import ssl
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# RFC 9113, section 6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
NO_ERROR, REFUSED_STREAM, CANCEL = 0x0, 0x7, 0x8


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(*fields):
    """A header block without compression (RFC 7541, 6.2.2). Names and values have at most 126 bytes."""
    block = b""
    for name, value in fields:
        name, value = name.encode(), value.encode()
        assert len(name) < 127 and len(value) < 127
        block += b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return block


def call(stream, path):
    """The frame that begins a gRPC call."""
    block = headers(
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "blocktree"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def message(bytes):
    """A gRPC message without compression."""
    return struct.pack(">BI", 0, len(bytes)) + bytes


def context(profile, anonymous=False):
    """How Python's own TLS checks a process, and shows who calls."""
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    result.load_verify_locations(cadata=profile.root.decode())
    result.set_alpn_protocols(["h2"])
    if not anonymous:
        result.load_cert_chain(profile.directory / "credential.pem", profile.directory / "key.pem")
    return result


def dial(profile, timeout=20):
    """A connection without TLS."""
    host, port = profile.address.rsplit(":", 1)
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Connection:
    """A TLS connection whose bytes are the caller's business."""

    def __init__(self, profile, anonymous=False, tls=None, start=True):
        tls = tls or context(profile, anonymous)
        self.socket = tls.wrap_socket(dial(profile), server_hostname=profile.tls_name)
        self.received = b""
        if start:
            self.send(PREFACE, frame(SETTINGS))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def frames(self):
        """The frames that arrive, until the peer closes the connection. Settings and pings are answered."""
        while True:
            head = self.take(9)
            if head is None:
                return
            length = int.from_bytes(head[:3], "big")
            payload = self.take(length)
            if payload is None:
                return
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
            yield kind, flags, stream, payload

    def take(self, count):
        while len(self.received) < count:
            try:
                more = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                return None
            self.received += more
        result, self.received = self.received[:count], self.received[count:]
        return result

    def round_trip(self):
        """Returns when the peer has taken all that was sent: it answers a ping after it. Also returns what came."""
        self.send(frame(PING, 0, 0, b"blocktre"))
        found = []
        for kind, flags, stream, payload in self.frames():
            if kind == PING and flags & ACK:
                return found
            found.append((kind, flags, stream, payload))
        raise AssertionError("the connection was closed")

    def wait_until_closed(self):
        """Returns what came before the peer closed. A peer that does not is an error (a timeout)."""
        return list(self.frames())

    # Ways to end it.

    def half_close(self):
        """Says at the level of TCP that no more will come, without a word in TLS or HTTP/2."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def reset(self):
        """Vanishes, as a process that is killed with unread data."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def wait_until_closed(connection):
    """The same for a plain socket."""
    deadline = time.monotonic() + 20
    received = b""
    try:
        while more := connection.recv(65536):
            received += more
            assert time.monotonic() < deadline, "the peer goes on talking"
    except ConnectionError:
        pass
    return received
