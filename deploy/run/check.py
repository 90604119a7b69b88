#!/usr/bin/env python3
"""Runs what this folder deploys: the image and compose.yaml in Docker, the units in systemd as process 1;
or a package.

    check.py FOLDER BINARY [docker] [systemd]    FOLDER is what `prepare` made; BINARY goes into image and units
    check.py FOLDER PACKAGE package              a .deb that `dist` made, in a Debian that knows nothing of it

Everything runs in namespaces of its own, without a way out: networks, mounts, processes and rules for packets end with
it. Needs root. Exit code 1 if something is not as it should be.
"""

import os
import pathlib
import subprocess
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from docker import Docker
from machine import connect_clients, run
from package import Package
from units import Units

CGROUP = f"watchword-check-{os.getpid()}"


def inside(folder: pathlib.Path, binary: pathlib.Path, cgroup: str, wanted: list[str]) -> int:
    run("mount", "--make-rprivate", "/")
    clients = connect_clients()
    passed = failed = 0
    for name, kind in {"docker": Docker, "systemd": Units, "package": Package}.items():
        if name not in wanted:
            continue
        engine = kind(folder, binary, clients, cgroup)
        try:
            for check in engine.checks():
                print(f"==> {name}: {check.__name__.replace('_', ' ')}", flush=True)
                try:
                    check()
                    passed += 1
                except Exception:
                    traceback.print_exc()
                    engine.explain()
                    print(f"FAILED: {name}: {check.__name__.replace('_', ' ')}", flush=True)
                    failed += 1
        finally:
            engine.close()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def left_behind() -> set[str]:
    """What could outlive us: mounts, control groups, networks."""
    found = {line.split()[1] for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()}
    found |= {f"link {name}" for name in os.listdir("/sys/class/net")}
    return found | {str(it) for it in groups()}


def groups() -> list[pathlib.Path]:
    tops = [it for it in pathlib.Path("/sys/fs/cgroup").glob(f"**/{CGROUP}*") if it.is_dir()]
    return sorted({it for top in tops for it in (top, *(below for below in top.rglob("*") if below.is_dir()))}, reverse=True)


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        return inside(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4], sys.argv[5:])
    folder, binary, *wanted = sys.argv[1:]
    before = left_behind()
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    arguments = ["--inside", os.path.abspath(folder), os.path.abspath(binary), CGROUP, *(wanted or ["docker", "systemd"])]
    status = subprocess.run([*command, sys.executable, os.path.abspath(__file__), *arguments], check=False).returncode
    for group in groups():
        group.rmdir()
    after = left_behind()
    assert after == before, f"left behind: {after ^ before}"
    return status


if __name__ == "__main__":
    sys.exit(main())
