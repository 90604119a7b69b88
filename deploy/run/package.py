"""The package, in a Debian that knows nothing of it."""

import pathlib
import secrets
import subprocess

from booted import Booted
from machine import PUBLISHED, Network, run, until

URL = f"http://{PUBLISHED}:8084"
DATA = "/var/lib/private/watchword"


class Package(Booted):
    def __init__(self, folder: pathlib.Path, package: pathlib.Path, clients: Network, cgroup: str) -> None:
        super().__init__(folder, package, clients, cgroup)
        # The same once more as a later version.
        self.shared = self.outside.root / "run" / "binary"
        self.version = run("dpkg-deb", "-f", str(package), "Version").stdout.strip()
        content = self.shared / "content"
        run("dpkg-deb", "-R", str(package), str(content))
        control = content / "DEBIAN" / "control"
        control.write_text(control.read_text().replace(f"Version: {self.version}", f"Version: {self.version}+next"))
        run("dpkg-deb", "-b", str(content), str(self.shared / "next.deb"))
        run("cp", str(package), str(self.shared / "now.deb"))
        run("rm", "-r", str(content))
        self.person = {"email": f"{secrets.token_hex(6)}@example.org", "password": "violet-Kettle-93"}

    def dpkg(self, *arguments: str) -> str:
        return self.run("DEBIAN_FRONTEND=noninteractive", "dpkg", *arguments)

    def is_there(self, path: str) -> bool:
        return self.tried("test", "-e", path).returncode == 0

    def login(self) -> int:
        until("the service answers", lambda: self.clients.answers(f"{URL}/healthz"))
        return self.clients.ask("POST", f"{URL}/auth/login", self.person).status

    def starts_nothing_by_itself(self) -> None:
        said = self.dpkg("-i", "/run/binary/now.deb")
        assert "WATCHWORD_PUBLIC_URL" in said, said
        assert self.tried("systemctl", "is-active", "watchword").stdout.strip() == "inactive"
        assert self.tried("systemctl", "is-enabled", "watchword").stdout.strip() == "disabled"
        assert self.run("stat", "-c", "%a %U", "/etc/watchword/environment") == "600 root"
        assert not self.is_there(DATA)
        self.run("systemctl", "cat", "watchword@commands")
        assert self.run("watchword", "--version") == f"watchword {self.version}"

    def brings_pages_and_completions(self) -> None:
        # Debian leaves pages out of small machines; what the package has is what counts.
        listed = subprocess.run(["dpkg-deb", "-c", str(self.shared / "now.deb")], capture_output=True, text=True, check=True).stdout
        for path in ("man1/watchword.1.gz", "man1/watchword-serve.1.gz", "completions/watchword", "vendor-completions/_watchword"):
            assert path in listed, path
        self.run("bash", "-n", "/usr/share/bash-completion/completions/watchword")

    def runs(self) -> None:
        settings = f"WATCHWORD_LISTEN={PUBLISHED}:8084\nWATCHWORD_PUBLIC_URL=https://login.example.com\n"
        self.write("/etc/watchword/environment", settings)
        self.run("systemctl", "enable", "--now", "watchword")
        until("the service answers", lambda: self.clients.answers(f"{URL}/healthz"))
        registered = self.clients.ask("POST", f"{URL}/auth/register", self.person)
        assert registered.status == 201, registered
        assert self.login() == 200

    def is_upgraded_with_its_data(self) -> None:
        before, settings = self.pid("watchword"), self.run("cat", "/etc/watchword/environment")
        self.dpkg("-i", "/run/binary/next.deb")
        until("the new program runs", lambda: self.pid("watchword") not in (0, before))
        assert self.login() == 200
        assert self.run("cat", "/etc/watchword/environment") == settings
        assert self.run("systemctl", "is-enabled", "watchword") == "enabled"

    def is_removed_without_its_data(self) -> None:
        self.dpkg("-r", "watchword")
        assert not self.clients.answers(f"{URL}/healthz")
        assert self.is_there(f"{DATA}/journal.db") and self.is_there("/etc/watchword/environment")
        self.dpkg("-i", "/run/binary/next.deb")
        self.run("systemctl", "enable", "--now", "watchword")
        assert self.login() == 200

    def is_purged_without_its_data_unless_told(self) -> None:
        said = self.dpkg("-P", "watchword")
        assert self.is_there(f"{DATA}/journal.db") and DATA in said, said
        assert not self.is_there("/etc/watchword/environment")
        self.dpkg("-i", "/run/binary/next.deb")
        self.runs_again()
        self.run("PURGE_DATA=yes", "dpkg", "-P", "watchword")
        assert not self.is_there(DATA) and not self.is_there("/var/lib/watchword")

    def runs_again(self) -> None:
        self.write("/etc/watchword/environment", f"WATCHWORD_LISTEN={PUBLISHED}:8084\nWATCHWORD_PUBLIC_URL=https://login.example.com\n")
        self.run("systemctl", "enable", "--now", "watchword")
        assert self.login() == 200

    def checks(self):
        yield self.starts_nothing_by_itself
        yield self.brings_pages_and_completions
        yield self.runs
        yield self.is_upgraded_with_its_data
        yield self.is_removed_without_its_data
        yield self.is_purged_without_its_data_unless_told
