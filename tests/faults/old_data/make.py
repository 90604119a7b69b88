#!/usr/bin/env python3
"""Makes the archives for `old_data.rs`: the data of one version of Watchword, and what must hold for it in every later version.

    tests/faults/old_data/make.py BINARY NAME

runs BINARY on SQLite and then on a PostgreSQL server (`deploy/dev-services`), each time with the same story: people who
register, log in, refresh, are banned and locked out; keys, settings, signing keys, links that were mailed and not used. It is
killed, not stopped, and leaves `NAME.sqlite.tar.gz` and `NAME.postgres.tar.gz` beside this file. Both hold `expected.json`.
Run it once for each version that people get, with that version's own binary. Needs Python 3.9 and nothing else.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
DEV_SERVICES = HERE.parents[2] / "deploy" / "dev-services"
PASSWORD = "violet-Kettle-93-harbour"
CALLBACK = "https://client.example/callback"
MASTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
# Enough for a snapshot of a session.
REFRESHES = 120


class Instance:
    """A running BINARY in its own folder."""

    def __init__(self, binary, folder, environment):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.data = folder / "data"
        own = {name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")}
        settings = {
            "LISTEN": f"127.0.0.1:{port}",
            "PUBLIC_URL": "https://login.example.com",
            "DATA_DIR": str(self.data),
            "RATE_LIMITS": "off",
            "ARGON2": "m=1024,t=1,p=1",
            **environment,
        }
        own.update({f"WATCHWORD_{name}": value for name, value in settings.items()})
        self.log = open(folder / "server.log", "wb")
        self.process = subprocess.Popen([binary, "serve"], cwd=folder, env=own, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while self.call("GET", "/readyz", status=None)[0] != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.05)
        self.key = (self.data / "admin.key").read_text().strip()

    def call(self, method, path, body=None, bearer=None, status=200):
        """One request: (status, document)."""
        request = urllib.request.Request(self.base + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if bearer:
            request.add_header("Authorization", f"Bearer {bearer}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                got, text = answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            got, text = refused.code, refused.read()
        except (urllib.error.URLError, ConnectionError):
            got, text = 0, b""
        allowed = {status} if isinstance(status, int) else status
        assert allowed is None or got in allowed, f"{method} {path}: {got} {text.decode()}"
        return got, json.loads(text) if text else None

    def admin(self, method, path, body=None, status=(200, 201, 204)):
        """One request with the platform's key."""
        return self.call(method, path, body, self.key, status)[1]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


