"""The units, as the manual says to install them."""

import base64
import pathlib
import secrets
import signal
import subprocess
import time

from booted import Booted
from machine import PUBLISHED, Machine, Network, block_of, free_of, listening, until


class Units(Booted):
    def __init__(self, folder: pathlib.Path, binary: pathlib.Path, clients: Network, cgroup: str) -> None:
        super().__init__(folder, binary, clients, cgroup)
        self.stores = Machine(folder / "services", binary)
        self.postgres = None
        self.run("install", "-m", "755", "/run/binary/watchword", "/usr/local/bin/watchword")
        for unit in ("watchword.service", "watchword@.service"):
            self.run("install", "-m", "644", f"/run/source/deploy/{unit}", "/etc/systemd/system/")
        self.run("systemctl", "daemon-reload")

    def close(self) -> None:
        if self.postgres:
            free_of(self.postgres, signal.SIGINT)
        super().close()

    # --- one process ------------------------------------------------------------------------------------------------------

    def one_process(self) -> None:
        self.write("/etc/watchword/environment", f"WATCHWORD_LISTEN={PUBLISHED}:8081\nWATCHWORD_PUBLIC_URL=https://login.example.com\n")
        self.run("systemctl", "enable", "--now", "watchword")
        self.answers(8081)
        assert self.run("cat", "/var/lib/watchword/admin.key").startswith("wwk_")

    def rotation_as_root(self) -> None:
        """The manual's words: stop, rotate, start."""
        before = self.run("sha256sum", "/var/lib/watchword/master.key")
        self.run("systemctl", "stop", "watchword")
        self.run("WATCHWORD_DATA_DIR=/var/lib/watchword", "watchword", "rotate-master-key")
        assert self.run("sha256sum", "/var/lib/watchword/master.key") != before
        self.run("systemctl", "start", "watchword")
        self.answers(8081)
        self.run("systemctl", "restart", "watchword")
        self.answers(8081)

    def started_however_often_it_ends(self) -> None:
        """However often it ends in a row, it is started again."""
        for _ in range(7):
            pid = until("it runs", lambda: self.pid("watchword"))
            self.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "watchword")
            until("it is gone", lambda pid=pid: self.pid("watchword") != pid)
        self.answers(8081)
        self.run("systemctl", "disable", "--now", "watchword")

    # --- a cluster --------------------------------------------------------------------------------------------------------

    def start_postgres(self) -> None:
        password = ["POSTGRES_USER=watchword", "POSTGRES_DB=watchword", f"POSTGRES_PASSWORD={self.password}"]
        command = self.stores.command(*password, "/usr/local/bin/postgres-entrypoint")
        self.postgres = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        until("PostgreSQL answers", lambda: listening("127.0.0.1", 5432))

    def cluster_as_the_manual_says(self) -> None:
        self.password = secrets.token_hex(16)
        subprocess.run(["rm", "-rf", f"{self.folder}/services/var/lib/postgresql/data"], check=True)
        self.start_postgres()
        url = f"postgres://watchword:{self.password}@127.0.0.1/watchword"
        stores = "".join(f"WATCHWORD_{name}_URL={url}\n" for name in ("JOURNAL", "READ_MODELS", "KEY_STORE"))
        key = f"WATCHWORD_MASTER_KEY={base64.b64encode(secrets.token_bytes(32)).decode()}\n"
        self.write("/etc/watchword/cluster", f"WATCHWORD_PUBLIC_URL=https://login.example.com\n{key}{stores}")
        self.write("/etc/watchword/owner", stores)
        self.write("/etc/watchword/commands", f"WATCHWORD_LISTEN={PUBLISHED}:8082\n")
        self.write("/etc/watchword/projections", f"WATCHWORD_LISTEN={PUBLISHED}:8083\n")
        self.run("sh", "-ec", block_of("deploy/README.md", "### With systemd"))
        for port in (8082, 8083):
            self.answers(port, "readyz")

    def stores_come_late(self) -> None:
        roles = ("watchword@commands", "watchword@projections")
        self.run("systemctl", "stop", *roles)
        free_of(self.postgres, signal.SIGINT)
        self.run("systemctl", "start", *roles)
        began = time.monotonic()
        while time.monotonic() - began < 15:
            time.sleep(1)
        for role in roles:
            assert self.state(role, "ActiveState") == "active" and self.state(role, "NRestarts") == "0", role
        for port in (8082, 8083):
            self.answers(port)
        self.start_postgres()
        for port in (8082, 8083):
            self.answers(port, "readyz")
        self.run("systemctl", "stop", *roles)

    def checks(self):
        yield self.one_process
        yield self.rotation_as_root
        yield self.started_however_often_it_ends
        yield self.cluster_as_the_manual_says
        yield self.stores_come_late
