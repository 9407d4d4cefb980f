"""`make up`: starts the compose deployment and watches until every container is healthy.

Ends with 0 when all are, with 1 when one cannot be or 300 s have passed; then it shows that container's last lines.
Plain `docker compose up -d` starts the same.  Standard library only: nothing of ours need be installed.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEALTHY_S = (
    180.0  # twenty seconds are usual; a book that is made anew from a long log takes longer, and says so
)
LOOK_S = 0.5
LINES = 15  # of the log of what does not work
EX_CONFIG = 78  # a service that cannot use its settings: waiting does not help


@dataclass(frozen=True)
class Container:
    """What the engine says of one container."""

    name: str  # of its service
    id: str
    state: str  # healthy, starting, unhealthy, running, done, ended with 1, created
    published: str  # address on this machine; empty for most

    @property
    def well(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.state in ("healthy", "running", "done")


def container(inspected: dict[str, Any]) -> Container:
    """Read what `docker inspect` says of one."""
    state, labels = inspected["State"], inspected["Config"]["Labels"]
    health = state.get("Health", {}).get("Status")
    if state["Status"] == "exited":
        now = "done" if state["ExitCode"] == 0 else f"ended with {state['ExitCode']}"
    elif state["Status"] == "restarting":
        now = f"ended with {state['ExitCode']}"
    else:
        now = health if health and state["Status"] == "running" else state["Status"]
    bound = [one for ports in inspected["NetworkSettings"]["Ports"].values() for one in ports or ()]
    published = f"{bound[0]['HostIp']}:{bound[0]['HostPort']}" if bound else ""
    return Container(labels["com.docker.compose.service"], inspected["Id"], now, published)


def ended(found: list[Container]) -> list[Container]:
    """Those that will not become well by waiting."""
    return [one for one in found if one.state in ("unhealthy", f"ended with {EX_CONFIG}")]


def compose() -> list[str]:
    """Compose v2, else docker-compose.  Ends the process where there is neither."""
    if shutil.which("docker") and not _quietly(["docker", "compose", "version"]).returncode:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    sys.exit("Docker Compose is not here. Install it, or run without Docker: make local")


def containers(command: list[str]) -> list[Container]:
    """All of the project, but those of `run`."""
    ids = _quietly([*command, "ps", "-a", "-q"]).stdout.split()
    found = json.loads(_quietly(["docker", "inspect", *ids]).stdout or "[]") if ids else []
    once = "com.docker.compose.oneoff"
    return sorted(
        (container(one) for one in found if one["Config"]["Labels"].get(once) != "True"),
        key=lambda one: one.name,
    )


def main() -> None:
    """Entry point."""
    command = compose()
    if not (ROOT / ".env").exists():
        sys.exit("There is no .env. cp .env.example .env runs everything against a local Brevo and Twilio.")
    print("· the images are built", flush=True)
    subprocess.run([*command, "build", "--quiet"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    show = _Display()
    with tempfile.TemporaryFile() as output:
        starting = subprocess.Popen(
            [*command, "up", "-d"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        while True:
            ending = starting.poll()
            found = containers(command)
            show(found)
            if ending == 0 and all(one.well for one in found):
                break
            if ending or ended(found) or time.monotonic() - began > HEALTHY_S:
                starting.terminate()
                output.seek(0)
                _explain(found, output.read().decode(errors="replace"))
            time.sleep(LOOK_S)
    print(f"All is healthy after {time.monotonic() - began:.0f} s.")
    for one in found:
        if one.published:
            print(f"  {one.name:<12}http://{one.published.replace('0.0.0.0', '127.0.0.1')}")


class _Display:
    """Rewrites its lines on a terminal; elsewhere a line for each change."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def __call__(self, found: list[Container]) -> None:
        states = {one.name: one.state for one in found}
        marks = {one.name: "✓" if one.well else "·" for one in found}
        if sys.stdout.isatty():
            back = f"\x1b[{len(self._shown)}F" if self._shown else ""
            lines = [f"\x1b[2K{marks[name]} {name:<12}{state}\n" for name, state in states.items()]
            sys.stdout.write(back + "".join(lines))
        else:
            changed = states.items() - self._shown.items()
            sys.stdout.writelines(f"{marks[name]} {name:<12}{state}\n" for name, state in sorted(changed))
        sys.stdout.flush()
        self._shown = states


def _explain(found: list[Container], output: str) -> None:
    """Show why it does not start, and end with 1."""
    print(output, file=sys.stderr)
    for one in found:
        if not one.well:
            logs = subprocess.run(
                ["docker", "logs", "--tail", str(LINES), one.id],
                check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            print(f"── {one.name}: {one.state}\n{logs.stdout}", file=sys.stderr)
    sys.exit("Not all is healthy. docs/runbook.md says what to do; it goes on by itself once that is mended.")


def _quietly(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


if __name__ == "__main__":
    main()
