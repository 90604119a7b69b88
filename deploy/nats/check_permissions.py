#!/usr/bin/env python3
"""Tests what accounts.conf allows and what it must not, on a separate server. NATS_SERVER names the program."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import nats
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NoAnswer
from nats.js.api import AckPolicy, ConsumerConfig

ACCOUNTS = pathlib.Path(__file__).with_name("accounts.conf")
NAME = "acme_analytics"


def start(folder: str) -> tuple[subprocess.Popen, str]:
    # The server writes the port it got into a file.
    configuration = pathlib.Path(folder, "nats.conf")
    configuration.write_text(
        f'listen: 127.0.0.1:-1\njetstream {{ store_dir: "{folder}/data" }}\nports_file_dir: "{folder}"\n'
        f"{ACCOUNTS.read_text()}"
    )
    passwords = {name: "p" + name.lower() for name in (
        "NATS_SYSTEM_PASSWORD", "NATS_WATCHWORD_PASSWORD", "NATS_ACME_ANALYTICS_PASSWORD")}
    with open(f"{folder}/log", "w") as output:
        server = subprocess.Popen(
            [os.environ.get("NATS_SERVER", "nats-server"), "-c", configuration],
            env={**os.environ, **passwords}, stdout=output, stderr=output,
        )
    ports = pathlib.Path(folder, f"nats-server_{server.pid}.ports")
    for _ in range(100):
        if ports.exists() and ports.read_text():
            return server, json.loads(ports.read_text())["nats"][0].removeprefix("nats://")
        if server.poll() is not None:
            break
        time.sleep(0.05)
    server.kill()
    sys.exit(pathlib.Path(folder, "log").read_text())


async def check(address: str) -> int:
    checks = 0

    def holds(what: bool, description: str) -> None:
        nonlocal checks
        if not what:
            sys.exit(f"FAILED: {description}")
        checks += 1

    own = await nats.connect(f"nats://watchword:pnats_watchword_password@{address}")
    stream = own.jetstream()
    await stream.add_stream(name="WATCHWORD", subjects=["auth.v1.>"])
    for position in range(1, 11):
        app = "acme" if position % 2 else "other"
        await stream.publish(f"auth.v1.{app}.session.SessionStarted", json.dumps({"position": position}).encode())

    async def ends_at() -> int:
        return (await stream.stream_info("WATCHWORD")).state.last_seq

    async def ignore(_error: Exception) -> None:
        pass

    user = await nats.connect(
        f"nats://{NAME}:pnats_acme_analytics_password@{address}", error_cb=ignore, allow_reconnect=False
    )
    guest = user.jetstream(prefix="watchword", timeout=1)

    async def refused(subject: str, body: dict) -> bool:
        """Whether a request is not answered, or answered with an error."""
        try:
            answer = await user.request(subject, json.dumps(body).encode(), timeout=0.3)
        except (NoAnswer, NoRespondersError):
            return True
        return "error" in json.loads(answer.data)

    def consumer(name: str = NAME, **settings) -> dict:
        config = {"name": name, "durable_name": name, "ack_policy": "all", **settings}
        return {"stream_name": "WATCHWORD", "config": config}

    # What it may do.
    await guest.add_consumer(
        "WATCHWORD",
        ConsumerConfig(name=NAME, durable_name=NAME, filter_subject="auth.v1.acme.>", ack_policy=AckPolicy.ALL),
    )
    subscription = await guest.pull_subscribe_bind(consumer=NAME, stream="WATCHWORD")
    messages = await subscription.fetch(10, timeout=2)
    positions = [json.loads(message.data)["position"] for message in messages]
    holds(positions == [1, 3, 5, 7, 9], "it reads its app's events, all and no others")
    await messages[-1].ack()
    await user.flush()
    await asyncio.sleep(0.2)
    info = await stream.consumer_info("WATCHWORD", NAME)
    holds(info.num_ack_pending == 0 and info.ack_floor.stream_seq == 9, "its acknowledgements arrive")

    # What it must not: others' events.
    create = "watchword.CONSUMER.CREATE.WATCHWORD"
    acme, other, both = "auth.v1.acme.>", "auth.v1.other.>", ["auth.v1.acme.>", "auth.v1.other.>"]
    for subject, settings in [
        (f"{create}.{NAME}.{acme}", {"filter_subject": other}),
        (f"{create}.{NAME}.{acme}", {"filter_subjects": both}),
        (f"{create}.{NAME}.{acme}", {}),
        (f"{create}.{NAME}.{other}", {"filter_subject": other}),
        (f"{create}.{NAME}", {"filter_subjects": both}),
        (f"{create}.{NAME}", {}),
        ("watchword.CONSUMER.DURABLE.CREATE.WATCHWORD." + NAME, {"filter_subject": acme}),
    ]:
        holds(await refused(subject, consumer(**settings)), f"{subject} with {settings} is refused")
    for name in ["projector_users", "other_analytics"]:
        holds(
            await refused(f"{create}.{name}.{acme}", consumer(name, filter_subject=acme)),
            f"the consumer {name} of somebody else cannot be changed",
        )
    for api in ["$JS.API", "watchword"]:
        for subject in [
            "STREAM.INFO.WATCHWORD", "STREAM.NAMES", "STREAM.LIST", "STREAM.MSG.GET.WATCHWORD", "STREAM.PURGE.WATCHWORD",
            "STREAM.DELETE.WATCHWORD", "STREAM.UPDATE.WATCHWORD", "STREAM.CREATE.MINE", "DIRECT.GET.WATCHWORD",
            "DIRECT.GET.WATCHWORD." + "auth.v1.other.session.SessionStarted", "CONSUMER.NAMES.WATCHWORD",
            "CONSUMER.LIST.WATCHWORD", "CONSUMER.DELETE.WATCHWORD.projector_users",
            "CONSUMER.MSG.NEXT.WATCHWORD.projector_users", "CONSUMER.INFO.WATCHWORD.projector_users", "INFO",
        ]:
            holds(await refused(f"{api}.{subject}", {"seq": 2}), f"{api}.{subject} is refused")
    heard = []

    async def hear(message) -> None:
        heard.append(message.subject)

    for subject in ["auth.>", "_INBOX.>", ">"]:
        await user.subscribe(subject, cb=hear)
    await stream.publish("auth.v1.other.session.SessionStarted", b"{}")
    await stream.publish("auth.v1.acme.session.SessionStarted", b"{}")
    await stream.stream_info("WATCHWORD")  # an answer to an inbox of the account WATCHWORD
    await asyncio.sleep(0.3)
    holds(heard == [], f"it receives only what it requested, not {heard}")

    # What it must not: write.
    before = await ends_at()
    await user.publish("auth.v1.acme.session.SessionStarted", b"{}")
    for reply in ["auth.v1.acme.session.SessionStarted", "$JS.API.STREAM.PURGE.WATCHWORD"]:
        await user.publish(
            f"watchword.CONSUMER.MSG.NEXT.WATCHWORD.{NAME}", b'{"batch":1,"expires":500000000}', reply=reply
        )
    await user.flush()
    await asyncio.sleep(0.8)
    holds(await ends_at() == before, "it cannot put a message into the stream, not as an answer to itself either")
    settings = {"filter_subject": acme, "deliver_subject": "auth.v1.acme.session.SessionStarted"}
    holds(await refused(f"{create}.{NAME}.{acme}", consumer(**settings)), "nor have a consumer do it")
    await user.close()
    await own.close()
    return checks


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="watchword-nats-") as folder:
        server, address = start(folder)
        try:
            checks = asyncio.run(asyncio.wait_for(check(address), 120))
        finally:
            server.terminate()
            server.wait(10)
    print(f"{checks} passed, 0 failed", file=sys.stderr)


if __name__ == "__main__":
    main()
