# SPDX-License-Identifier: Apache-2.0
"""Bad input over the wire: each gets the right status, and the node goes on serving others."""

import contextlib
import random
import secrets
import socket
import ssl
import time

import grpc
import http2
from blocktree.v1 import filesystem_pb2 as fs
from blocktree.v1 import sector_pb2 as sectors
from blocktree.v1 import types_pb2 as types
from checks import TIMEOUT, Caller, check, main, refused, same

FILES = "/blocktree.v1.FilesystemService/"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def still_serves(scene):
    """A new connection stores and reads a file."""
    with Caller(scene.owner) as owner:
        data = secrets.token_bytes(10_000)
        path = f"/proof-{secrets.token_hex(8)}"
        owner.write(path, data)
        same(owner.read(path), data)
        owner.files.Remove(fs.RemoveRequest(path=path), timeout=TIMEOUT)


def wire_check(function):
    def checked(scene):
        function(scene)
        still_serves(scene)

    checked.__name__ = function.__name__
    return check(checked)


def raw(caller, method, kind="unary_unary"):
    """A call of bytes, whatever they are."""
    make = getattr(caller.channel, kind)
    return make(FILES + method, request_serializer=bytes, response_deserializer=bytes)


# Messages


@wire_check
def malformed_protobuf(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "malformed")
        header = fs.WriteRequest(header=fs.WriteHeader(path=f"{folder}/f", write_mode=fs.WRITE_MODE_CREATE))
        # A field of wire type 7, a length beyond the end, a number that never ends, text that is not UTF-8.
        for garbage in [b"\xff\xff\xff", b"\x0a\x7fabc", b"\x08" + b"\x80" * 11, b"\x0a\x02/\xff"]:
            with refused(INVALID):
                raw(owner, "Stat")(garbage, timeout=TIMEOUT)
            with refused(INVALID):
                list(raw(owner, "Read", "unary_stream")(garbage, timeout=TIMEOUT))
            with refused(INVALID):
                parts = iter([header.SerializeToString(), garbage])
                raw(owner, "Write", "stream_unary")(parts, timeout=TIMEOUT)
            with refused(INVALID):
                list(raw(owner, "Session", "stream_stream")(iter([garbage]), timeout=TIMEOUT))
        same(owner.names(folder), [])


@wire_check
def random_messages(scene):
    """Random changes to good requests never cause a fault of the node."""
    rng = random.Random(7)
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "random")
        owner.write(f"{folder}/f", b"f")
        requests = {
            "Stat": fs.StatRequest(path=f"{folder}/f"),
            "List": fs.ListRequest(path=folder, page_size=10, with_info=True),
            "MakeSymbolicLink": fs.MakeSymbolicLinkRequest(path=f"{folder}/s", target="f"),
            "SetAttributes": fs.SetAttributesRequest(path=f"{folder}/f", mode=0o644, accessed_ns=1),
            "Truncate": fs.TruncateRequest(path=f"{folder}/f", size=100),
            "Rename": fs.RenameRequest(**{"from": f"{folder}/f", "to": f"{folder}/f"}),
        }
        for method, request in requests.items():
            good = request.SerializeToString()
            for _ in range(40):
                bad = bytearray(good)
                for _ in range(rng.randint(1, 3)):
                    bad[rng.randrange(len(bad))] = rng.randrange(256)
                with contextlib.suppress(grpc.RpcError):
                    raw(owner, method)(bytes(bad[: rng.randint(1, len(bad))]), timeout=TIMEOUT)


@wire_check
def an_oversized_message(scene):
    with Caller(scene.owner, options=[("grpc.max_send_message_length", -1)]) as owner:
        folder = scene.folder(owner, "oversized")
        big = fs.StatRequest(path="/" + "x" * (9 << 20)).SerializeToString()
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"):
            raw(owner, "Stat")(big, timeout=TIMEOUT)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"):
            owner.write(f"{folder}/f", bytes(9 << 20), piece=9 << 20)
        # Below the limit of a message, and beyond that of a part.
        with refused(INVALID, "TOO_LARGE", limit=str(1 << 20)):
            owner.write(f"{folder}/f", bytes(2 << 20), piece=2 << 20)
        same(owner.names(folder), [])
        with refused(INVALID, "TOO_LARGE", limit="1000"):
            owner.files.List(fs.ListRequest(path=folder, page_size=1001), timeout=TIMEOUT)
        with refused(INVALID, "TOO_LARGE", limit="256"):
            operations = [fs.FilesystemOperation(id=number) for number in range(257)]
            request = fs.FilesystemServiceSessionRequest(operations=operations)
            list(owner.files.Session(iter([request]), timeout=TIMEOUT))
        with refused(INVALID, "TOO_LARGE", limit="256"):
            request = sectors.ReadRecordsRequest(file_ids=[types.FileId(generation=1, inode=2)] * 257)
            owner.sectors.ReadRecords(request, timeout=TIMEOUT)


