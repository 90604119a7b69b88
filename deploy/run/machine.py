"""What check.py runs things in: namespaces of its own, so that nothing of the machine is changed and everything ends with it."""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
DEPLOY = HERE.parent
SOURCES = DEPLOY.parent

# The engine's machine, and two others that reach what it publishes.
PUBLISHED, CLIENT, OUTER = "10.88.0.1", "10.88.0.2", "10.88.0.3"
# A generous limit for background events, even on a busy machine.
PATIENCE = 180.0
# For one program, however much it does.
LONGEST = 900.0
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str, **more: object) -> subprocess.CompletedProcess:
    """Runs a program; its output is shown if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=LONGEST, **more)
    assert done.returncode == 0, f"{shlex.join(command)[:300]} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done


def until(what: str, holds, patience: float = PATIENCE):
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {patience:.0f} s"
        time.sleep(0.1)


class Answer:
    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes, seconds: float) -> None:
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    def json(self):
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"{self.status} after {self.seconds:.2f} s: {self.body[:300]!r}"


class Network:
    """A network namespace. What is asked in it comes from there."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_RDONLY)

    @contextlib.contextmanager
    def entered(self):
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            assert libc.setns(self.file, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            yield
        finally:
            assert libc.setns(here, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            os.close(here)

    def ask(self, method: str, url: str, body: object = None, source: str | None = None, timeout: float = 60, **headers: str) -> Answer:
        host, _, path = url.removeprefix("http://").partition("/")
        connection = http.client.HTTPConnection(host, timeout=timeout, source_address=(source, 0) if source else None)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            body = json.dumps(body)
            names["Content-Type"] = "application/json"
        began = time.monotonic()
        with self.entered():
            connection.connect()
        try:
            connection.request(method, f"/{path}", body=body, headers=names)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read(), time.monotonic() - began)
        finally:
            connection.close()

    def answers(self, url: str, status: int = 200) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", url, timeout=5).status == status
        return False


class Machine:
    """One of the file systems that `prepare` made, with what a machine has besides: programs run in it."""

    def __init__(self, root: pathlib.Path, binary: pathlib.Path, within: pathlib.Path | None = None) -> None:
        """`within`: another file system, to be found at /run/within."""
        self.root = root
        run("mount", "--bind", str(root), str(root))
        for name in ("sys", "dev"):
            run("mount", "--rbind", f"/{name}", f"{root}/{name}")
        run("mount", "-t", "proc", "proc", f"{root}/proc")
        for name in ("run", "tmp"):
            run("mount", "-t", "tmpfs", "tmpfs", f"{root}/{name}")
        (root / "run" / "source").mkdir()
        run("mount", "--bind", "-o", "ro", str(SOURCES), f"{root}/run/source")
        (root / "run" / "binary").mkdir()
        run("cp", str(binary), f"{root}/run/binary/watchword")
        (root / "run" / "binary" / "watchword").chmod(0o755)
        if within:
            (root / "run" / "within").mkdir()
            run("mount", "--bind", str(within), f"{root}/run/within")
        # Its root is the root of a mount namespace, not of a chroot: entering a container from a chroot would end up outside.
        pivot = 'cd "$1" && pivot_root . . && umount --lazy . && exec sleep infinity'
        self.holder = subprocess.Popen(["unshare", "--mount", "sh", "-c", pivot, "pivot", str(root)])
        until("the machine is there", lambda: "sleep" in pathlib.Path(f"/proc/{self.holder.pid}/cmdline").read_text())

    def command(self, *command: str) -> list[str]:
        enter = ["nsenter", "--target", str(self.holder.pid), "--mount", "--root", "--wdns=/", "--"]
        return [*enter, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *command]

    def run(self, *command: str, **more: object) -> subprocess.CompletedProcess:
        return run(*self.command(*command), **more)


def connect_clients() -> Network:
    """Machines that reach the engine's machine over a network."""
    run("ip", "link", "set", "lo", "up")
    sleeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    own = os.readlink("/proc/self/ns/net")
    until("the clients' network is there", lambda: os.readlink(f"/proc/{sleeper.pid}/ns/net") != own)
    inside = ["nsenter", "--target", str(sleeper.pid), "--net", "--"]
    run("ip", "link", "add", "published", "type", "veth", "peer", "name", "clients", "netns", str(sleeper.pid))
    run("ip", "address", "add", f"{PUBLISHED}/24", "dev", "published")
    run("ip", "link", "set", "published", "up")
    for address in (CLIENT, OUTER):
        run(*inside, "ip", "address", "add", f"{address}/24", "dev", "clients")
    run(*inside, "ip", "link", "set", "clients", "up")
    return Network(f"/proc/{sleeper.pid}/ns/net")


def block_of(manual: str, after: str) -> str:
    """The block of commands in a document after these words: exactly these commands are run."""
    text = (SOURCES / manual).read_text()
    at = text.index(after)
    return re.search(r"```\w*\n(.*?)```", text[at:], re.DOTALL)[1]


def free_of(process: subprocess.Popen, signal_number: int, patience: float = 60.0) -> None:
    """Ends a process that was started here."""
    if process.poll() is None:
        process.send_signal(signal_number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(address: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), 1).close()
        return True
    return False
