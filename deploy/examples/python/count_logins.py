#!/usr/bin/env python3
"""Counts the logins of each app from Watchword's events on NATS JetStream, exactly once, and survives restarts.

The counts and the position of the last event that is in them are committed in one transaction, and the consumer is placed
behind that position at every start: the sequence of a message is the position of its event. Nothing is acknowledged. A
consumer that remembers acknowledgements hands out what comes *after* the messages of a client that has just died, and
those again only after a while: counting in the order of the events would not be possible.

Without --app it follows all apps, and then every event must follow the one before it (`prevposition`). One app's events
have those of other apps between them, so there `prevposition` can only show that an event is older than it should be.

    count_logins.py --app acme --server nats://localhost:4222 --user acme_analytics --state logins.db

The password is read from NATS_PASSWORD. With --until-idle it ends when there is nothing more to read, and prints the counts.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys

import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM = "WATCHWORD"
BATCH = 500
# Seconds that one request for messages waits for the first.
PATIENCE = 5

log = logging.getLogger("count_logins")


class OutOfOrder(Exception):
    """The stream does not continue where the counts end. Continuing would count wrongly, so an operator must act: the
    stream keeps less than was missed (read it from GET /v1/events), or the journal was restored from a backup."""


class Counts:
    """Logins by app, day and method, and the position up to which they are complete."""

    def __init__(self, path: str, every_event: bool):
        self.every_event = every_event
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript(
            """
            CREATE TABLE IF NOT EXISTS logins (
                app_id TEXT, day TEXT, method TEXT, logins INTEGER NOT NULL, PRIMARY KEY (app_id, day, method)
            ) STRICT;
            CREATE TABLE IF NOT EXISTS checkpoint (
                only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL
            ) STRICT;
            INSERT OR IGNORE INTO checkpoint VALUES (1, 0);
            """
        )

    @property
    def position(self) -> int:
        return self.db.execute("SELECT position FROM checkpoint").fetchone()[0]

    def add(self, events: list[dict]) -> int:
        """Counts what is new among the events, all or nothing, and returns how many that were."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            position = self.position
            new = 0
            for event in events:
                if event["position"] <= position:
                    continue  # delivered again: it is in the counts
                before = event["prevposition"]
                if before < position or (self.every_event and before != position):
                    raise OutOfOrder(f"event {event['position']} follows {before}, but the counts end at {position}")
                position = event["position"]
                new += 1
                if event["type"] == "SessionStarted" and event["data"]["method"] != "registration":
                    self.db.execute(
                        "INSERT INTO logins VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET logins = logins + 1",
                        (event["appid"], event["time"][:10], event["data"]["method"]),
                    )
            self.db.execute("UPDATE checkpoint SET position = ?", (position,))
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        return new

    def report(self) -> dict:
        rows = self.db.execute("SELECT app_id, SUM(logins) FROM logins GROUP BY app_id ORDER BY app_id")
        return {"position": self.position, "logins": dict(rows.fetchall())}


class Interrupted(Exception):
    """Messages were lost in transit. Placing the consumer again brings them back."""


class Cursor:
    """A durable consumer that hands out the events after a position, each once and in order."""

    def __init__(self, jetstream, app: str | None):
        self.jetstream = jetstream
        self.subject = f"auth.v1.{app}.>" if app else "auth.v1.>"
        self.name = f"{app or 'all'}_analytics"
        self.subscription = None
        self.delivered = 0

    async def place(self, position: int) -> None:
        try:
            await self.jetstream.delete_consumer(STREAM, self.name)
        except NotFoundError:
            pass
        await self.jetstream.add_consumer(
            STREAM,
            ConsumerConfig(
                name=self.name,
                durable_name=self.name,
                filter_subject=self.subject,
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=position + 1,
            ),
        )
        self.subscription = await self.jetstream.pull_subscribe_bind(consumer=self.name, stream=STREAM)
        self.delivered = 0
        log.info("following %s from position %d", self.subject, position)

    async def next(self, patience: float) -> list[dict]:
        """The next events, at most BATCH. TimeoutError if there are none in time."""
        events = []
        for message in await self.subscription.fetch(BATCH, timeout=patience):
            event = json.loads(message.data)
            sequence = message.metadata.sequence
            if sequence.stream != event["position"]:
                raise OutOfOrder(f"message {sequence.stream} is event {event['position']}")
            # The server counts what it has sent. A request that ends while its answer is in transit loses messages.
            if sequence.consumer != self.delivered + 1:
                raise Interrupted(f"{sequence.consumer - self.delivered - 1} messages were lost on their way")
            self.delivered = sequence.consumer
            events.append(event)
        return events


async def run(arguments: argparse.Namespace, counts: Counts) -> None:
    connection = await nats.connect(
        arguments.server,
        user=arguments.user,
        password=os.environ.get("NATS_PASSWORD"),
        max_reconnect_attempts=-1,
    )
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    cursor = Cursor(connection.jetstream(prefix=arguments.api_prefix), arguments.app)
    placed = False
    while not stopping.is_set():
        try:
            if not placed:
                await cursor.place(counts.position)
                placed = True
            new = counts.add(await cursor.next(arguments.patience))
            log.info("%d new events, now at position %d", new, counts.position)
        except asyncio.TimeoutError:
            if placed and arguments.until_idle:
                break
        except (NatsError, Interrupted) as error:
            # The server is away, or has lost the consumer: the file has the state that counts.
            log.warning("starting again from position %d: %s", counts.position, error)
            placed = False
            await asyncio.sleep(1)
    await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--app", help="only this app's events; without it, those of all apps")
    parser.add_argument("--server", default="nats://127.0.0.1:4222")
    parser.add_argument("--user", help="the NATS user; its password is read from NATS_PASSWORD")
    parser.add_argument("--api-prefix", default="$JS.API", help="`watchword` in an account of deploy/nats/accounts.conf")
    parser.add_argument("--state", default="logins.db", help="the file with the counts and the position")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for messages")
    parser.add_argument("--until-idle", action="store_true", help="end when there is nothing more to read")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    counts = Counts(arguments.state, every_event=arguments.app is None)
    try:
        asyncio.run(run(arguments, counts))
    except OutOfOrder as error:
        log.error("stopped, nothing of the batch was counted: %s", error)
        return 1
    finally:
        print(json.dumps(counts.report()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
