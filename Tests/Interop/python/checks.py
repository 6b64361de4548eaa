# SPDX-License-Identifier: Apache-2.0
"""Runs one check of a script: python SCRIPT SCENE CHECK, or python SCRIPT --list.

A scene is the directory in which a test keeps a running node: `node` is its directory and `pid` its process, `alice` the
profile of a second person, `foreign` a node's directory of another domain. `expired`, `sibling` and `unknown` hold
certificates that do not verify, with their keys. A check that fails says why on standard error and ends with 1.
"""

import contextlib
import functools
import os
import pathlib
import sys

import grpc
from blocktree.v1 import filesystem_pb2 as fs
from blocktree.v1 import filesystem_pb2_grpc as fs_grpc
from blocktree.v1 import sector_pb2_grpc

from connect import Profile, error_info

# Nothing here takes long; a call that hangs fails its check.
TIMEOUT = 30
checks = {}


def check(function):
    """Makes a function that takes the scene a check."""
    checks[function.__name__] = function
    return function


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(checks))
        return
    directory, name = sys.argv[1:]
    checks[name](Scene(directory))
    print("ok", name)


class Scene:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    @functools.cached_property
    def owner(self):
        return Profile(self.directory / "node" / "profile")

    @functools.cached_property
    def alice(self):
        return Profile(self.directory / "alice")

    @functools.cached_property
    def process(self):
        """What the system tells of the node."""
        return pathlib.Path("/proc", (self.directory / "pid").read_text().strip())

    def resident_bytes(self):
        """The memory that the node has at the moment."""
        return int((self.process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def connections(self):
        """How many sockets the node has open at the moment: its connections, and what it listens on."""
        count = 0
        for descriptor in (self.process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += os.readlink(descriptor).startswith("socket:")
        return count

    def folder(self, caller, name, mode=0o755):
        """A new directory for one check."""
        path = f"/{name}"
        caller.files.MakeDirectory(fs.MakeDirectoryRequest(path=path, mode=mode), timeout=TIMEOUT)
        return path


class Caller:
    """Somebody with a channel of their own."""

    def __init__(self, profile, **arguments):
        self.channel = profile.channel(**arguments)
        self.files = fs_grpc.FilesystemServiceStub(self.channel)
        self.sectors = sector_pb2_grpc.SectorServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def stat(self, path, follow=False):
        return self.files.Stat(fs.StatRequest(path=path, follow=follow), timeout=TIMEOUT).info

    def write(self, path, data, mode=fs.WRITE_MODE_CREATE, piece=64 << 10, **header):
        def parts():
            yield fs.WriteRequest(header=fs.WriteHeader(path=path, write_mode=mode, **header))
            for start in range(0, len(data), piece):
                yield fs.WriteRequest(data=data[start : start + piece])

        return self.files.Write(parts(), timeout=TIMEOUT).info

    def read(self, path, offset=0, length=0):
        request = fs.ReadRequest(path=path, offset=offset, length=length)
        return b"".join(part.data for part in self.files.Read(request, timeout=TIMEOUT))

    def names(self, path):
        return sorted(entry.name for entry in self.entries(path))

    def entries(self, path, page_size=0):
        cursor = b""
        while True:
            request = fs.ListRequest(path=path, cursor=cursor, page_size=page_size)
            page = self.files.List(request, timeout=TIMEOUT)
            yield from page.entries
            cursor = page.next_cursor
            if not cursor:
                return


def same(found, expected):
    assert found == expected, f"expected {expected!r}, found {found!r}"


@contextlib.contextmanager
def refused(code, reason=None, **metadata):
    """Expects that a call is refused, with this reason, and with at least this metadata."""
    try:
        yield
    except grpc.RpcError as error:
        info = error_info(error)
        found = (error.code().name, info and info.reason, info and dict(info.metadata), error.details())
        assert error.code() is code, f"expected {code.name}, found {found}"
        assert reason is None or (info and info.reason == reason), f"expected {reason}, found {found}"
        for key, value in metadata.items():
            same(info.metadata.get(key), value)
    else:
        raise AssertionError(f"expected {code.name}, but it was not refused")
