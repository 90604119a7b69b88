"""The units, in a Debian with systemd as process 1."""

import base64
import os
import pathlib
import secrets
import signal
import subprocess
import time

from machine import PUBLISHED, Machine, Network, block_of, free_of, listening, run, until

MACHINE = PUBLISHED


class Units:
    def __init__(self, folder: pathlib.Path, binary: pathlib.Path, clients: Network, cgroup: str) -> None:
        self.folder, self.clients = folder, clients
        self.outside = Machine(folder / "engine", binary, within=folder / "host")
        self.stores = Machine(folder / "services", binary)
        self.postgres = None
        # Nothing is written to the file system that prepare made: what is changed is in memory.
        command = self.outside.command(
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "systemd-nspawn", "--register=no", "--keep-unit", "--volatile=overlay",
            "--bind-ro=/run/source", "--bind-ro=/run/binary", "--directory=/run/within", "--console=pipe", "--boot",
        )  # fmt: skip
        self.log = open(folder / "systemd.log", "wb")
        self.container = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, preexec_fn=lambda: enter_group(f"{cgroup}-systemd")
        )
        self.leader = until("systemd starts", self.find_leader)
        until("systemd is up", lambda: self.tried("systemctl", "is-system-running", "--wait").stdout.strip() in ("running", "degraded"))
        self.run("install", "-m", "755", "/run/binary/watchword", "/usr/local/bin/watchword")
        for unit in ("watchword.service", "watchword@.service"):
            self.run("install", "-m", "644", f"/run/source/deploy/{unit}", "/etc/systemd/system/")
        self.run("systemctl", "daemon-reload")

    def find_leader(self) -> int | None:
        children = pathlib.Path(f"/proc/{self.container.pid}/task/{self.container.pid}/children").read_text().split()
        for child in children:
            if "systemd" in pathlib.Path(f"/proc/{child}/comm").read_text():
                return int(child)
        return None

    def close(self) -> None:
        if self.postgres:
            free_of(self.postgres, signal.SIGINT)
        # The machine's process 1 takes this for "power off".
        with_powers = signal.SIGRTMIN + 4
        if self.container.poll() is None:
            os.kill(self.leader, with_powers)
            try:
                self.container.wait(60)
            except subprocess.TimeoutExpired:
                self.container.kill()
                self.container.wait()

    def explain(self) -> None:
        print(self.tried("journalctl", "--no-pager", "-n", "60", "-u", "watchword*", "-u", "run-*").stdout[-6000:], flush=True)

    def command(self, *command: str) -> list[str]:
        enter = ["nsenter", "--target", str(self.leader), "--all", "--root", "--wd=/", "--"]
        return [*enter, "/usr/bin/env", "-i", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *command]

    def run(self, *command: str) -> str:
        return run(*self.command(*command)).stdout.strip()

    def tried(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(*command), capture_output=True, text=True, check=False)

    def write(self, path: str, text: str) -> None:
        done = subprocess.run(self.command("sh", "-c", f"umask 077; mkdir -p $(dirname {path}); cat >{path}"), input=text, text=True, check=False)
        assert done.returncode == 0, path

    def state(self, unit: str, what: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", what, unit)

    # --- one process ------------------------------------------------------------------------------------------------------

    def one_process(self) -> None:
        self.write("/etc/watchword/environment", f"WATCHWORD_LISTEN={MACHINE}:8081\nWATCHWORD_PUBLIC_URL=https://login.example.com\n")
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
            self.run("kill", "-9", str(pid))
            until("it is gone", lambda pid=pid: self.pid("watchword") != pid)
        self.answers(8081)
        self.run("systemctl", "disable", "--now", "watchword")

    def pid(self, unit: str) -> int:
        return int(self.state(unit, "MainPID"))

    def answers(self, port: int, path: str = "healthz") -> None:
        until(f"{path} answers at port {port}", lambda: self.clients.answers(f"http://{MACHINE}:{port}/{path}"))

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
        self.write("/etc/watchword/commands", f"WATCHWORD_LISTEN={MACHINE}:8082\n")
        self.write("/etc/watchword/projections", f"WATCHWORD_LISTEN={MACHINE}:8083\n")
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


def enter_group(name: str) -> None:
    """Moves this process into a control group of its own, so that what it makes can be found and removed."""
    top = pathlib.Path("/sys/fs/cgroup")
    for hierarchy in (top, top / "unified", top / "systemd"):
        if (hierarchy / "cgroup.procs").exists():
            (hierarchy / name).mkdir(exist_ok=True)
            (hierarchy / name / "cgroup.procs").write_text(str(os.getpid()))
