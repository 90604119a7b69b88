"""compose.yaml and the Containerfile, in Docker."""

import contextlib
import json
import pathlib
import re
import secrets
import signal
import subprocess
import base64
import time

from machine import CLIENT, DEPLOY, OUTER, PUBLISHED, Machine, Network, block_of, free_of, until

SOCKET = "unix:///run/docker.sock"
URL = f"http://{PUBLISHED}:8080"
# How long an answer may take when a node is lost.
LIMIT = 3.0


def dead_children(pid: int) -> list[str]:
    """Processes that have ended and whose parent has not looked."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            if rest.split()[:2] == ["Z", str(pid)]:
                found.append(name)
    return found


class Docker:
    def __init__(self, folder: pathlib.Path, binary: pathlib.Path, clients: Network, cgroup: str) -> None:
        self.folder, self.clients = folder, clients
        self.machine = Machine(folder / "engine", binary)
        subprocess.run(["rm", "-rf", f"{folder}/engine/var/lib/docker"], check=True)
        # Limits that the current user may not be allowed to raise.
        limits = [f"--default-ulimit={name}=8192:8192" for name in ("nofile", "nproc")]
        command = self.machine.command("dockerd", "-H", SOCKET, f"--cgroup-parent=/{cgroup}", *limits)
        log = open(folder / "dockerd.log", "wb")
        self.daemon = subprocess.Popen(["prlimit", "--nofile=8192:8192", *command], stdout=log, stderr=log)
        until("dockerd answers", lambda: subprocess.run(self.command("version"), capture_output=True, check=False).returncode == 0)

    def close(self) -> None:
        free_of(self.daemon, signal.SIGTERM)

    def explain(self) -> None:
        """Prints the containers' logs after a failed check."""
        names = subprocess.run(self.command("ps", "--all", "--format", "{{.Names}}"), capture_output=True, text=True, check=False).stdout.split()
        for name in names:
            state = subprocess.run(self.command("logs", "--tail", "8", name), capture_output=True, text=True, check=False)
            health = self.state(name)["State"].get("Health", {})
            print(f"--- {name}: {json.dumps(health)[-600:]}\n{(state.stdout + state.stderr)[-1500:]}", flush=True)

    def command(self, *arguments: str) -> list[str]:
        return self.machine.command("docker", "-H", SOCKET, *arguments)

    def docker(self, *arguments: str, **more: object) -> str:
        return self.machine.run("docker", "-H", SOCKET, *arguments, **more).stdout.strip()

    def compose(self, *arguments: str) -> str:
        return self.docker("compose", "--project-directory", "/run/source/deploy", "--env-file", "/run/env", *arguments)

    # --- images ---------------------------------------------------------------------------------------------------------

    def import_image(self, machine: str, name: str) -> None:
        # A database of an earlier run has another password.
        command = ["tar", "-C", str(self.folder / machine), "--exclude=./var/lib/postgresql/data/*", "-c", "."]
        tar = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.docker("import", "-", name, stdin=tar.stdout)
        assert tar.wait() == 0, f"tar of {machine} failed"

    def build(self, name: str, text: str) -> None:
        context = self.machine.root / "run" / "binary"
        (context / "Containerfile").write_text(text)
        self.docker("build", "--network=none", "-f", "/run/binary/Containerfile", "-t", name, "/run/binary")

    def make_images(self) -> None:
        """The image of the Containerfile's last stage, around the binary that is there; in the place of those that compose.yaml
        gets from elsewhere, ones with the same servers from Debian's packages."""
        self.import_image("base", "debian:trixie-slim")
        self.build("build", "FROM scratch\nCOPY watchword /out/watchword\n")
        first, last = re.split(r"^(?=FROM debian)", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)
        assert "AS build" in first and "COPY --from=build" in last
        self.build("watchword", last)
        self.import_image("services", "services")
        for image, lines in {
            "postgres:": 'ENTRYPOINT ["postgres-entrypoint"]\nVOLUME /var/lib/postgresql/data',
            "nats:": 'ENTRYPOINT ["nats-server"]',
            "nginxinc/nginx-unprivileged:": "USER 101:101",
        }.items():
            name = re.search(rf"image: ({re.escape(image)}\S+)", (DEPLOY / "compose.yaml").read_text())[1]
            self.build(name, f"FROM services\n{lines}\n")

    # --- one node ---------------------------------------------------------------------------------------------------------

    def state(self, container: str) -> dict:
        return json.loads(self.docker("inspect", container))[0]

    def is_healthy(self, container: str) -> bool:
        return self.state(container)["State"].get("Health", {}).get("Status") == "healthy"

    def one_node_in_a_container(self) -> None:
        """What the manual says about one node in a container."""
        block = block_of("deploy/README.md", "In a container instead:").replace("\\\n", " ")
        start = next(line for line in block.splitlines() if line.startswith("docker run"))
        start = start.partition("#")[0].replace("docker", f"docker -H {SOCKET}", 1)
        start = start.replace("127.0.0.1:8080:8080", f"{PUBLISHED}:8080:8080")
        self.machine.run("sh", "-c", start)
        until("the container is healthy", lambda: self.is_healthy("watchword"))
        assert self.docker("exec", "watchword", "cat", "admin.key").startswith("wwk_")
        self.docker("exec", "watchword", "watchword", "doctor")
        self.is_reaped("watchword")
        self.docker("rm", "-f", "watchword")
        self.docker("volume", "rm", "watchword")

    def is_reaped(self, container: str) -> None:
        """Orphaned child processes are reaped."""
        self.docker("exec", container, "bash", "-c", "for i in 1 2 3; do (sleep 0.2 & exec true) & done; exit 0")
        first = self.state(container)["State"]["Pid"]
        until(f"no dead process in {container}", lambda: not dead_children(first))

    def tmpfs_as_the_containerfile_says(self) -> None:
        """As the Containerfile's head says for data that need not be kept."""
        option = re.search(r"#\s+docker: (--tmpfs \S+)", (DEPLOY / "Containerfile").read_text())[1]
        self.docker("run", "-d", "--name", "bare", "--read-only", "--cap-drop=ALL", *option.split(), "watchword")
        until("the container is healthy", lambda: self.is_healthy("bare"))
        self.docker("exec", "bare", "watchword", "doctor")
        self.docker("rm", "-f", "bare")

    # --- the cluster ------------------------------------------------------------------------------------------------------

    def compose_up(self) -> None:
        names = ("POSTGRES", "NATS_CLUSTER", "NATS_SYSTEM", "NATS_WATCHWORD", "NATS_ACME_ANALYTICS")
        self.environment = {f"{name}_PASSWORD": f"p{secrets.token_hex(20)}" for name in names}
        self.environment["WATCHWORD_MASTER_KEY"] = base64.b64encode(secrets.token_bytes(32)).decode()
        self.environment["PUBLISH"] = f"{PUBLISHED}:8080"
        self.configure()
        self.compose("up", "-d", "--no-build")
        self.wait_for_nodes(2)
        self.key = self.compose("exec", "-T", "--index", "1", "commands", "cat", "admin.key")
        assert self.key.startswith("wwk_"), self.key

    def compose_down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def configure(self, **more: str) -> None:
        self.environment |= more
        text = "".join(f"{name}={value}\n" for name, value in self.environment.items())
        (self.machine.root / "run" / "env").write_text(text)

    def containers(self, service: str) -> list[str]:
        return sorted(self.compose("ps", "--all", "--format", "{{.Name}}", service).split())

    def wait_for_nodes(self, count: int) -> None:
        for service in ("commands", "projections"):
            until(f"{service} are healthy", lambda: sum(self.is_healthy(it) for it in self.containers(service)) >= count)
        until("the proxy answers", lambda: self.clients.answers(f"{URL}/healthz"))

    def session(self, **headers: str) -> dict:
        """Registers a user, and returns the session that they see."""
        person = {"email": f"{secrets.token_hex(6)}@example.org", "password": "violet-Kettle-93"}
        registered = self.clients.ask("POST", f"{URL}/auth/register", person, CLIENT, **headers)
        assert registered.status == 201, registered
        sign = {"Authorization": f"Bearer {registered.json()['access_token']}", **headers}
        token = registered.headers["Consistency-Token"]
        found = self.clients.ask("GET", f"{URL}/auth/sessions", None, CLIENT, Consistency_Token=token, **sign)
        assert found.status == 200, found
        return found.json()["items"][0]

    def address_is_the_clients(self) -> None:
        # Often enough for every node, and every network by which it could be reached.
        for _ in range(6):
            for headers in ({}, {"X_Forwarded_For": "203.0.113.7"}):
                session = self.session(**headers)
                assert session["ip"] == CLIENT, session

    def outer_proxy_is_believed(self) -> None:
        self.configure(OUTER_PROXIES=CLIENT)
        self.compose("up", "-d", "--no-build", "proxy")
        until("the proxy answers", lambda: self.clients.answers(f"{URL}/healthz"))
        session = self.session(X_Forwarded_For="198.51.100.1, 203.0.113.7")
        assert session["ip"] == "203.0.113.7", session
        self.configure(OUTER_PROXIES=OUTER)
        self.compose("up", "-d", "--no-build", "proxy")
        until("the proxy answers", lambda: self.clients.answers(f"{URL}/healthz"))
        session = self.session(X_Forwarded_For="203.0.113.7")
        assert session["ip"] == CLIENT, session

    def doctor_finds_nothing(self) -> None:
        for service in ("commands", "projections"):
            for index in ("1", "2"):
                self.compose("exec", "-T", "--index", index, service, "watchword", "doctor")

    def dead_processes_are_reaped(self) -> None:
        for service in ("commands", "projections"):
            self.is_reaped(self.containers(service)[0])

    def keep_asking(self, seconds: float) -> float:
        """Asks both roles for a while. Everything is answered within the limit; returns the longest time."""
        end, longest = time.monotonic() + seconds, 0.0
        person = {"email": "nobody@example.org", "password": "violet-Kettle-93"}
        while time.monotonic() < end:
            for method, path, body, status in [
                ("GET", "healthz", None, 200),
                ("POST", "auth/login", person, 401),
                ("GET", "v1/projections", None, 200),
            ]:
                answer = self.clients.ask(method, f"{URL}/{path}", body, CLIENT, Authorization=f"Bearer {self.key}")
                assert answer.status in (status, 429) and answer.seconds < LIMIT, (method, path, answer)
                longest = max(longest, answer.seconds)
        return longest

    def lost_node_costs_less_than_the_limit(self) -> None:
        self.keep_asking(1)
        lost = [self.containers(service)[0] for service in ("commands", "projections")]
        self.docker("kill", *lost)
        longest = self.keep_asking(8)
        print(f"    the first node killed: {longest:.2f} s at most", flush=True)
        self.docker("start", *lost)
        self.wait_for_nodes(2)
        self.docker("stop", *lost)
        longest = self.keep_asking(8)
        print(f"    the first node stopped: {longest:.2f} s at most", flush=True)
        self.docker("start", *lost)
        self.wait_for_nodes(2)

    def new_node_is_used(self) -> None:
        old = {service: self.containers(service) for service in ("commands", "projections")}
        self.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "commands=3", "--scale", "projections=3")
        self.wait_for_nodes(3)
        self.docker("kill", *old["commands"], *old["projections"])
        # What was there before is gone.
        until("only the new nodes answer", lambda: self.clients.answers(f"{URL}/healthz"))
        self.keep_asking(4)
        self.docker("start", *old["commands"], *old["projections"])
        self.wait_for_nodes(3)
        self.compose("up", "-d", "--no-build", "--no-recreate", "--scale", "commands=2", "--scale", "projections=2")
        self.wait_for_nodes(2)

    def stores_come_late(self) -> None:
        nodes = [*self.containers("commands"), *self.containers("projections")]
        stores = [*self.containers("postgres"), *(f"watchword-nats-{n}-1" for n in range(3))]
        self.docker("stop", "--time", "5", *nodes, *stores)
        self.docker("start", *nodes)
        began = time.monotonic()
        while time.monotonic() - began < 15:
            time.sleep(1)
        for node in nodes:
            state = self.state(node)
            assert state["State"]["Running"] and state["RestartCount"] == 0, (node, self.docker("logs", "--tail", "20", node))
            self.docker("exec", node, "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '")
        self.docker("start", *stores)
        self.wait_for_nodes(2)
        until("a login is decided", lambda: self.logs_in())
        self.doctor_finds_nothing()

    def logs_in(self) -> bool:
        with contextlib.suppress(AssertionError):
            return self.session()["ip"] == CLIENT
        return False

    def platform_key_when_the_folder_is_new(self) -> None:
        """The containers of the command nodes and their folder go, as a pod does."""
        self.compose("rm", "--stop", "--force", "--volumes", "commands")
        self.docker("volume", "rm", "watchword_commands")
        self.compose("up", "-d", "--no-build")
        self.wait_for_nodes(2)
        made = self.compose("exec", "-T", "commands", "watchword", "api-key", "create", "platform", "--name", "ops", "--json")
        key = re.search(r"wwk_[A-Za-z0-9_-]+", made)[0]
        answer = self.clients.ask("GET", f"{URL}/v1/apps", None, CLIENT, Authorization=f"Bearer {key}")
        assert answer.status == 200, answer

    def checks(self):
        yield self.make_images
        yield self.one_node_in_a_container
        yield self.tmpfs_as_the_containerfile_says
        yield self.compose_up
        yield self.address_is_the_clients
        yield self.doctor_finds_nothing
        yield self.dead_processes_are_reaped
        yield self.outer_proxy_is_believed
        yield self.lost_node_costs_less_than_the_limit
        yield self.new_node_is_used
        yield self.stores_come_late
        yield self.platform_key_when_the_folder_is_new
        yield self.compose_down
