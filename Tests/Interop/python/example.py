# SPDX-License-Identifier: Apache-2.0
"""Stores a file, reads it back, and meets a refusal: python example.py PROFILE"""

import sys

import grpc
from blocktree.v1.filesystem_pb2 import WRITE_MODE_REPLACE, ReadRequest, StatRequest, WriteHeader, WriteRequest
from blocktree.v1.filesystem_pb2_grpc import FilesystemServiceStub

from connect import Profile, error_info

profile = Profile(sys.argv[1])
with profile.channel() as channel:
    files = FilesystemServiceStub(channel)

    def letter():
        yield WriteRequest(header=WriteHeader(path="/letter.txt", write_mode=WRITE_MODE_REPLACE))
        yield WriteRequest(data=b"Hello from Python.\n")

    info = files.Write(letter()).info
    print(f"/letter.txt: {info.size} bytes, owner {info.owner}")
    print(b"".join(part.data for part in files.Read(ReadRequest(path="/letter.txt"))).decode(), end="")
    try:
        files.Stat(StatRequest(path="/no/such/file"))
    except grpc.RpcError as error:
        print(f"/no/such/file: {error.code().name}, {error_info(error).reason}")
