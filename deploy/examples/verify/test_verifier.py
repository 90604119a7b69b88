#!/usr/bin/env python3
"""Runs a verifier of access tokens against a real server: test_verifier.py SERVER COMMAND...

COMMAND gets the port to listen on as PORT and, if it ends with --port, as its last argument.
"""

import base64
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(url, body=None, bearer=None, method=None):
    request = urllib.request.Request(url, method=method)
    if bearer is not None:
        request.add_header("Authorization", f"Bearer {bearer}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.loads(response.read() or b"null"), response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null"), error.headers


def until_up(url, process):
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"{url}: it ended with {process.returncode}")
        try:
            return call(url)
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url}: it does not answer")


def part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def changed(token, header=None, claims=None) -> str:
    """The token with other claims under the old signature."""
    read = lambda text: json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    head, body, signature = token.split(".")
    return ".".join([part(read(head) | (header or {})), part(read(body) | (claims or {})), signature])


def main(server: str, command: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="watchword-verify-") as folder:
        port, own = free_port(), free_port()
        base = f"http://127.0.0.1:{port}"
        settings = {"WATCHWORD_LISTEN": f"127.0.0.1:{port}", "WATCHWORD_DATA_DIR": f"{folder}/data"}
        log = open(f"{folder}/log", "w")
        processes = [subprocess.Popen([server, "serve"], env=os.environ | settings, stdout=log, stderr=log, cwd=folder)]
        try:
            until_up(f"{base}/healthz", processes[0])
            issuer = f"{base}/v1/apps/acme"
            arguments = [*command, str(own)] if command[-1] == "--port" else command
            environment = os.environ | {"ISSUER": issuer, "PORT": str(own)}
            processes.append(subprocess.Popen(arguments, env=environment))
            until_up(f"http://127.0.0.1:{own}/hello", processes[1])
            check(base, f"http://127.0.0.1:{own}/hello", pathlib.Path(folder, "data/admin.key").read_text().strip(), processes)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(20)


def check(base: str, hello: str, key: str, processes) -> None:
    for app in ["acme", "other"]:
        status, body, _ = call(f"{base}/v1/apps", {"app_id": app, "name": app}, key)
        assert status == 201, body

    def log_in(app, name):
        body = {"email": f"{name}@example.org", "password": "violet-Kettle-93"}
        status, tokens, _ = call(f"{base}/v1/apps/{app}/auth/register", body)
        assert status == 201, tokens
        return tokens

    def refused(token, error="invalid_token"):
        status, body, headers = call(hello, bearer=token)
        assert status == 401, (status, body, token)
        challenge = headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer") and (error is None or error in challenge), challenge

    ada = log_in("acme", "ada")
    access = ada["access_token"]
    status, body, _ = call(hello, bearer=access)
    assert (status, body) == (200, {"user_id": ada["user"]["id"], "session_id": ada["session_id"]}), (status, body)

    # What is not a token, is not ours, or was changed.
    refused(None, None)
    for token in ["x", "a.b.c", access[:-4], access + "x", ada["refresh_token"], key]:
        refused(token)
    refused(log_in("other", "ada")["access_token"])
    refused(changed(access, claims={"sub": "somebody-else"}))
    refused(changed(access, claims={"exp": int(time.time()) + 10**6}))
    refused(changed(access, header={"alg": "none"}).rsplit(".", 1)[0] + ".")
    refused(changed(access, header={"alg": "HS256"}))
    refused(changed(access, header={"kid": "nobody"}))
    refused(changed(access, header={"typ": "JWT"}))

    # Signing keys of every kind that are created after the verifier fetched keys are found.
    for algorithm in ["EdDSA", "RS256", "ES256"]:
        patch = {"settings": {"token_algorithm": algorithm}}
        assert call(f"{base}/v1/apps/acme", patch, key, "PATCH")[0] == 200
        time.sleep(5.5)
        newer = log_in("acme", algorithm.lower())["access_token"]
        status, body, _ = call(hello, bearer=newer)
        assert status == 200, (algorithm, status, body)
    assert call(hello, bearer=access)[0] == 200, "the old key is published for as long as its tokens live"

    # A ban takes effect at the server at once, and here only once the token has expired, as the README says.
    assert call(f"{base}/v1/apps/acme", {"settings": {"access_token_ttl": 1}}, key, "PATCH")[0] == 200
    brief = log_in("acme", "brief")
    assert call(hello, bearer=brief["access_token"])[0] == 200
    ban = f"{base}/v1/apps/acme/admin/users/{ada['user']['id']}/ban"
    assert call(ban, {}, key)[0] == 200
    assert call(f"{base}/v1/apps/acme/auth/me", bearer=access)[0] == 401
    assert call(hello, bearer=access)[0] == 200
    # With an API key of the app, the server can be asked at any time.
    made = call(f"{base}/v1/apps/acme/admin/api-keys", {"name": "service", "permissions": ["users:read"]}, key)[1]
    live = call(f"{base}/v1/apps/acme/auth/introspect", {"token": access}, made["key"])
    assert live[:2] == (200, {"active": False}), live
    time.sleep(32)
    refused(brief["access_token"])

    # Known keys stay valid while the server is away; an unknown key is not the token's fault.
    processes[0].terminate()
    processes[0].wait(20)
    assert call(hello, bearer=access)[0] == 200


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
