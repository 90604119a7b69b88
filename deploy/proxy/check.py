#!/usr/bin/env python3
"""Checks nginx.conf and Caddyfile: that they send to the projections what projection-service answers and nothing else,
and, with the real programs between networks of their own, whose address arrives, what a lost node costs, and what is told
when a request cannot be passed on.

    check.py                               the rules against the routes, which are read from the sources of the services
    check.py --run nginx='PROGRAM …' caddy='PROGRAM …'    the programs too (needs root, or user namespaces)
    check.py --idle WATCHWORD nginx='PROGRAM …' …          instead, before a real node: that no request is lost when its
                                                           connection to the node has been idle for as long as it is kept

Exit code 1 if something is not as it should be.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import random
import re
import shlex
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# --- rules and routes -------------------------------------------------------------------------------------------------


def routes(service: str) -> set[tuple[str, str]]:
    """Method and path of every route, with a value for each parameter."""
    found = set()
    for source in (ROOT / service / "src").rglob("*.rs"):
        for method, path in re.findall(r'utoipa::path\(\s*(\w+),\s*path = "([^"]+)"', source.read_text()):
            found.add((method.upper(), re.sub(r"\{[^}]*\}", "x-1", path)))
    return found


def check_routes() -> None:
    nginx = [re.compile(rule) for rule in re.findall(r'"~(\^(?:\(GET\|HEAD\)|POST) [^"]+)" watch', (HERE / "nginx.conf").read_text())]
    matchers = re.findall(r"method ([A-Z ]+)\n\s+path_regexp (\S+)", (HERE / "Caddyfile").read_text())
    caddy = [(methods.split(), re.compile(path)) for methods, path in matchers]
    wrong = []
    for service, expected in (("projection-service", True), ("command-service", False)):
        all_routes = routes(service)
        assert all_routes, f"no routes found in {service}"
        below = [(method, prefix + path) for method, path in all_routes for prefix in ("", "/auth", "/id/v2")]
        for method, path in sorted(below):
            by_nginx = any(rule.search(f"{method} {path}") for rule in nginx)
            by_caddy = any(method in methods and rule.search(path) for methods, rule in caddy)
            if (by_nginx, by_caddy) != (expected, expected):
                wrong.append(f"{service}: {method} {path}: nginx {by_nginx}, Caddy {by_caddy}")
    assert not wrong, "\n".join(wrong)
    print("every route goes to the service that answers it")


def registry() -> dict[str, tuple[int, str]]:
    """Status and title of every problem that the service knows."""
    source = (ROOT / "schemas" / "src" / "problems.rs").read_text()
    found = re.findall(r'[A-Z_]+ "(\w+)" (\d+) "([^"]+)":', source)
    assert len(found) > 30, "no problems found"
    return {code: (int(status), title) for code, status, title in found}


# --- the network --------------------------------------------------------------------------------------------------------

# Proxy and nodes share one network, proxy and clients another. All of it exists inside this process's namespaces alone.
PROXY = "172.30.87.2"
DNS = "172.30.86.1"
OUTER, CLIENT = "172.30.87.6", "172.30.87.5"
COMMANDS = [f"172.30.86.{n}" for n in (11, 12, 13)]
PROJECTIONS = ["172.30.86.21"]
# Packets to it are lost: a machine without power.
GONE = "172.30.86.66"
PORT = 8080
CHUNKED = {"Transfer-Encoding": "chunked"}
# How long an answer may take when a node is lost.
LIMIT = 3.0
# A generous limit for what happens in the background, such as resolving a name again.
PATIENCE = 60.0


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Names(socketserver.BaseRequestHandler):
    """Answers for A records of the names in `known`; others do not exist."""

    known: dict[str, list[str]] = {}

    @staticmethod
    def known_as(name: str) -> list[str] | None:
        return Names.known.get(name)

    tells = known_as

    def handle(self) -> None:
        data, channel = self.request
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name, kind = ".".join(labels), struct.unpack(">H", data[at + 1 : at + 3])[0]
        addresses = self.tells(name)
        found = addresses if addresses and kind == 1 else []
        head = data[:2] + struct.pack(">HHHHH", 0x8180 if addresses else 0x8183, 1, len(found), 0, 0)
        # Ten minutes, as Docker's server says.
        records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4) + socket.inet_aton(a) for a in found]
        channel.sendto(head + data[12 : at + 5] + b"".join(records), self.client_address)


class Node(http.server.ThreadingHTTPServer):
    """A node that reports its name and what it received."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str) -> None:
        super().__init__((address, PORT), Answers)
        self.address = address
        self.asked = []
        self.open = set()
        self.more = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, *_arguments: object) -> None:
        """The client has gone: it judges that itself."""

    def kill(self) -> None:
        """As when the process is killed: open connections end, nothing listens."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_arguments: object) -> None:
        pass

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"-", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self) -> None:
        try:
            body = self.content()
        except ValueError:
            # The proxy has broken off.
            self.close_connection = True
            return
        self.server.asked.append((self.command, self.path))
        if self.path.startswith("/die"):
            # The whole request is here, and no answer comes.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path.startswith("/stream"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("X-Accel-Buffering", "no")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"6\r\nfirst\n\r\n")
            self.wfile.flush()
            self.server.more.wait(PATIENCE)
            self.wfile.write(b"5\r\nlast\n\r\n0\r\n\r\n")
            return
        status = int(self.path.rpartition("/own/")[2]) if "/own/" in self.path else 200
        told = {
            "node": self.server.address,
            "forwarded": self.headers.get_all("X-Forwarded-For"),
            "request_id": self.headers.get("X-Request-Id"),
            "host": self.headers.get("Host"),
            "bytes": len(body),
        }
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = answer


class Answer:
    def __init__(self, response: http.client.HTTPResponse, seconds: float) -> None:
        self.status, self.headers, self.seconds = response.status, response.headers, seconds
        self.body = response.read()

    def told(self) -> dict:
        return json.loads(self.body)


def ask(method: str, path: str, headers: dict | None = None, body: object = None, source: str = CLIENT, **more: bool) -> Answer:
    connection = http.client.HTTPConnection(PROXY, PORT, timeout=PATIENCE, source_address=(source, 0))
    began = time.monotonic()
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body=body, headers=headers or {}, **more)
        response = connection.getresponse()
        return Answer(response, time.monotonic() - began)
    finally:
        connection.close()


def raw(text: bytes) -> bytes:
    with socket.create_connection((PROXY, PORT), PATIENCE) as connection:
        connection.sendall(text)
        found = b""
        while part := connection.recv(65536):
            found += part
            # nginx keeps reading for a while after a refusal.
            if b"\r\n\r\n" in found and b"}" in found.partition(b"\r\n\r\n")[2]:
                break
        return found


def until(what: str, holds) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(0.05)


# --- what is asked ------------------------------------------------------------------------------------------------------


class Checks:
    def __init__(self, name: str, program: list[str], scratch: pathlib.Path, pid: int) -> None:
        self.name, self.program, self.scratch, self.pid = name, program, scratch, pid
        self.problems = registry()
        self.nodes = {}

    @contextlib.contextmanager
    def proxy(self, folder: pathlib.Path = HERE, **environment: str):
        """The program with its configuration as it is in the repository."""
        if self.name == "nginx":
            # What nginx-start starts must be found by this name.
            programs = self.scratch / "bin"
            programs.mkdir(exist_ok=True)
            (programs / "nginx").write_text(f'#!/bin/sh\nexec {shlex.join(self.program)} "$@"\n')
            (programs / "nginx").chmod(0o755)
            command = ["sh", str(HERE / "nginx-start")]
            environment |= {"NGINX_CONF": str(folder / "nginx.conf"), "PATH": f"{programs}:{os.environ['PATH']}"}
        else:
            command = [*self.program, "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
            environment |= {"XDG_DATA_HOME": str(self.scratch), "XDG_CONFIG_HOME": str(self.scratch), "PATH": os.environ["PATH"]}
        with open(self.scratch / f"{self.name}.log", "ab") as log:
            inside = ["nsenter", "--target", str(self.pid), "--net", "--", *command]
            process = subprocess.Popen(inside, env=environment, stdout=log, stderr=log, start_new_session=True)
            try:
                until(f"{self.name} listens", self.listens)
                assert process.poll() is None, f"{self.name} ended with {process.returncode}"
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(PATIENCE)
                until(f"{self.name} is gone", lambda: not self.listens())

    @staticmethod
    def listens() -> bool:
        try:
            socket.create_connection((PROXY, PORT), 1).close()
        except OSError:
            return False
        return True

    def start(self, addresses: list[str]) -> None:
        for address in addresses:
            if address not in self.nodes:
                self.nodes[address] = Node(address)

    def kill(self, address: str) -> None:
        self.nodes.pop(address).kill()

    def answers_from(self, expected: set[str], method: str = "GET") -> None:
        """Waits until the requests are answered by these nodes and no others."""

        def holds() -> bool:
            answers = [ask(method, "/v1/x") for _ in range(12)]
            late = [f"{a.seconds:.1f} s" for a in answers if a.seconds > LIMIT]
            assert not late, f"answers took {late}"
            return all(a.status == 200 for a in answers) and {a.told()["node"] for a in answers} == expected

        until(f"{method}s are answered by {sorted(expected)}", holds)

    def is_problem(self, answer: Answer, code: str) -> None:
        told = answer.told()
        status, title = self.problems[code]
        assert (answer.status, told["code"]) == (status, code), (answer.status, told)
        assert answer.headers["Content-Type"] == "application/problem+json", answer.headers["Content-Type"]
        assert set(told) == {"type", "title", "status", "detail", "code", "request_id"}, told
        assert (told["type"], told["title"], told["status"]) == (f"/problems/{code}", title, status), told
        assert told["detail"] and told["request_id"] and answer.headers.get_all("X-Request-Id") == [told["request_id"]], told
        assert answer.headers["Cache-Control"] == "no-store"
        assert (answer.headers["Retry-After"] == "1") == (status == 503), answer.headers["Retry-After"]

    # Each of the following begins with all nodes running and known.

    def sends_each_to_its_role(self) -> None:
        for method, path, role in [
            ("GET", "/v1/events", PROJECTIONS),
            ("GET", "/v1/apps/acme/admin/users?limit=1", PROJECTIONS),
            ("POST", "/v1/apps/acme/admin/users", COMMANDS),
            ("POST", "/auth/login", COMMANDS),
            ("POST", "/v1/projections/users/rebuild", PROJECTIONS),
            ("GET", "/healthz", COMMANDS),
        ]:
            told = ask(method, path, {"Host": "login.example.com"}).told()
            assert told["node"] in role and told["host"] == "login.example.com", (method, path, told)

    def tells_the_address_that_asks(self) -> None:
        forged = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=203.0.113.7", "X-Real-IP": "203.0.113.7"}
        for headers in ({}, forged, {"X-Forwarded-For": f"203.0.113.7, {OUTER}"}):
            for path in ("/auth/login", "/v1/events"):
                for source in (CLIENT, OUTER):
                    told = ask("GET", path, headers, source=source).told()
                    assert told["forwarded"] == [source], (headers, told)

    def believes_outer_proxies_that_it_knows(self) -> None:
        for source, claimed, expected in [
            (OUTER, "203.0.113.7", "203.0.113.7"),
            (OUTER, "2001:db8::7", "2001:db8::7"),
            # Left of what the outer proxy saw is what its client claimed.
            (OUTER, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
            (OUTER, f"198.51.100.1, 203.0.113.7, {OUTER}", "203.0.113.7"),
            (OUTER, "203.0.113.7, 10.9.8.7", "203.0.113.7"),
            (OUTER, None, OUTER),
            (CLIENT, "203.0.113.7", CLIENT),
            (CLIENT, f"203.0.113.7, {OUTER}", CLIENT),
        ]:
            headers = {"X-Forwarded-For": claimed} if claimed else {}
            for path in ("/auth/login", "/v1/events"):
                told = ask("GET", path, headers, source=source).told()
                assert told["forwarded"] == [expected], (source, claimed, told)

    def passes_on_what_a_node_answers(self) -> None:
        for status in (400, 404, 413, 500, 502, 503):
            answer = ask("POST", f"/own/{status}")
            assert answer.status == status and answer.told()["node"] in COMMANDS, (status, answer.body)
        assert ask("POST", "/auth/login", body=b"x" * 1000_000).told()["bytes"] == 1000_000
        parts = (b"x" * 10_000 for _ in range(100))
        assert ask("POST", "/auth/login", body=parts, encode_chunked=True, headers=CHUNKED).told()["bytes"] == 1000_000

    def passes_streams_on_as_they_come(self) -> None:
        connection = http.client.HTTPConnection(PROXY, PORT, timeout=PATIENCE)
        connection.request("GET", "/stream")
        response = connection.getresponse()
        assert response.readline() == b"first\n"
        for node in self.nodes.values():
            node.more.set()
        assert response.readline() == b"last\n"
        connection.close()

    def tells_problems_of_its_own(self) -> None:
        for path in ("/readyz", "/metrics", "/auth/readyz"):
            self.is_problem(ask("GET", path), "not_found")
        too_large = b"x" * (1024 * 1024 + 1)
        self.is_problem(ask("POST", "/auth/login", body=too_large), "payload_too_large")
        parts = (too_large[at : at + 65536] for at in range(0, len(too_large), 65536))
        self.is_problem(ask("POST", "/auth/login", body=parts, encode_chunked=True, headers=CHUNKED), "payload_too_large")
        for own in ("abc-123", "0198c5d2-7f3e-7c70-a6f2-d5b2a4c1e9aa"):
            assert ask("GET", "/readyz", {"X-Request-Id": own}).told()["request_id"] == own
            assert ask("GET", "/healthz", {"X-Request-Id": own}).told()["request_id"] == own
        for wrong in ('a"b', "x" * 129, "a b"):
            assert ask("GET", "/readyz", {"X-Request-Id": wrong}).told()["request_id"] != wrong
        ids = {ask("GET", "/healthz").told()["request_id"] for _ in range(3)}
        assert len(ids) == 3 and None not in ids, ids
        if self.name == "nginx":
            # Caddy's answer to invalid requests comes from Go, and cannot be changed.
            for text in (b"GET / HTTP/1.1\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
                found = raw(text)
                assert found.startswith(b"HTTP/1.1 400 ") and b'"code":"malformed_request"' in found, found[:400]

    def does_without_a_node_that_was_stopped(self) -> None:
        self.answers_from(set(COMMANDS))
        self.kill(COMMANDS[0])
        for _ in range(20):
            for method in ("GET", "POST"):
                answer = ask(method, "/v1/x")
                assert answer.status == 200 and answer.seconds < LIMIT, (method, answer.status, answer.seconds)
                assert answer.told()["node"] != COMMANDS[0]
        self.start([COMMANDS[0]])
        self.answers_from(set(COMMANDS))

    def does_without_a_machine_that_is_gone(self) -> None:
        """Its address does not answer at all, and the name still has it."""
        Names.known["commands"] = [GONE, *COMMANDS[:2]]
        self.answers_from(set(COMMANDS[:2]))
        longest = 0.0
        for round_ in range(4):
            # Long enough for the proxy to try the one that is gone again.
            if round_:
                time.sleep(3.2)
            for method in ("GET", "POST", "POST", "GET"):
                answer = ask(method, "/v1/x")
                assert answer.status == 200 and answer.seconds < LIMIT, (method, answer.status, answer.seconds)
                longest = max(longest, answer.seconds)
        print(f"    a machine that is gone costs {longest:.2f} s at most")

    def waits_for_the_one_that_is_gone(self) -> bool:
        """Whether the proxy is trying to connect to it."""
        address = socket.inet_aton(GONE)[::-1].hex().upper()
        lines = pathlib.Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[2].startswith(address) and line.split()[3] == "02" for line in lines)

    def does_without_a_machine_whose_name_goes(self) -> None:
        """The proxy learns that it is gone for good just when a request waits for it."""
        for _ in range(3):
            Names.known["commands"] = [GONE, COMMANDS[0]]
            self.answers_from({COMMANDS[0]})
            answers, learned = [], threading.Event()

            def told(name: str) -> list[str] | None:
                while name == "commands" and not learned.is_set():
                    if self.waits_for_the_one_that_is_gone():
                        Names.known["commands"] = [COMMANDS[0]]
                        learned.set()
                    time.sleep(0.01)
                return Names.known.get(name)

            def go_on(method: str) -> None:
                end = time.monotonic() + PATIENCE
                last = False
                while not last and time.monotonic() < end:
                    last = learned.is_set()
                    answers.append(ask(method, "/v1/x", body=b"{}" if method == "POST" else None))

            threads = [threading.Thread(target=go_on, args=(method,)) for method in ("GET", "POST", "GET", "POST")]
            for thread in threads:
                thread.start()
            try:
                until("the one that is gone is asked", self.waits_for_the_one_that_is_gone)
                Names.tells = staticmethod(told)
                assert learned.wait(PATIENCE), "no name was asked for while a request waited"
            finally:
                learned.set()
                for thread in threads:
                    thread.join()
                Names.tells = staticmethod(Names.known_as)
            wrong = [(a.status, a.seconds, a.body) for a in answers if a.status != 200 or a.seconds > LIMIT]
            assert answers and not wrong, wrong

    def uses_new_nodes_and_forgets_old_ones(self) -> None:
        Names.known["commands"] = COMMANDS[:1]
        self.answers_from({COMMANDS[0]})
        # An entirely new set of addresses, as when every pod is replaced.
        Names.known["commands"] = COMMANDS[1:]
        self.answers_from(set(COMMANDS[1:]))
        self.kill(COMMANDS[0])
        self.answers_from(set(COMMANDS[1:]), "POST")

    def says_what_may_have_been_done(self) -> None:
        """A node that received the request does not answer: only requests without effect are repeated."""
        def asked(method: str) -> int:
            return sum((method, f"/die/{method}") in [a for a in n.asked] for n in self.nodes.values())

        self.is_problem(ask("POST", "/die/POST", body=b"{}"), "outcome_unknown")
        assert asked("POST") == 1, asked("POST")
        self.is_problem(ask("GET", "/die/GET"), "unavailable")
        assert asked("GET") > 1, asked("GET")

    def says_that_no_node_answers(self) -> None:
        for address in COMMANDS:
            self.kill(address)
        for method in ("GET", "GET", "GET"):
            answer = ask(method, "/v1/x")
            self.is_problem(answer, "unavailable")
            assert answer.seconds < LIMIT + 1, answer.seconds
        # The others still work.
        assert ask("GET", "/v1/events").status == 200
        answer = ask("POST", "/v1/x", body=b"{}")
        self.is_problem(answer, "unavailable" if self.name == "nginx" else "outcome_unknown")
        self.start(COMMANDS)
        self.answers_from(set(COMMANDS))

    def start_before_its_nodes(self) -> None:
        Names.known = {}
        with self.proxy():
            answer = ask("GET", "/healthz")
            self.is_problem(answer, "unavailable")
            assert answer.seconds < LIMIT + 1, answer.seconds
            Names.known = {"commands": COMMANDS, "projections": PROJECTIONS}
            self.answers_from(set(COMMANDS))
            until("the projections answer", lambda: ask("GET", "/v1/events").status == 200)

    def loses_no_request_at_the_idle_limit(self, watchword: str) -> None:
        """With times that are as many seconds as the real ones are minutes."""
        short = self.scratch / "short"
        short.mkdir(exist_ok=True)
        for name in ("nginx.conf", "Caddyfile"):
            text = (HERE / name).read_text()
            assert re.search(r"keepalive(_timeout)? 60s", text), f"{name} says how long connections are kept"
            (short / name).write_text(re.sub(r"(keepalive(?:_timeout)?) 60s", r"\1 1s", text))
        data = self.scratch / f"data-{self.name}"
        environment = {
            "WATCHWORD_DATA_DIR": str(data),
            "WATCHWORD_LISTEN": f"{COMMANDS[0]}:{PORT}",
            "WATCHWORD_PUBLIC_URL": "http://login.example.com",
            "WATCHWORD_TRUSTED_PROXIES": "172.30.86.0/24",
            "WATCHWORD_RATE_LIMITS": "off",
            "WATCHWORD_HTTP_IDLE_TIME": os.environ.get("CHECK_IDLE_TIME", "2"),
        }
        Names.known = {"commands": COMMANDS[:1], "projections": COMMANDS[:1]}
        with open(self.scratch / "watchword.log", "ab") as log:
            node = subprocess.Popen([watchword, "serve"], env=environment, stdout=log, stderr=log)
        answers, lanes, rounds = [], 50, 20
        together = threading.Barrier(lanes, timeout=PATIENCE)

        def lane() -> None:
            for round_ in range(rounds):
                together.wait()
                # As long as the proxy keeps a connection, or the node.
                time.sleep((1, 2)[round_ % 2] + random.uniform(-0.03, 0.03))
                body = b'{"refresh_token": "none"}'
                answers.append(ask("POST", "/auth/logout", {"Content-Type": "application/json"}, body).status)

        try:
            with self.proxy(short):
                until("the node answers", lambda: ask("GET", "/healthz").status == 200)
                threads = [threading.Thread(target=lane) for _ in range(lanes)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            node.terminate()
            node.wait(PATIENCE)
        found = {status: answers.count(status) for status in sorted(set(answers))}
        print(f"    {lanes * rounds} POSTs: {found}")
        assert found == {401: lanes * rounds}, (self.scratch / "watchword.log").read_text()[-2000:]

    def all(self) -> None:
        self.start(COMMANDS + PROJECTIONS)

        def step(check, *arguments: object) -> None:
            print(f"  {self.name}: {check.__name__.replace('_', ' ')}", flush=True)
            check(*arguments)

        def begin() -> None:
            self.start(COMMANDS + PROJECTIONS)
            Names.known = {"commands": COMMANDS, "projections": PROJECTIONS}

        begin()
        step(self.start_before_its_nodes)
        begin()
        with self.proxy():
            self.answers_from(set(COMMANDS))
            step(self.tells_the_address_that_asks)
        with self.proxy(OUTER_PROXIES=f"{OUTER} 10.0.0.0/8"):
            self.answers_from(set(COMMANDS))
            for check in (
                self.believes_outer_proxies_that_it_knows,
                self.sends_each_to_its_role,
                self.passes_on_what_a_node_answers,
                self.passes_streams_on_as_they_come,
                self.tells_problems_of_its_own,
                self.does_without_a_node_that_was_stopped,
                self.does_without_a_machine_that_is_gone,
                # Caddy asks for names while it has a request, and never beside one that waits.
                *([self.does_without_a_machine_whose_name_goes] if self.name == "nginx" else []),
                self.uses_new_nodes_and_forgets_old_ones,
                self.says_what_may_have_been_done,
                self.says_that_no_node_answers,
            ):
                begin()
                self.answers_from(set(COMMANDS))
                step(check)
        for address in list(self.nodes):
            self.kill(address)


def run_checks(programs: dict[str, list[str]], watchword: str | None) -> None:
    """Runs in separate namespaces: the machine's network is not touched."""
    # A /tmp of its own, as in the container. The sources may be below that of the machine.
    run("mount", "--make-rprivate", "/")
    sources = os.open(ROOT, os.O_RDONLY)
    run("mount", "-t", "tmpfs", "tmpfs", "/tmp")
    if not ROOT.exists():
        ROOT.mkdir(parents=True)
        run("mount", "--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{sources}", str(ROOT))
    scratch = pathlib.Path("/tmp/check")
    scratch.mkdir()
    other = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        until("the proxy's network is there", lambda: os.readlink(f"/proc/{other.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
        inside = ["nsenter", "--target", str(other.pid), "--net", "--"]
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "nodes", "type", "veth", "peer", "name", "proxy", "netns", str(other.pid))
        for address in (DNS, *COMMANDS, *PROJECTIONS, OUTER, CLIENT):
            run("ip", "address", "add", f"{address}/24", "dev", "nodes")
        run("ip", "link", "set", "nodes", "up")
        for address in ("172.30.86.2", PROXY):
            run(*inside, "ip", "address", "add", f"{address}/24", "dev", "proxy")
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "link", "set", "proxy", "up")
        run(*inside, "ip", "neigh", "add", GONE, "lladdr", "02:00:00:00:00:66", "dev", "proxy")
        resolv = scratch / "resolv.conf"
        resolv.write_text(f"nameserver {DNS}\noptions timeout:1 attempts:1\n")
        run("mount", "--bind", str(resolv), "/etc/resolv.conf")
        names = socketserver.ThreadingUDPServer((DNS, 53), Names)
        names.daemon_threads = True
        threading.Thread(target=names.serve_forever, daemon=True).start()
        for name, program in programs.items():
            try:
                checks = Checks(name, program, scratch, other.pid)
                if watchword:
                    print(f"  {name}: loses no request at the idle limit", flush=True)
                    checks.loses_no_request_at_the_idle_limit(watchword)
                else:
                    checks.all()
            except BaseException:
                print(f"what {name} said:\n" + (scratch / f"{name}.log").read_text(errors="replace")[-4000:])
                raise
    finally:
        other.kill()
        other.wait()


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] not in (["--run"], ["--idle"]):
        check_routes()
        return
    watchword = arguments[1] if arguments[0] == "--idle" else None
    rest = arguments[2 if watchword else 1 :]
    programs = {name: shlex.split(program) for name, _, program in (it.partition("=") for it in rest)}
    assert programs and set(programs) <= {"nginx", "caddy"}, __doc__
    if os.environ.get("CHECK_INSIDE") != "yes":
        check_routes()
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        os.environ["CHECK_INSIDE"] = "yes"
        os.execvp("unshare", ["unshare", *as_root, "--mount", "--net", sys.executable, __file__, *arguments])
    run_checks(programs, watchword)


if __name__ == "__main__":
    main()
