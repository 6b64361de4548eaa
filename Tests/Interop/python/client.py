# SPDX-License-Identifier: Apache-2.0
"""What a client can do that knows the schema and has a credential of its own."""

import queue
import random

import grpc
from blocktree.v1 import filesystem_pb2 as fs
from blocktree.v1 import types_pb2 as types
from checks import TIMEOUT, Caller, check, main, refused, same
from health.v1 import health_pb2, health_pb2_grpc


@check
def is_known_by_its_own_credential(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice:
        folder = scene.folder(owner, "identity", mode=0o777)
        same(owner.write(f"{folder}/hers", b"").owner, "/owner")
        same(alice.write(f"{folder}/his", b"").owner, "/alice")


@check
def describes_what_is_there(scene):
    with Caller(scene.owner) as owner:
        root = owner.stat("/")
        same((root.type, root.owner), (types.FILE_TYPE_DIRECTORY, "/owner"))
        same((root.file_id.generation, root.file_id.inode), (1, 2))
        same(owner.stat(scene.owner.process).type, types.FILE_TYPE_CREDENTIAL)
        room = owner.files.StatFilesystem(fs.StatFilesystemRequest(), timeout=TIMEOUT)
        same(room.generation, 1)
        assert room.sector_size >= 4096 and room.free_bytes <= room.total_bytes, room


@check
def makes_and_lists_directories(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "directories")
        names = sorted(["b", "ä", "a\u0308", "with space", "x" * 255, ".hidden", "%2F"])
        for name in names:
            owner.files.MakeDirectory(fs.MakeDirectoryRequest(path=f"{folder}/{name}"), timeout=TIMEOUT)
        same(owner.names(folder), names)
        # By pages, each entry once.
        same(sorted(entry.name for entry in owner.entries(folder, page_size=2)), names)
        deep = fs.MakeDirectoryRequest(path=f"{folder}/1/2/3", parents=True)
        same(owner.files.MakeDirectory(deep, timeout=TIMEOUT).info.type, types.FILE_TYPE_DIRECTORY)
        owner.files.MakeDirectory(deep, timeout=TIMEOUT)
        with refused(grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
            owner.files.MakeDirectory(fs.MakeDirectoryRequest(path=f"{folder}/b"), timeout=TIMEOUT)


@check
def writes_and_reads_3_mib(scene):
    data = random.Random(1).randbytes(3 << 20)
    with Caller(scene.alice) as alice, Caller(scene.owner) as owner:
        folder = scene.folder(owner, "transfer", mode=0o777)
        path = f"{folder}/big"
        info = alice.write(path, data)
        same((info.size, info.owner, info.mode), (len(data), "/alice", 0o644))
        assert owner.read(path) == data
        for offset, length in [(0, 1), (4095, 2), (1 << 20, 100_000), (len(data) - 1, 10), (len(data), 1)]:
            assert alice.read(path, offset, length) == data[offset : offset + length], (offset, length)
        same(alice.read(path, 1 << 40), b"")
        # Another content takes the place of the first, whole.
        alice.write(path, b"short", mode=fs.WRITE_MODE_REPLACE)
        same(owner.read(path), b"short")


@check
def changes_files_in_place(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "places")
        path = f"{folder}/f"
        owner.write(path, b"0123456789")
        owner.write(path, b"ab", mode=fs.WRITE_MODE_AT_OFFSET, offset=4)
        owner.write(path, b"!", mode=fs.WRITE_MODE_APPEND)
        same(owner.read(path), b"0123ab6789!")
        owner.files.Truncate(fs.TruncateRequest(path=path, size=2), timeout=TIMEOUT)
        same(owner.files.Truncate(fs.TruncateRequest(path=path, size=5), timeout=TIMEOUT).info.size, 5)
        same(owner.read(path), b"01\0\0\0")
        with refused(grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS"):
            owner.write(path, b"", mode=fs.WRITE_MODE_CREATE)


@check
def renames_and_links(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "names")
        call = owner.files
        owner.write(f"{folder}/a", b"a")
        owner.write(f"{folder}/b", b"b")
        call.Rename(fs.RenameRequest(**{"from": f"{folder}/a"}, to=f"{folder}/b"), timeout=TIMEOUT)
        same((owner.names(folder), owner.read(f"{folder}/b")), (["b"], b"a"))
        link = fs.MakeLinkRequest(existing=f"{folder}/b", path=f"{folder}/c")
        same(call.MakeLink(link, timeout=TIMEOUT).info.link_count, 2)
        call.MakeSymbolicLink(fs.MakeSymbolicLinkRequest(path=f"{folder}/s", target="c"), timeout=TIMEOUT)
        same(call.ReadSymbolicLink(fs.ReadSymbolicLinkRequest(path=f"{folder}/s"), timeout=TIMEOUT).target, "c")
        same(owner.stat(f"{folder}/s").type, types.FILE_TYPE_SYMBOLIC_LINK)
        same(owner.stat(f"{folder}/s", follow=True).type, types.FILE_TYPE_FILE)
        call.Remove(fs.RemoveRequest(path=f"{folder}/b"), timeout=TIMEOUT)
        same(owner.read(f"{folder}/s"), b"a")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_EMPTY"):
            call.Remove(fs.RemoveRequest(path=folder, kind=fs.REMOVE_KIND_DIRECTORY), timeout=TIMEOUT)


@check
def sets_attributes(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice:
        folder = scene.folder(owner, "attributes")
        path = f"{folder}/f"
        owner.write(path, b"secret")
        change = fs.SetAttributesRequest(path=path, mode=0o600, modified_ns=1_000_000_000)
        info = owner.files.SetAttributes(change, timeout=TIMEOUT).info
        same((info.mode, info.modified_ns), (0o600, 1_000_000_000))
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"):
            alice.read(path)
        access = [types.AccessEntry(path="/alice", permission=4)]
        grant = fs.SetAttributesRequest(path=path, access=access, set_access=True)
        owner.files.SetAttributes(grant, timeout=TIMEOUT)
        same(alice.read(path), b"secret")


@check
def performs_100_operations_over_one_stream(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "session")
        requests = queue.SimpleQueue()
        answers = owner.files.Session(iter(requests.get, None), timeout=TIMEOUT)

        def perform(operations):
            """All in one message; the answers by the operations' ids."""
            requests.put(fs.FilesystemServiceSessionRequest(operations=operations))
            found = {}
            while len(found) < len(operations):
                for result in next(answers).results:
                    assert found.setdefault(result.id, result) is result, f"{result.id} was answered twice"
            return found

        writes = [
            fs.FilesystemOperation(
                id=number,
                write=fs.WriteRequest(
                    header=fs.WriteHeader(path=f"{folder}/{number}", write_mode=fs.WRITE_MODE_CREATE),
                    data=b"%d" % number * 100,
                ),
            )
            for number in range(50)
        ]
        for result in perform(writes).values():
            same(result.WhichOneof("result"), "info")
        reads = [
            fs.FilesystemOperation(id=100 + number, read=fs.ReadRequest(path=f"{folder}/{number}"))
            for number in range(49)
        ]
        # What fails ends nothing else.
        reads.append(fs.FilesystemOperation(id=999, read=fs.ReadRequest(path=f"{folder}/missing")))
        results = perform(reads)
        same((results[999].failure.code, results[999].failure.reason), (5, "NOT_FOUND"))
        for number in range(49):
            assert results[100 + number].read.data == b"%d" % number * 100, number
        requests.put(None)
        same(list(answers), [])
        same(answers.code(), grpc.StatusCode.OK)
        same(len(owner.names(folder)), 50)


@check
def repeats_an_operation_safely(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "repeats")
        session = owner.files.OpenSession(fs.FilesystemServiceOpenSessionRequest(), timeout=TIMEOUT).session
        same(len(session), 16)
        request = fs.MakeDirectoryRequest(
            path=f"{folder}/d", operation=types.OperationId(session=session, sequence=1)
        )
        first = owner.files.MakeDirectory(request, timeout=TIMEOUT).info
        same(owner.files.MakeDirectory(request, timeout=TIMEOUT).info.file_id, first.file_id)


@check
def learns_why_a_call_failed(scene):
    with Caller(scene.owner) as owner:
        folder = scene.folder(owner, "reasons")
        owner.write(f"{folder}/f", b"")
        with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
            owner.stat(f"{folder}/missing")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "NOT_DIRECTORY"):
            owner.names(f"{folder}/f")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "IS_DIRECTORY"):
            owner.read(folder)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PATH", rule="notAbsolute"):
            owner.stat("relative")


@check
def asks_for_the_health(scene):
    with Caller(scene.owner) as owner:
        health = health_pb2_grpc.HealthStub(owner.channel)
        for service in ["", "blocktree.v1.FilesystemService", "blocktree.v1.SectorService"]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT)
            same(answer.status, health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    main()
