#!/usr/bin/env python3
"""Runs a counter of logins against a real server: killed repeatedly, events delivered twice, the consumer forgotten.

    test_count_logins.py COMMAND...      such as: python3 python/count_logins.py

NATS_SERVER names the server's program.
"""

import asyncio
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import uuid

import nats

sys.path.append(str(pathlib.Path(__file__).parent.parent / "nats"))
from check_permissions import start  # noqa: E402

EVENTS = 20_000
APPS = ["acme", "other", "default"]


def event(position: int, app: str, name: str, method: str | None) -> dict:
    session = str(uuid.UUID(int=position))
    data = {"session_id": session, "user_id": session, "app_id": app}
    return {
        "specversion": "1.0", "id": session, "source": f"/v1/apps/{app}", "type": name,
        "time": "2026-03-01T12:00:00.123456Z", "subject": f"session-{session}",
        "dataschema": f"https://login.example.com/schemas/events/session/{name}.v1.json", "datacontenttype": "application/json",
        "position": position, "prevposition": position - 1, "streamversion": 1, "appid": app,
        "actorkind": "anonymous", "correlationid": session,
        "data": data | ({"method": method} if method else {}),
    }


async def publish(address: str, seed: int) -> dict[str, int]:
    """Fills the stream like the relay, and returns how many logins each app has."""
    choose = random.Random(seed)
    connection = await nats.connect(f"nats://watchword:pnats_watchword_password@{address}")
    stream = connection.jetstream(publish_async_max_pending=4000)
    await stream.add_stream(name="WATCHWORD", subjects=["auth.v1.>"])
    logins: dict[str, int] = {}
    for position in range(1, EVENTS + 1):
        app = choose.choice(APPS)
        name, method = choose.choice([
            ("SessionStarted", "password"), ("SessionStarted", "registration"), ("SessionRefreshed", None),
            ("SessionRevoked", None),
        ])
        if method == "password":
            logins[app] = logins.get(app, 0) + 1
        body = event(position, app, name, method)
        await stream.publish_async(
            f"auth.v1.{app}.session.{name}",
            json.dumps(body, separators=(",", ":"), sort_keys=True).encode(),
            headers={"Nats-Msg-Id": body["id"], "ce-position": str(position), "ce-prevposition": str(position - 1)},
        )
    await stream.publish_async_completed()
    info = await stream.stream_info("WATCHWORD")
    assert (info.state.first_seq, info.state.last_seq) == (1, EVENTS), info.state
    await connection.close()
    return logins


async def as_operator(address: str, work) -> None:
    connection = await nats.connect(f"nats://watchword:pnats_watchword_password@{address}")
    await work(connection.jetstream())
    await connection.close()


def main(command: list[str]) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}", file=sys.stderr)
    choose = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="watchword-example-") as folder:
        server, address = start(folder)
        try:
            checks = run(command, folder, address, seed, choose)
        finally:
            server.terminate()
            server.wait(10)
    print(f"{checks} passed, 0 failed", file=sys.stderr)


def run(command: list[str], folder: str, address: str, seed: int, choose: random.Random) -> int:
    logins = asyncio.run(publish(address, seed))
    of_acme = ["--app", "acme", "--user", "acme_analytics", "--api-prefix", "watchword", "--state", f"{folder}/acme"]
    of_all = ["--user", "watchword", "--state", f"{folder}/all"]
    log = open(f"{folder}/counter.log", "w")

    def begin(arguments: list[str]) -> subprocess.Popen:
        password = "pnats_acme_analytics_password" if "acme" in arguments else "pnats_watchword_password"
        return subprocess.Popen(
            [*command, "--server", f"nats://{address}", "--patience", "1", "--until-idle", *arguments],
            env={**os.environ, "NATS_PASSWORD": password}, stdout=subprocess.PIPE, stderr=log, text=True,
        )

    def finish(arguments: list[str], code: int = 0) -> dict:
        counter = begin(arguments)
        output, _ = counter.communicate(timeout=120)
        assert counter.returncode == code, pathlib.Path(folder, "counter.log").read_text()[-3000:]
        return json.loads(output) if output else {}

    def interrupted(arguments: list[str], times: int) -> int:
        """How many of the runs were killed before they had read all."""
        cut = 0
        for _ in range(times):
            counter = begin(arguments)
            try:
                counter.wait(choose.uniform(0.05, 1.0))
            except subprocess.TimeoutExpired:
                counter.send_signal(signal.SIGKILL)
                counter.wait()
                cut += 1
            counter.stdout.close()
        return cut

    # Killed repeatedly, it counts each login once.
    assert interrupted(of_acme, 8) > 0
    counted = finish(of_acme)
    assert counted["logins"] == {"acme": logins["acme"]}, (counted, logins)
    assert interrupted(of_all, 8) > 0
    counted = finish(of_all)
    assert counted == {"position": EVENTS, "logins": logins}, (counted, logins)

    # The server forgets what was acknowledged: everything is delivered again, and nothing counts twice.
    async def forget(stream) -> None:
        for name in ["acme_analytics", "all_analytics"]:
            await stream.delete_consumer("WATCHWORD", name)

    asyncio.run(as_operator(address, forget))
    assert finish(of_all) == {"position": EVENTS, "logins": logins}
    assert finish(of_acme)["logins"] == {"acme": logins["acme"]}

    # An event is missing: a consumer of all apps notices, and counts nothing after it.
    async def lose(stream) -> None:
        await forget(stream)
        await stream.delete_msg("WATCHWORD", 300)

    asyncio.run(as_operator(address, lose))
    os.unlink(f"{folder}/all")
    for journal in pathlib.Path(folder).glob("all-*"):
        journal.unlink()
    finish(of_all, code=1)
    return 6


if __name__ == "__main__":
    main(sys.argv[1:])
