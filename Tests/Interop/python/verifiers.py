# SPDX-License-Identifier: Apache-2.0
"""grpcio as a verifier that knows nothing of paths: python verifiers.py call ADDRESS ROOT NAME
and a server that shows a certificate of one's choice: python verifiers.py serve CHAIN KEY

`call` prints `accepted` or `refused`, with what grpcio says. `serve` prints its address and serves until its standard
input ends.
"""

import concurrent.futures
import pathlib
import sys

import grpc


def call(address, root, name):
    credentials = grpc.ssl_channel_credentials(pathlib.Path(root).read_bytes())
    with grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)]) as channel:
        identity = bytes
        method = channel.unary_unary("/no.such.Service/Call", request_serializer=identity, response_deserializer=identity)
        try:
            method(b"", timeout=20)
        except grpc.RpcError as error:
            # A server that says anything at all has been accepted.
            accepted = error.code() is grpc.StatusCode.UNIMPLEMENTED
            print("accepted" if accepted else f"refused {error.code().name} {error.details()}")


def serve(chain, key):
    pair = (pathlib.Path(key).read_bytes(), pathlib.Path(chain).read_bytes())
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    {"call": call, "serve": serve}[sys.argv[1]](*sys.argv[2:])
