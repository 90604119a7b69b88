"""A Debian with systemd as process 1."""

import os
import pathlib
import signal
import subprocess

from machine import PUBLISHED, Machine, Network, run, until


class Booted:
    """The machine, and programs in it. What is changed in it is in memory."""

    def __init__(self, folder: pathlib.Path, binary: pathlib.Path, clients: Network, cgroup: str) -> None:
        self.folder, self.clients = folder, clients
        self.outside = Machine(folder / "engine", binary, within=folder / "host")
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

    def find_leader(self) -> int | None:
        children = pathlib.Path(f"/proc/{self.container.pid}/task/{self.container.pid}/children").read_text().split()
        for child in children:
            if "systemd" in pathlib.Path(f"/proc/{child}/comm").read_text():
                return int(child)
        return None

    def close(self) -> None:
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
        enter = ["nsenter", "--target", str(self.leader), "--all", "--root", "--wdns=/", "--"]
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

    def pid(self, unit: str) -> int:
        return int(self.state(unit, "MainPID"))

    def answers(self, port: int, path: str = "healthz") -> None:
        until(f"{path} answers at port {port}", lambda: self.clients.answers(f"http://{PUBLISHED}:{port}/{path}"))


def enter_group(name: str) -> None:
    """Moves this process into a control group of its own, so that what it makes can be found and removed."""
    top = pathlib.Path("/sys/fs/cgroup")
    for hierarchy in (top, top / "unified", top / "systemd"):
        if (hierarchy / "cgroup.procs").exists():
            (hierarchy / name).mkdir(exist_ok=True)
            (hierarchy / name / "cgroup.procs").write_text(str(os.getpid()))
