# SPDX-License-Identifier: Apache-2.0
"""Hosts a service that says everything louder: python service.py PROFILE"""

import queue
import sys

from blocktree.v1.message_pb2 import AttachRequest, Payload, Registration, Reply
from blocktree.v1.message_pb2_grpc import RelayServiceStub

from connect import Profile

profile = Profile(sys.argv[1])
requests = queue.SimpleQueue()
requests.put(AttachRequest(registration=Registration(services=["shout"])))
with profile.channel() as channel:
    for response in RelayServiceStub(channel).Attach(iter(requests.get, None)):
        if response.HasField("registered"):
            print(f"hosting in {response.registered.scope}", flush=True)
            continue
        message = response.message
        print(f"{message.sender} says {message.payload.data.decode()}", flush=True)
        if message.payload.data == b"":
            reply = Reply(call=message.call, refusal="say something")
        else:
            reply = Reply(call=message.call, payload=Payload(type_name="text", data=message.payload.data.upper()))
        requests.put(AttachRequest(reply=reply))
