"""The compose deployment as the end-to-end test handles it: commands of Docker and Compose, and HTTP to what is published."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "tajo-e2e"
PROFILES = ("sandbox", "demo", "metrics", "tools")
COMMAND_S = 900  # the longest is building all images without a cache


class FailedError(Exception):
    """What is not as it must be."""


def run(*command: str, cwd: Path = ROOT, environment: dict[str, str] | None = None, ok: bool = True) -> str:
    """Run it and return what it says, on both outputs.  Raises FailedError where it fails, unless not `ok`."""
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=False, text=True, timeout=COMMAND_S,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if ok and done.returncode:
        raise FailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def until(what: str, look: Callable[[], Any], seconds: float = 300) -> Any:
    """Return the first answer that is true.  Raises FailedError when there was none for so long."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise FailedError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)
    return found


def get(url: str) -> bytes:
    """The body of an answer."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


class Stack:
    """A clean checkout of what is here, in a folder of its own, and the project that runs from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
            if (ROOT / name).exists():  # what is deleted and not committed yet is listed all the same
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        shutil.copy(folder / ".env.example", folder / ".env")
        lines = [line.partition("=") for line in (folder / ".env").read_text().splitlines()]
        self.settings = {name: value for name, _, value in lines if value and not name.startswith("#")}
        ours = ("TAJO_", "TWILIO_", "BREVO_", "OTEL_", "COMPOSE_")
        places = free_places("INGEST", "SANDBOX", "JAEGER")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            **{f"TAJO_{name}_PUBLISH": place for name, place in places.items()},
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": "docker-compose.yml:tests/e2e/compose.yml",
        }
        self.ingest, self.sandbox, self.collector = (f"http://{place}" for place in places.values())
        v2 = (
            subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode == 0
        )
        self.command = ("docker", "compose") if v2 else ("docker-compose",)

    def make(self, target: str) -> str:
        """`make …` in the checkout."""
        return run("make", target, cwd=self.folder, environment=self.environment)

    def compose(self, *arguments: str, ok: bool = True) -> str:
        """`docker compose …` in the checkout."""
        return run(*self.command, *arguments, cwd=self.folder, environment=self.environment, ok=ok)

    def containers(self) -> dict[str, dict[str, Any]]:
        """By service, what `docker inspect` says of each container."""
        label = f"label=com.docker.compose.project={PROJECT}"
        ids = run("docker", "ps", "-a", "-q", "--filter", label).split()
        found = json.loads(run("docker", "inspect", *ids)) if ids else []
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def healthy(self) -> bool:
        """Whether all that have a health check are healthy."""
        states = [one["State"] for one in self.containers().values()]
        return bool(states) and all(
            state["Health"]["Status"] == "healthy" and state["Running"]
            for state in states
            if "Health" in state
        )

    def inside(self, service: str, *command: str, ok: bool = True) -> str:
        """Run something in a container that runs."""
        return run("docker", "exec", self.containers()[service]["Id"], *command, ok=ok)

    def brevo(self) -> dict[str, Any]:
        """What the local Brevo holds."""
        return json.loads(get(f"{self.sandbox}/_sandbox/state"))

    def status(self) -> dict[str, Any] | None:
        """What `tajo connectors status` says; None while the broker is away."""
        said = self.compose(
            "run", "--rm", "-T", "tajo", "connectors", "status", "twilio-flex", "--json", ok=False
        )
        found = re.search(r'^\{\n  "connected".*^\}', said, re.MULTILINE | re.DOTALL)
        return json.loads(found[0]) if found else None

    def kill(self, service: str) -> None:
        """SIGKILL from outside, as the kernel does it; `docker kill` would count as stopped on purpose."""
        pid = self.containers()[service]["State"]["Pid"]
        run("docker", "run", "--rm", "--pid", "host", "--network", "none", "--user", "0", "--entrypoint", "sh",
            self.containers()["nats"]["Config"]["Image"], "-c", f"kill -9 {pid}")  # fmt: skip

    def remove(self) -> None:
        """Everything of the project, volumes too."""
        profiles = [argument for name in PROFILES for argument in ("--profile", name)]
        self.compose(*profiles, "down", "--volumes", "--remove-orphans")


def free_places(*names: str) -> dict[str, str]:
    """An address nothing listens on just now for each, all different."""
    with ExitStack() as held:
        listeners = {name: held.enter_context(socket.create_server(("127.0.0.1", 0))) for name in names}
        return {name: "{}:{}".format(*listener.getsockname()) for name, listener in listeners.items()}
