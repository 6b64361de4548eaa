# SPDX-License-Identifier: Apache-2.0
"""What callers may not do, and that nothing they claim about themselves helps."""

import grpc
from blocktree.v1 import filesystem_pb2 as fs
from blocktree.v1 import sector_pb2 as sectors
from blocktree.v1 import types_pb2 as types
from checks import TIMEOUT, Caller, check, main, refused, same

DENIED = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


@check
def the_private_file_of_another(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice:
        folder = scene.folder(owner, "private")
        path = f"{folder}/diary"
        owner.write(path, b"dear diary")
        owner.files.SetAttributes(fs.SetAttributesRequest(path=path, mode=0o600), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.read(path)
        with refused(*DENIED):
            alice.write(path, b"x", mode=fs.WRITE_MODE_REPLACE)
        with refused(*DENIED):
            alice.write(path, b"x", mode=fs.WRITE_MODE_APPEND)
        with refused(*DENIED):
            alice.files.Truncate(fs.TruncateRequest(path=path), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.files.SetAttributes(fs.SetAttributesRequest(path=path, mode=0o666), timeout=TIMEOUT)
        # Nor is there another way to its sealed sectors.
        inode = owner.stat(path).file_id
        run = sectors.SectorRun(level=0, start=0, count=1)
        with refused(*DENIED):
            list(alice.sectors.ReadSectors(sectors.ReadSectorsRequest(file_id=inode, runs=[run]), timeout=TIMEOUT))
        with refused(*DENIED):
            alice.sectors.ReadRecords(sectors.ReadRecordsRequest(file_ids=[inode]), timeout=TIMEOUT)
        same(owner.read(path), b"dear diary")


@check
def to_learn_what_a_closed_directory_holds(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice, Caller(scene.alice, anonymous=True) as nobody:
        folder = scene.folder(owner, "closed", mode=0o700)
        owner.write(f"{folder}/here", b"")
        owner.files.SetAttributes(fs.SetAttributesRequest(path=f"{folder}/here", mode=0o600), timeout=TIMEOUT)
        for caller in [alice, nobody]:
            found = []
            for name in ["here", "missing", "missing/deeper", "here/deeper"]:
                with refused(*DENIED):
                    try:
                        caller.stat(f"{folder}/{name}")
                    except grpc.RpcError as error:
                        found.append((error.code(), error.details(), sorted(error.trailing_metadata())))
                        raise
            # Word for word the same, so nothing can be told apart.
            same(len({str(answer) for answer in found}), 1)
            with refused(*DENIED):
                caller.names(folder)


@check
def to_change_a_directory_of_another(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice:
        folder = scene.folder(owner, "directory")
        owner.write(f"{folder}/f", b"f")
        with refused(*DENIED):
            alice.write(f"{folder}/new", b"")
        with refused(*DENIED):
            alice.files.MakeDirectory(fs.MakeDirectoryRequest(path=f"{folder}/new"), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.files.Remove(fs.RemoveRequest(path=f"{folder}/f"), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.files.Rename(fs.RenameRequest(**{"from": f"{folder}/f"}, to=f"{folder}/g"), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.files.MakeLink(fs.MakeLinkRequest(existing=f"{folder}/f", path=f"{folder}/g"), timeout=TIMEOUT)
        with refused(*DENIED):
            alice.files.SetAttributes(fs.SetAttributesRequest(path=folder, owner="/alice"), timeout=TIMEOUT)
        same(owner.names(folder), ["f"])


@check
def anonymous_callers_to_write(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice, anonymous=True) as nobody:
        folder = scene.folder(owner, "open", mode=0o777)
        path = f"{folder}/f"
        owner.write(path, b"for everybody")
        owner.files.SetAttributes(fs.SetAttributesRequest(path=path, mode=0o666), timeout=TIMEOUT)
        same(nobody.read(path), b"for everybody")
        same(nobody.names(folder), ["f"])
        for mode in [fs.WRITE_MODE_REPLACE, fs.WRITE_MODE_APPEND, fs.WRITE_MODE_AT_OFFSET]:
            with refused(*DENIED):
                nobody.write(path, b"x", mode=mode)
        with refused(*DENIED):
            nobody.write(f"{folder}/new", b"")
        with refused(*DENIED):
            nobody.files.MakeDirectory(fs.MakeDirectoryRequest(path=f"{folder}/d"), timeout=TIMEOUT)
        with refused(*DENIED):
            nobody.files.Remove(fs.RemoveRequest(path=path), timeout=TIMEOUT)
        with refused(*DENIED):
            nobody.files.OpenSession(fs.FilesystemServiceOpenSessionRequest(), timeout=TIMEOUT)
        with refused(*DENIED):
            nobody.files.AddCredential(fs.AddCredentialRequest(credential=b"x"), timeout=TIMEOUT)
        same(owner.names(folder), ["f"])


@check
def anonymous_callers_in_the_sector_service(scene):
    with Caller(scene.alice, anonymous=True) as nobody:
        root = types.FileId(generation=1, inode=2)
        calls = [
            lambda: nobody.sectors.ReadRecords(sectors.ReadRecordsRequest(file_ids=[root]), timeout=TIMEOUT),
            lambda: nobody.sectors.OpenSession(sectors.SectorServiceOpenSessionRequest(), timeout=TIMEOUT),
            lambda: nobody.sectors.AllocateInodes(sectors.AllocateInodesRequest(count=1), timeout=TIMEOUT),
            lambda: nobody.sectors.Commit(sectors.CommitRequest(removals=[root]), timeout=TIMEOUT),
            lambda: nobody.sectors.Status(sectors.SectorServiceStatusRequest(), timeout=TIMEOUT),
        ]
        for call in calls:
            with refused(*DENIED):
                call()


@check
def a_forged_identity_header(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice, Caller(scene.alice, anonymous=True) as nobody:
        folder = scene.folder(owner, "forged", mode=0o755)
        owner.write(f"{folder}/f", b"f")
        owner.files.SetAttributes(fs.SetAttributesRequest(path=f"{folder}/f", mode=0o600), timeout=TIMEOUT)
        values = ["1", "0-1", "1-1", "/owner", "anonymous", "", "-", "ffffffffffffffff-ffffffffffffffff"]
        for name in ["x-blocktree-connection", "x-blocktree-caller", "x-blocktree-identity"]:
            for value in values:
                for caller in [alice, nobody]:
                    for metadata in [[(name, value)], [(name, value)] * 2]:
                        with refused(*DENIED):
                            request = fs.MakeDirectoryRequest(path=f"{folder}/d")
                            caller.files.MakeDirectory(request, metadata=metadata, timeout=TIMEOUT)
                        with refused(*DENIED):
                            request = fs.ReadRequest(path=f"{folder}/f")
                            list(caller.files.Read(request, metadata=metadata, timeout=TIMEOUT))
        # It does not take anything away from who may, either.
        metadata = [("x-blocktree-connection", "0-1")]
        request = fs.StatRequest(path=f"{folder}/f")
        same(owner.files.Stat(request, metadata=metadata, timeout=TIMEOUT).info.owner, "/owner")


@check
def the_session_of_another(scene):
    with Caller(scene.owner) as owner, Caller(scene.alice) as alice:
        folder = scene.folder(owner, "sessions", mode=0o777)
        session = owner.files.OpenSession(fs.FilesystemServiceOpenSessionRequest(), timeout=TIMEOUT).session
        for foreign in [session, bytes(16)]:
            operation = types.OperationId(session=foreign, sequence=1)
            with refused(grpc.StatusCode.FAILED_PRECONDITION, "SESSION_UNKNOWN"):
                request = fs.MakeDirectoryRequest(path=f"{folder}/d", operation=operation)
                alice.files.MakeDirectory(request, timeout=TIMEOUT)
        same(alice.names(folder), [])


@check
def to_admit_principals_without_an_authority(scene):
    with Caller(scene.alice) as alice:
        for credential in [b"", b"x", bytes(40_000)]:
            try:
                alice.files.AddCredential(fs.AddCredentialRequest(credential=credential), timeout=TIMEOUT)
            except grpc.RpcError as error:
                allowed = [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED]
                assert error.code() in allowed, error
            else:
                raise AssertionError("it was taken")


if __name__ == "__main__":
    main()
