"""Asks a backend one thing, as a client of the gateway: logs in over HTTP, then
speaks the protocol over TCP (protocol/SPEC.md, chapters 2, 3 and 8). To try a
backend with; a client for people resends, orders and catches up as well.

The password comes from SLUICE_PASSWORD or a prompt; --register makes the user first.
"""

import argparse
import getpass
import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request

from sluice.v1 import packet_pb2


def call(server, path, body=None):
    """One HTTP call, answered in JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    question = urllib.request.Request(f"http://{server}{path}", data, headers)
    with urllib.request.urlopen(question, timeout=10) as answer:
        return json.load(answer)


def exactly(stream, size):
    data = stream.read(size)
    if len(data) < size:
        sys.exit("the gateway has closed the connection")
    return data


def ask(stream, packet):
    """Sends a packet and waits for the one that answers it, by its id."""
    data = packet.SerializeToString()
    stream.write(len(data).to_bytes(4, "big") + data)
    stream.flush()
    while True:
        answer = packet_pb2.Packet()
        answer.ParseFromString(exactly(stream, int.from_bytes(exactly(stream, 4), "big")))
        if answer.id == packet.id:
            return answer


def refused(answer):
    body = answer.WhichOneof("body")
    sys.exit(f"{body}: {getattr(answer, body)}".strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:8080", help="of the HTTP APIs")
    parser.add_argument("--user", required=True)
    parser.add_argument("--register", action="store_true")
    parser.add_argument("--key", default="", help="requests of one key stay in order")
    parser.add_argument("service")
    parser.add_argument("text")
    options = parser.parse_args()

    password = os.environ.get("SLUICE_PASSWORD") or getpass.getpass()
    account = {"user_id": options.user, "password": password}
    try:
        if options.register:
            call(options.server, "/users/register", account)
        token = call(options.server, "/users/login", account)["token"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")
    host, port = call(options.server, "/endpoints")["tcp"].rsplit(":", 1)
    if host in ("0.0.0.0", "[::]"):
        host = options.server.rsplit(":", 1)[0]

    with socket.create_connection((host, int(port)), timeout=70) as connection:
        stream = connection.makefile("rwb")
        answer = ask(stream, packet_pb2.Packet(id=1, connect=packet_pb2.Connect(
            protocol_version=1, token=token, device_id=f"ask-{secrets.token_hex(4)}",
            platform=packet_pb2.PLATFORM_BOT, nonce=secrets.token_bytes(16),
            time_ms=int(time.time() * 1_000), agent="ask.py")))
        if answer.WhichOneof("body") != "connect_ack":
            refused(answer)
        answer = ask(stream, packet_pb2.Packet(id=2, request=packet_pb2.Request(
            service=options.service, key=options.key.encode(), payload=options.text.encode())))
        if answer.WhichOneof("body") != "response":
            refused(answer)
        print(answer.response.payload.decode(errors="replace"))
        sys.exit(1 if answer.response.status else 0)


if __name__ == "__main__":
    main()