def story(it):
    """Uses an instance in all the usual ways; returns what must hold afterwards."""
    app = "/v1/apps/default"
    expected = {"users": [], "live": [], "ended": [], "mailed": {}, "api_keys": [], "settings": {}}

    def register(name, where=app):
        email = f"{name.lower()}@example.org"
        body = {"email": email, "password": PASSWORD, "name": name}
        return email, it.call("POST", f"{where}/auth/register", body, status=201)[1]

    def login(email, where=app, password=PASSWORD, status=200):
        return it.call("POST", f"{where}/auth/login", {"email": email, "password": password}, status=status)[1]

    def holds(email, login=200, code=None, where="default", **of_user):
        user = {"app": where, "email": email, "login": login, "code": code, "of_user": of_user}
        expected["users"].append(user)

    # So that mailed tokens are still valid when the test, whose clock is set, uses them.
    settings = {"redirect_uris": [CALLBACK], "origins": ["https://client.example"], "password_min_length": 10,
                "magic_link_ttl": 86400, "password_reset_ttl": 86400, "delivery": "app"}
    it.admin("PATCH", app, {"settings": settings})
    expected["settings"]["default"] = settings
    acme = {"token_algorithm": "EdDSA", "access_token_ttl": 900, "require_verified_email": False}
    it.admin("POST", "/v1/apps", {"app_id": "acme", "name": "Acme", "settings": acme})
    expected["settings"]["acme"] = acme
    it.admin("POST", "/v1/apps", {"app_id": "shut", "name": "Shut"})
    it.admin("POST", "/v1/apps/shut/disable")
    sender = it.admin("POST", f"{app}/admin/api-keys", {"name": "Sends mails", "permissions": ["users:write"]})["key"]

    def mailed(route, email, **more):
        return it.call("POST", f"{app}/auth/{route}", {"email": email, **more}, sender, 202)[1]["token"]

    # An admin with a verified address. An earlier version let unverified ones be admins.
    ada, tokens = register("Ada")
    it.call("POST", f"{app}/auth/email-verification/confirm", {"token": mailed("email-verification/request", ada)})
    it.admin("PUT", f"{app}/admin/users/{tokens['user']['id']}/roles/admin")
    it.admin("PUT", f"{app}/admin/users/{tokens['user']['id']}/roles/editor")
    holds(ada, email_verified=True, roles=["admin", "editor"], name="Ada")
    agnes, tokens = register("Agnes")
    it.admin("PUT", f"{app}/admin/users/{tokens['user']['id']}/roles/admin")
    holds(agnes, email_verified=False, roles=["admin"])

    # A user with sessions: one refreshed often, one fresh, one logged out, one whose token was replayed.
    grace, tokens = register("Grace")
    refresh = tokens["refresh_token"]
    for _ in range(REFRESHES):
        refresh = it.call("POST", f"{app}/auth/refresh", {"refresh_token": refresh})[1]["refresh_token"]
    expected["live"] += [refresh, login(grace)["refresh_token"]]
    out = login(grace)
    it.call("POST", f"{app}/auth/logout", {"refresh_token": out["refresh_token"]}, status=204)
    stolen = login(grace)["refresh_token"]
    newest = stolen
    for _ in range(2):
        newest = it.call("POST", f"{app}/auth/refresh", {"refresh_token": newest})[1]["refresh_token"]
    it.call("POST", f"{app}/auth/refresh", {"refresh_token": stolen}, status=401)
    expected["ended"] += [out["refresh_token"], newest]
    it.call("PATCH", f"{app}/auth/me", {"phone": "+44 20 7946 0000"}, tokens["access_token"])
    holds(grace, phone="+44 20 7946 0000", name="Grace")

    # Users: banned, banned and unbanned, temporarily locked, with a changed password, with a revoked role.
    eve, tokens = register("Eve")
    it.admin("POST", f"{app}/admin/users/{tokens['user']['id']}/ban", {"reason": "She wrote to everybody"})
    expected["ended"].append(tokens["refresh_token"])
    holds(eve, 403, "user_banned")
    heidi, tokens = register("Heidi")
    it.admin("POST", f"{app}/admin/users/{tokens['user']['id']}/ban", {"reason": "A mistake"})
    it.admin("POST", f"{app}/admin/users/{tokens['user']['id']}/unban")
    it.admin("PUT", f"{app}/admin/users/{tokens['user']['id']}/roles/editor")
    it.admin("DELETE", f"{app}/admin/users/{tokens['user']['id']}/roles/editor")
    expected["ended"].append(tokens["refresh_token"])
    holds(heidi, roles=[])
    alan, _ = register("Alan")
    for _ in range(10):
        login(alan, password="not-his-password", status=(401, 429))
    login(alan, status=429)
    holds(alan)
    mary, tokens = register("Mary")
    body = {"old_password": PASSWORD, "new_password": "amber-Lantern-41-meadow"}
    it.call("POST", f"{app}/auth/password/change", body, tokens["access_token"], 204)
    holds(mary, 401, "invalid_credentials")

    # Tokens that were mailed and not used.
    rosa, _ = register("Rosa")
    expected["mailed"]["password_reset"] = mailed("password-reset/request", rosa)
    olga, _ = register("Olga")
    expected["mailed"]["magic_link"] = mailed("magic-link", olga, redirect_uri=CALLBACK)
    vera, _ = register("Vera")
    expected["mailed"]["email_verification"] = mailed("email-verification/request", vera)
    holds(olga)

    # Another app: its users, active keys and a revoked one, replaced signing keys.
    bob, _ = register("Ada", "/v1/apps/acme")
    holds(bob, where="acme", roles=[])
    it.admin("POST", "/v1/apps/acme/admin/keys/rotate")
    expected["key_ids"] = sorted(
        key["kid"] for key in it.call("GET", "/v1/apps/acme/.well-known/jwks.json")[1]["keys"])
    for name, end in (("reads", False), ("read once", True)):
        made = it.admin("POST", "/v1/apps/acme/admin/api-keys", {"name": name, "permissions": ["users:read"]})
        if end:
            it.admin("DELETE", f"/v1/apps/acme/admin/api-keys/{made['id']}")
        expected["api_keys"].append({"key": made["key"], "status": 401 if end else 200})

    # Until mails and projections, which follow the requests, are done too.
    time.sleep(2)
    position, events = 0, []
    while page := it.admin("GET", f"/v1/events?after={position}&limit=200")["items"]:
        position = page[-1]["position"]
        events += page
    kept = ("position", "id", "type", "subject", "time", "streamversion", "appid")
    expected["events"] = [{name: event[name] for name in kept} for event in events]
    expected["platform_key"] = it.key
    expected["made_at"] = int(time.time())
    return expected


def pack(folder, name, members):
    """An archive of these members; the files of a killed process are taken as they are."""
    path = HERE / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=9) as archive:
        for member in members:
            archive.add(folder / member, member)
    print(f"{path.name}: {path.stat().st_size} bytes")


def on_sqlite(binary, name):
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made)
        it = Instance(binary, folder, {})
        try:
            expected = story(it)
        finally:
            it.kill()
        (folder / "expected.json").write_text(json.dumps(expected, indent=1))
        shutil.rmtree(it.data / "outbox", ignore_errors=True)
        pack(folder, f"{name}.sqlite", ["data", "expected.json"])


def on_postgres(binary, name):
    def services(*arguments):
        lines = subprocess.run([DEV_SERVICES, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        return dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)

    programs = services("paths", "postgres")["POSTGRES_BIN"]
    # A folder that PostgreSQL's own user can enter.
    cluster = tempfile.mkdtemp(dir="/var/tmp")
    with contextlib.ExitStack() as after, tempfile.TemporaryDirectory() as made:
        after.callback(shutil.rmtree, cluster)
        after.callback(services, "stop", "--dir", cluster)
        url = next(value for value in services("start", "--dir", cluster, "postgres").values()
                   if value.startswith("postgres://"))
        folder = pathlib.Path(made)
        it = Instance(binary, folder, {"JOURNAL_URL": url, "MASTER_KEY": MASTER_KEY})
        try:
            expected = story(it)
        finally:
            it.kill()
        expected["master_key"] = MASTER_KEY
        (folder / "expected.json").write_text(json.dumps(expected, indent=1))
        dump = subprocess.run([f"{programs}/pg_dump", "--no-owner", url], check=True, stdout=subprocess.PIPE)
        (folder / "dump.sql").write_bytes(dump.stdout)
        pack(folder, f"{name}.postgres", ["dump.sql", "expected.json"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    BINARY = str(pathlib.Path(sys.argv[1]).resolve())
    on_sqlite(BINARY, sys.argv[2])
    on_postgres(BINARY, sys.argv[2])
