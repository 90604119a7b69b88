#!/usr/bin/env python3
"""Prints the events of the stream after a position, one per line: what a restored journal lacks.

    NATS_PASSWORD=… tail.py --server nats://localhost:4222 --user watchword --after 123456 > tail.ndjson

It only reads. The order is the stream's, and the bytes are those that were published.
"""

import argparse
import asyncio
import os
import sys

import nats
from nats.js.errors import NotFoundError

STREAM = "WATCHWORD"


async def run(arguments: argparse.Namespace) -> int:
    connection = await nats.connect(
        arguments.server, user=arguments.user, password=os.environ.get("NATS_PASSWORD"), max_reconnect_attempts=5
    )
    stream = connection.jetstream()
    state = (await stream.stream_info(arguments.stream)).state
    printed = 0
    for position in range(max(arguments.after + 1, state.first_seq), state.last_seq + 1):
        try:
            message = await stream.get_msg(arguments.stream, position)
        except NotFoundError:
            print(f"the stream has no message {position}", file=sys.stderr)
            continue
        sys.stdout.buffer.write(message.data + b"\n")
        printed += 1
    await connection.close()
    print(f"{printed} events, the stream ends at {state.last_seq}", file=sys.stderr)
    if state.first_seq > arguments.after + 1:
        print(f"events {arguments.after + 1} to {state.first_seq - 1} are no longer in the stream", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--after", type=int, default=0, help="the last position of the restored journal")
    parser.add_argument("--stream", default=STREAM, help="WATCHWORD-LOST has what a relay has saved")
    parser.add_argument("--server", default="nats://127.0.0.1:4222")
    parser.add_argument("--user", help="the NATS user; its password is read from NATS_PASSWORD")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