@wire_check
def an_announced_size_that_never_comes(scene):
    """A length is refused as it is read; nothing is kept for it."""
    with http2.Connection(scene.owner) as connection:
        connection.send(
            http2.call(1, FILES + "Stat"),
            http2.frame(http2.DATA, 0, 1, b"\0\xff\xff\xff\xff"),
        )
        for kind, flags, stream, _ in connection.frames():
            if kind == http2.HEADERS and stream == 1 and flags & http2.END_STREAM:
                break
        else:
            raise AssertionError("the connection was closed")


@wire_check
def unknown_calls_and_values(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "unknown")
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            raw(owner, "NoSuchMethod")(b"", timeout=TIMEOUT)
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            owner.channel.unary_unary("/no.Service/Call", bytes, bytes)(b"", timeout=TIMEOUT)
        for mode in [0, 99]:
            with refused(INVALID, "INVALID_REQUEST", field="write_mode"):
                owner.write(f"{folder}/f", b"", mode=mode)
        with refused(INVALID, "INVALID_REQUEST"):
            owner.files.MakeDirectory(fs.MakeDirectoryRequest(path=f"{folder}/d", mode=0o200000), timeout=TIMEOUT)
        with refused(INVALID, "INVALID_REQUEST", field="header"):
            owner.files.Write(iter([fs.WriteRequest(data=b"x")]), timeout=TIMEOUT)
        with refused(INVALID, "INVALID_REQUEST", field="header"):
            owner.files.Write(iter([]), timeout=TIMEOUT)
        with refused(grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE"):
            owner.write(f"{folder}/f", b"f")
            owner.files.Truncate(fs.TruncateRequest(path=f"{folder}/f", size=(1 << 64) - 1), timeout=TIMEOUT)
        with refused(grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE"):
            owner.write(f"{folder}/f", b"x", mode=fs.WRITE_MODE_AT_OFFSET, offset=(1 << 64) - 1)
        same(owner.read(f"{folder}/f", (1 << 64) - 1, (1 << 64) - 1), b"")
        same(owner.names(folder), ["f"])


@wire_check
def paths_that_are_none(scene):
    bad = {
        "": "empty",
        "a": "notAbsolute",
        "//": "emptyComponent",
        "/a/": "emptyComponent",
        "/a//b": "emptyComponent",
        "/a\0b": "nul",
        "/\0": "nul",
        "/..": "dotComponent",
        "/../etc/passwd": "dotComponent",
        "/a/../b": "dotComponent",
        "/.": "dotComponent",
        "/a/./b": "dotComponent",
        "/" + "x" * 256: "componentTooLong",
        "/" + "ä" * 128: "componentTooLong",
        "/x" * 2049: "pathTooLong",
    }
    with Caller(scene.owner) as owner:
        before = owner.names("/")
        files = owner.files
        for path, rule in bad.items():
            calls = [
                lambda: owner.stat(path),
                lambda: owner.names(path),
                lambda: owner.read(path),
                lambda: owner.write(path, b"x"),
                lambda: files.MakeDirectory(fs.MakeDirectoryRequest(path=path, parents=True), timeout=TIMEOUT),
                lambda: files.MakeSymbolicLink(fs.MakeSymbolicLinkRequest(path=path, target="x"), timeout=TIMEOUT),
                lambda: files.MakeLink(fs.MakeLinkRequest(existing="/owner", path=path), timeout=TIMEOUT),
                lambda: files.Rename(fs.RenameRequest(**{"from": path}, to="/x"), timeout=TIMEOUT),
                lambda: files.Rename(fs.RenameRequest(**{"from": "/owner"}, to=path), timeout=TIMEOUT),
                lambda: files.Remove(fs.RemoveRequest(path=path), timeout=TIMEOUT),
                lambda: files.SetAttributes(fs.SetAttributesRequest(path=path, mode=0), timeout=TIMEOUT),
                lambda: files.SetAttributes(fs.SetAttributesRequest(path="/owner", group=path), timeout=TIMEOUT),
            ]
            for call in calls:
                with refused(INVALID, "INVALID_PATH", rule=rule):
                    call()
        same(owner.names("/"), before)
        # The longest that are good.
        with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
            owner.stat("/" + "x" * 255)
        with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
            owner.stat("/x" * 2048)


@wire_check
def a_generation_of_others(scene):
    with Caller(scene.owner) as owner:
        wrong = (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_GENERATION")
        other = types.FileId(generation=2, inode=2)
        with refused(*wrong):
            owner.sectors.ReadRecords(sectors.ReadRecordsRequest(file_ids=[other]), timeout=TIMEOUT)
        with refused(*wrong):
            runs = [sectors.SectorRun(level=0, start=0, count=1)]
            list(owner.sectors.ReadSectors(sectors.ReadSectorsRequest(file_id=other, runs=runs), timeout=TIMEOUT))
        with refused(*wrong):
            owner.sectors.Commit(sectors.CommitRequest(removals=[other]), timeout=TIMEOUT)
        path = f"{scene.folder(owner, 'generations')}/f"
        own = owner.write(path, b"kept").file_id
        with refused(*wrong):
            condition = sectors.Condition(file_id=other, version=1)
            owner.sectors.Commit(sectors.CommitRequest(conditions=[condition], removals=[own]), timeout=TIMEOUT)
        same(owner.read(path), b"kept")
        for nothing in [types.FileId(), types.FileId(generation=1), types.FileId(inode=1)]:
            with refused(INVALID, "INVALID_REQUEST", field="file_ids"):
                owner.sectors.ReadRecords(sectors.ReadRecordsRequest(file_ids=[nothing]), timeout=TIMEOUT)


@wire_check
def stale_versions(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "stale")
        path = f"{folder}/f"
        old = owner.write(path, b"1" * 5000)
        new = owner.write(path, b"2" * 5000, mode=fs.WRITE_MODE_AT_OFFSET)
        same(old.file_id, new.file_id)
        assert new.version > old.version
        # Removing it would be permitted, were it as the caller believes.
        for believed in [old.version, new.version + 1, 0]:
            with refused(grpc.StatusCode.ABORTED, "CONFLICT", current=str(new.version)):
                condition = sectors.Condition(file_id=new.file_id, version=believed)
                request = sectors.CommitRequest(conditions=[condition], removals=[new.file_id])
                owner.sectors.Commit(request, timeout=TIMEOUT)
        same(owner.read(path), b"2" * 5000)
        for version in [old.version, new.version + 1]:
            try:
                runs = [sectors.SectorRun(level=0, start=0, count=1)]
                request = sectors.ReadSectorsRequest(file_id=new.file_id, version=version, runs=runs)
                list(owner.sectors.ReadSectors(request, timeout=TIMEOUT))
            except grpc.RpcError as error:
                allowed = [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE]
                assert error.code() in allowed, error
            else:
                raise AssertionError(f"version {version} was read")
        # A record that is put back as it was.
        record = owner.sectors.ReadRecords(sectors.ReadRecordsRequest(file_ids=[new.file_id]), timeout=TIMEOUT).records[0]
        record.ClearField("acceptance")
        with refused(grpc.StatusCode.ABORTED, "CONFLICT", current=str(new.version)):
            owner.sectors.Commit(sectors.CommitRequest(records=[record]), timeout=TIMEOUT)


@wire_check
def operations_that_are_too_old(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "operations")
        session = owner.files.OpenSession(fs.FilesystemServiceOpenSessionRequest(), timeout=TIMEOUT).session

        def make(name, sequence):
            operation = types.OperationId(session=session, sequence=sequence)
            request = fs.MakeDirectoryRequest(path=f"{folder}/{name}", operation=operation)
            owner.files.MakeDirectory(request, timeout=TIMEOUT)

        make("new", 5000)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "OPERATION_TOO_OLD"):
            make("old", 3976)
        make("kept", 3977)
        with refused(INVALID, "INVALID_REQUEST"):
            make("zero", 0)
        with refused(INVALID, "INVALID_REQUEST"):
            operation = types.OperationId(session=b"short", sequence=1)
            request = fs.MakeDirectoryRequest(path=f"{folder}/short", operation=operation)
            owner.files.MakeDirectory(request, timeout=TIMEOUT)
        same(owner.names(folder), ["kept", "new"])


# Connections


@wire_check
def garbage_instead_of_tls(scene):
    rng = random.Random(3)
    greetings = [
        rng.randbytes(4096),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        http2.PREFACE + http2.frame(http2.SETTINGS),
        # The beginning of a handshake, and then nonsense.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(2000),
    ]
    for greeting in greetings:
        with http2.dial(scene.owner) as connection:
            connection.sendall(greeting)
            http2.wait_until_closed(connection)


@wire_check
def older_tls_and_other_protocols(scene):
    for change in [
        lambda tls: setattr(tls, "maximum_version", ssl.TLSVersion.TLSv1_2),
        lambda tls: tls.set_alpn_protocols(["http/1.1"]),
    ]:
        for anonymous in [False, True]:
            tls = http2.context(scene.owner, anonymous)
            change(tls)
            try:
                connection = http2.Connection(scene.owner, tls=tls)
            except (ssl.SSLError, ConnectionError):
                continue
            with connection:
                same([kind for kind, *_ in connection.frames()], [])
                assert connection.socket.version() == "TLSv1.3"
    # With no protocol at all nothing is said.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=scene.owner.root.decode())
    with http2.Connection(scene.owner, tls=tls) as connection:
        same(connection.wait_until_closed(), [])


@wire_check
def certificates_that_do_not_verify(scene):
    """They are refused; nobody becomes anonymous by showing a bad one."""
    for name in ["expired", "sibling", "unknown", "foreign/profile"]:
        directory = scene.directory / name
        tls = http2.context(scene.owner, anonymous=True)
        tls.load_cert_chain(directory / "credential.pem", directory / "key.pem")
        # With TLS 1.3 a client learns that it was refused when it reads.
        with http2.Connection(scene.owner, tls=tls, start=False) as connection:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                request = http2.message(fs.StatRequest(path="/").SerializeToString())
                connection.send(
                    http2.PREFACE,
                    http2.frame(http2.SETTINGS),
                    http2.call(1, FILES + "Stat"),
                    http2.frame(http2.DATA, http2.END_STREAM, 1, request),
                )
            same(connection.wait_until_closed(), [])


@wire_check
def handshakes_that_dawdle(scene):
    with http2.dial(scene.owner) as silent, http2.dial(scene.owner) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        still_serves(scene)
        http2.wait_until_closed(silent)
        http2.wait_until_closed(slow)


@wire_check
def garbage_after_the_handshake(scene):
    rng = random.Random(5)
    settings = http2.PREFACE + http2.frame(http2.SETTINGS)
    start = http2.call(1, FILES + "Stat")
    garbage = [
        rng.randbytes(4096),
        # Frames that are too large, on the wrong stream, or in the wrong place.
        settings + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + rng.randbytes(65536),
        settings + http2.frame(http2.DATA, 0, 1, b"before its headers"),
        settings + http2.frame(http2.HEADERS, http2.END_HEADERS, 0, http2.headers((":method", "POST"))),
        settings + http2.frame(http2.HEADERS, http2.END_HEADERS, 1, rng.randbytes(100)),
        settings + http2.frame(http2.CONTINUATION, 0, 1, b""),
        settings + http2.frame(http2.PUSH_PROMISE, http2.END_HEADERS, 1, bytes(4)),
        settings + http2.frame(http2.SETTINGS, 0, 0, b"odd"),
        settings + http2.frame(http2.WINDOW_UPDATE, 0, 0, bytes(4)),
        settings + start + http2.frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
    ]
    for number, bytes_ in enumerate(garbage):
        with http2.Connection(scene.owner, start=False) as connection:
            try:
                connection.send(bytes_)
                connection.wait_until_closed()
            except TimeoutError:
                raise AssertionError(f"garbage {number} was not answered with the end of the connection") from None
            except (ConnectionError, ssl.SSLError):
                pass


@wire_check
def headers_without_end(scene):
    """A list of headers that goes on and on ends the connection, not the node's memory."""
    with http2.Connection(scene.owner) as connection:
        field = http2.headers(("x-more", "y" * 100))
        connection.send(http2.frame(http2.HEADERS, 0, 1, field))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(10_000):
                connection.send(http2.frame(http2.CONTINUATION, 0, 1, field * 100))
            raise AssertionError("100 MB of headers were taken")


@wire_check
def pings_and_resets_without_end(scene):
    for flood in [
        lambda number: http2.frame(http2.PING, 0, 0, bytes(8)),
        lambda number: http2.frame(http2.SETTINGS),
        lambda number: http2.call(2 * number + 1, FILES + "Stat")
        + http2.frame(http2.RST_STREAM, 0, 2 * number + 1, bytes([0, 0, 0, http2.CANCEL])),
    ]:
        with http2.Connection(scene.owner) as connection:
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                connection.socket.settimeout(5)
                for start in range(0, 20_000, 100):
                    connection.send(*(flood(number) for number in range(start, start + 100)))
            still_serves(scene)


@wire_check
def a_flood_of_idle_connections(scene):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(http2.dial(scene.owner))
        still_serves(scene)
        for number in range(200):
            stack.enter_context(http2.Connection(scene.alice, anonymous=number % 2 == 0))
        still_serves(scene)


# Streams


def begin_write(stream, path, data):
    header = fs.WriteRequest(header=fs.WriteHeader(path=path, write_mode=fs.WRITE_MODE_CREATE), data=data)
    return [
        http2.call(stream, FILES + "Write"),
        http2.frame(http2.DATA, 0, stream, http2.message(header.SerializeToString())),
    ]


def settle(scene, owner, folder, connections):
    """Waits until the node has let go of all connections but so many, and lets it do work of the same kind, so that what
    it was going to do is done."""
    deadline = time.monotonic() + TIMEOUT
    while (count := scene.connections()) > connections:
        assert time.monotonic() < deadline, f"the node has {count} connections, and had {connections}"
        time.sleep(0.01)
    for number in range(10):
        owner.write(f"{folder}/settle-{number}", b"x" * 5000)
        owner.files.Remove(fs.RemoveRequest(path=f"{folder}/settle-{number}"), timeout=TIMEOUT)


@wire_check
def streams_that_never_end(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "endless")
        before = scene.connections()
        connection = http2.Connection(scene.owner)
        # The limit holds from the moment when the client has heard of it.
        connection.round_trip()
        streams = range(1, 512, 2)
        for stream in streams:
            connection.send(*begin_write(stream, f"{folder}/{stream}", b"x" * 100))
        # As many as one connection may have.
        connection.round_trip()
        still_serves(scene)
        same(owner.names(folder), [])
        # One of them comes to an end after all.
        connection.send(http2.frame(http2.DATA, http2.END_STREAM, 1))
        for kind, flags, stream, _ in connection.frames():
            if kind == http2.HEADERS and stream == 1 and flags & http2.END_STREAM:
                break
        same(owner.names(folder), ["1"])
        # More than that cost the client the new stream or the connection.
        for stream in [513, 515]:
            connection.send(*begin_write(stream, f"{folder}/{stream}", b"x"))
        for kind, _, stream, _ in connection.frames():
            if kind == http2.RST_STREAM and stream == 515:
                break
        connection.reset()
        settle(scene, owner, folder, before)
        same(owner.names(folder), ["1"])


@wire_check
def a_client_that_stops_reading(scene):
    with Caller(scene.owner) as owner, Caller(scene.owner) as lazy:
        folder = scene.folder(owner, "lazy")
        data = random.Random(9).randbytes(8 << 20)
        owner.write(f"{folder}/big", data)
        before = scene.resident_bytes()
        request = fs.ReadRequest(path=f"{folder}/big")
        calls = [lazy.files.Read(request, timeout=60) for _ in range(64)]
        for call in calls:
            same(next(call).info.size, len(data))
        still_serves(scene)
        grown = scene.resident_bytes() - before
        # All of it would be 512 MiB. Each stream may have a window full under way, and what is read ahead of that.
        assert grown < 300 << 20, f"the node has grown by {grown >> 20} MiB"
        # Whoever comes back finds everything.
        assert b"".join(part.data for part in calls[-1]) == data
        for call in calls:
            call.cancel()


@wire_check
def writes_that_break_off(scene):
    whole = http2.message(fs.WriteRequest(data=b"y" * 1000).SerializeToString())

    def truncated(*end):
        """The stream ends well, but in the middle of a message, or of the five bytes before it."""

        def act(connection):
            connection.send(*end)
            for kind, flags, stream, _ in connection.frames():
                if stream == 1 and (kind == http2.RST_STREAM or kind == http2.HEADERS and flags & http2.END_STREAM):
                    return

        return act

    trailers = http2.frame(
        http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, 1, http2.headers(("x-end", "of the story"))
    )

    def reset_stream(code):
        def act(connection):
            connection.send(http2.frame(http2.RST_STREAM, 0, 1, code.to_bytes(4, "big")))
            connection.round_trip()

        return act

    def goaway(connection):
        connection.send(http2.frame(http2.GOAWAY, 0, 0, bytes(8)))
        connection.half_close()
        connection.wait_until_closed()

    def half_close(connection):
        connection.half_close()
        http2.wait_until_closed(connection.socket)

    def close_notify(connection):
        connection.socket.settimeout(5)
        with contextlib.suppress(OSError):
            connection.socket.unwrap()

    def partial_frame(connection):
        connection.send(http2.frame(http2.DATA, 0, 1, whole)[:300])
        connection.reset()

    endings = {
        "truncated": truncated(http2.frame(http2.DATA, http2.END_STREAM, 1, whole[:500])),
        "truncated-prefix": truncated(http2.frame(http2.DATA, http2.END_STREAM, 1, whole[:3])),
        "truncated-late": truncated(
            http2.frame(http2.DATA, 0, 1, whole[:500]), http2.frame(http2.DATA, http2.END_STREAM, 1)
        ),
        "truncated-by-trailers": truncated(http2.frame(http2.DATA, 0, 1, whole[:500]), trailers),
        "cancel": reset_stream(http2.CANCEL),
        "no-error": reset_stream(http2.NO_ERROR),
        "goaway": goaway,
        "half-close": half_close,
        "close-notify": close_notify,
        "partial-frame": partial_frame,
        "reset": lambda connection: connection.reset(),
    }
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "broken")
        before = scene.connections()
        for mode in [fs.WRITE_MODE_CREATE, fs.WRITE_MODE_REPLACE]:
            for name, end in endings.items():
                if mode == fs.WRITE_MODE_REPLACE:
                    owner.write(f"{folder}/{name}", b"as it was")
                header = fs.WriteRequest(header=fs.WriteHeader(path=f"{folder}/{name}", write_mode=mode))
                with http2.Connection(scene.owner) as connection:
                    connection.send(
                        http2.call(1, FILES + "Write"),
                        http2.frame(http2.DATA, 0, 1, http2.message(header.SerializeToString())),
                        # More than is held in memory, and some.
                        *[http2.frame(http2.DATA, 0, 1, whole) for _ in range(20)],
                    )
                    connection.round_trip()
                    end(connection)
                settle(scene, owner, folder, before)
                if mode == fs.WRITE_MODE_CREATE:
                    assert name not in owner.names(folder), f"after {name} the file is there"
                else:
                    same((name, owner.read(f"{folder}/{name}")), (name, b"as it was"))


@wire_check
def clients_that_vanish(scene):
    """In the middle of reads, writes and sessions, many at a time."""
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "vanish")
        owner.write(f"{folder}/f", bytes(2 << 20))
        read = http2.message(fs.ReadRequest(path=f"{folder}/f").SerializeToString())
        stat = fs.FilesystemOperation(id=1, stat=fs.StatRequest(path=folder))
        session = http2.message(fs.FilesystemServiceSessionRequest(operations=[stat] * 100).SerializeToString())
        before = scene.connections()
        for number in range(30):
            connection = http2.Connection(scene.owner)
            connection.send(
                http2.call(1, FILES + "Read"),
                http2.frame(http2.DATA, http2.END_STREAM, 1, read),
                http2.call(3, FILES + "Session"),
                http2.frame(http2.DATA, 0, 3, session),
                *begin_write(5, f"{folder}/never-{number}", b"x" * 1000),
            )
            connection.round_trip()
            connection.reset()
        settle(scene, owner, folder, before)
        same(owner.names(folder), ["f"])


if __name__ == "__main__":
    main()
