# SPDX-License-Identifier: Apache-2.0
"""What a client in Python needs to call a domain: a profile, the name that TLS checks, a channel, and error reasons.

Meant to be read and copied: it takes grpcio, grpcio-status and what grpcio-tools generates from Schema, nothing else.
"""

import base64
import hashlib
import json
import pathlib
import ssl

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# How DER writes that a P-256 key follows: the first bytes of its SubjectPublicKeyInfo, before the point (65 bytes).
P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def base32(data):
    return base64.b32encode(data).decode().lower().rstrip("=")


def domain_id(root_pem):
    """The domain's id: the base32 of the SHA-256 of the root principal's public key."""
    der = ssl.PEM_cert_to_DER_cert(root_pem.decode())
    start = der.index(P256_PREFIX)
    return base32(hashlib.sha256(der[start : start + len(P256_PREFIX) + 65]).digest())


def tls_name(domain, path):
    """The DNS name of the process at a path: /a/b is h(b).h(a).<domain id>.blocktree.internal.

    h is the first 10 bytes of a SHA-256 in base32. From the tenth component on, all share one label.
    """

    def label(components):
        text = b"blocktree/dns/v1" + domain.encode() + b"".join(b"/" + name for name in components)
        return base32(hashlib.sha256(text).digest()[:10])

    components = path.encode().split(b"/")[1:]
    labels = [label([name]) for name in components[:9]]
    if components[9:]:
        labels.append(label(components[9:]))
    return ".".join(labels[::-1] + [domain, "blocktree.internal"])


class Profile:
    """A profile directory, as `btnode init` and `btrpc user add` make it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.root = (self.directory / "root.pem").read_bytes()
        description = json.loads((self.directory / "profile.json").read_text())
        self.path = description.get("path")
        self.process = description["processes"][0]["path"]
        self.address = description["processes"][0]["addresses"][0]
        self.domain = domain_id(self.root)

    @property
    def tls_name(self):
        return tls_name(self.domain, self.process)

    def channel(self, anonymous=False, address=None, name=None, options=()):
        """A channel to the profile's process. The process must prove that it is the one, and the caller who it is."""
        key = None if anonymous else (self.directory / "key.pem").read_bytes()
        chain = None if anonymous else (self.directory / "credential.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(self.root, key, chain)
        options = [
            # The address says where the process is, the name who it is.
            ("grpc.ssl_target_name_override", name or self.tls_name),
            # Channels with equal arguments would share a connection. Here each has one of its own.
            ("grpc.use_local_subchannel_pool", 1),
            *options,
        ]
        return grpc.secure_channel(address or self.address, credentials, options)


def error_info(error):
    """The google.rpc.ErrorInfo of a failed call: a stable reason, and what is needed to act. None if there is none."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "blocktree":
            return info
    return None
