"""`make e2e`: the compose deployment from a clean checkout, seen from outside.

It plays Twilio with webhooks it signs itself, and asks the local Brevo what arrived.  It imports nothing of ours, and
needs Docker, Compose and this standard library.  It ends with 0 when all is as it must be, and leaves nothing behind.
"""

import base64
import hashlib
import hmac
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from stack import FailedError, Stack, get, run, until

SERVICES = ("ingest", "mapper", "brevo-sink", "poller")
LASTING = ("nats", *SERVICES, "jaeger", "sandbox")
ROOT_ALLOWED = {"volumes": ["CAP_CHOWN", "CHOWN"]}  # it makes volumes those of another user, without network
OWN_LAYERS_BYTES_MAX = 120_000_000
GRACE_S = 30  # stop_grace_period: then Docker kills
# What services may warn of while their broker, or they, are killed or taken down.
WHILE_KILLED = {"nats_error", "spooling", "not_polled", "erasure_waits", "lease_lost", "spans_not_sent"}
BROKER_LINES = re.compile(
    r"\[(INF|DBG|TRC)\]|Plaintext passwords detected|TTL state is outdated; attempting to recover"
)
"""What the broker may say: its passwords are its environment's (ADR 0019), and once killed it reads a bucket anew."""


class Caller:
    """Somebody who calls: the task.created that TaskRouter tells of, as its event callback."""

    def __init__(self, number: int) -> None:
        self.email = f"caller.{number}@end2end.example"
        self._number = number
        self._ms = time.time_ns() // 1_000_000

    def webhook(self, account: str) -> list[tuple[str, str]]:
        """https://www.twilio.com/docs/taskrouter/api/event/reference"""
        attributes = {
            "email": self.email,
            "name": "Zebulon Quagmire",
            "channelType": "voice",
            "direction": "inbound",
        }
        return [
            ("EventType", "task.created"),
            ("AccountSid", account),
            ("WorkspaceSid", sid("WS", "e2e")),
            ("WorkspaceName", "Flex Task Assignment"),
            ("EventDescription", "Task created"),
            ("ResourceType", "task"),
            ("ResourceSid", sid("WT", self.email)),
            ("Timestamp", str(self._ms // 1000)),
            ("TimestampMs", str(self._ms)),
            ("Sid", sid("EV", self.email)),
            ("TaskSid", sid("WT", self.email)),
            ("TaskAttributes", json.dumps(attributes)),
            ("TaskAge", "0"),
            ("TaskPriority", "0"),
            ("TaskAssignmentStatus", "pending"),
            ("TaskVersion", "1"),
            ("TaskChannelSid", sid("TC", "voice")),
            ("TaskChannelUniqueName", "voice"),
            ("WorkflowSid", sid("WW", "e2e")),
            ("WorkflowName", "Assign to Anyone"),
        ]


def sid(prefix: str, name: str) -> str:
    return prefix + hashlib.sha256(f"{prefix} {name}".encode()).hexdigest()[:32]


class Test:
    """The checks, in the order in which they run; each says one sentence when it holds."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.secrets = {
            name.removesuffix("_FILE"): (stack.folder / value).read_text().strip()
            for name, value in stack.settings.items()
            if name.endswith("_FILE")
        }
        self.callers: list[Caller] = []
        self.people: set[str] = {"Zebulon", "Quagmire"}  # words that no log may hold
        self.logs: dict[str, str] = {}

    # -- Twilio ---------------------------------------------------------------------------------------------

    def send(self, caller: Caller, signature: str = "") -> int:
        """The status of one try; 0 for no answer."""
        form = caller.webhook(self.stack.settings["TWILIO_ACCOUNT_SID"])
        url = self.stack.settings["TAJO_PUBLIC_URL"] + "/webhooks/taskrouter"
        text = url + "".join(name + value for name, value in sorted(form))
        digest = hmac.new(self.secrets["TWILIO_AUTH_TOKEN"].encode(), text.encode(), hashlib.sha1).digest()
        request = urllib.request.Request(
            self.stack.ingest + "/webhooks/taskrouter",
            urlencode(form).encode(),
            {"X-Twilio-Signature": signature or base64.b64encode(digest).decode()},
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def call(self) -> Caller:
        """Somebody new calls, and Twilio tells of it until it is taken, and then once more."""
        self.callers.append(caller := Caller(len(self.callers) + 1))
        for _ in range(2):
            until("a 2xx for a signed webhook", lambda: 200 <= self.send(caller) < 300)
        return caller

    # -- Brevo ----------------------------------------------------------------------------------------------

    def events_of(self, caller: Caller) -> list[str] | None:
        """Names of the events of a caller; None where there is no such contact."""
        state = self.stack.brevo()
        for contact in state["contacts"]:
            if contact.get("email") == caller.email:
                return [one["event_name"] for one in state["events"] if one["contact_id"] == contact["id"]]
        return None

    def arrives(self, caller: Caller) -> None:
        """One contact, one event, once all that waits is done."""
        until(f"the event of {caller.email} at Brevo", lambda: self.events_of(caller))
        self.all_done()
        if (events := self.events_of(caller)) != ["SUPPORT_REQUESTED"]:
            raise FailedError(f"Brevo has {events} of somebody who called once")

    def all_done(self) -> dict:
        """What the status says once nothing waits or is in hand."""

        def look() -> dict | None:
            if (status := self.stack.status()) is None or not status["connected"] or status["spooled"]:
                return None
            return None if any(count for lag in status["lag"].values() for count in lag.values()) else status

        return until("nothing waits", look)

    # -- the checks -----------------------------------------------------------------------------------------

    def it_comes_up(self) -> str:
        """cp .env.example .env && make up: every container is healthy"""
        self.stack.make("up")
        until("all healthy", self.stack.healthy, 1)
        found = self.stack.containers()
        if missing := {*LASTING, "bootstrap", "volumes"} - found.keys():
            raise FailedError(f"not there: {missing}")
        return ", ".join(sorted(found))

    def it_is_confined(self) -> str:
        """No root, no capability, no new privilege, nothing to write to but volumes and /tmp, memory limited, logs bounded"""
        for name, one in self.stack.containers().items():
            host, config = one["HostConfig"], one["Config"]
            faults = {
                "runs as root": config["User"].split(":")[0] in ("", "0", "root") and name not in ROOT_ALLOWED,
                "root is writable": not host["ReadonlyRootfs"],
                "keeps capabilities": host["CapDrop"] != ["ALL"],
                "adds capabilities": bool(set(host["CapAdd"] or ()) - set(ROOT_ALLOWED.get(name, ()))),
                "may gain privileges": not any("no-new-privileges" in one for one in host["SecurityOpt"] or ()),
                "has no memory limit": not host["Memory"],
                "may fork without end": not host["PidsLimit"],
                "logs without end": "max-size" not in host["LogConfig"]["Config"],
                "is published beyond loopback": name != "ingest" and any(
                    bound["HostIp"] != "127.0.0.1"
                    for ports in host["PortBindings"].values() for bound in ports
                ),
                "has a secret in its environment": any(
                    secret in value for value in config["Env"] for secret in self.secrets.values()
                ),
            }  # fmt: skip
            if found := [fault for fault, true in faults.items() if true]:
                raise FailedError(f"{name} {', '.join(found)}")
        for name in LASTING:
            status = self.stack.inside(name, "cat", "/proc/1/status")
            told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if told["Uid"].split()[0] == "0" or int(told["CapEff"], 16) or told["NoNewPrivs"] != "1":
                raise FailedError(f"{name} runs with uid {told['Uid']}, capabilities {told['CapEff']}")
            if "Read-only file system" not in self.stack.inside(name, "touch", "/written", ok=False):
                raise FailedError(f"{name} can write to its root")
        return f"{len(LASTING)} containers asked from within"

    def it_is_small(self) -> str:
        """What the images add to python:3.13-slim is less than 120 MB"""
        base = int(run("docker", "image", "inspect", "--format", "{{.Size}}", "python:3.13-slim"))
        sizes = {}
        for name in ("ingest", "mapper", "brevo-sink", "poller", "cli", "sandbox"):
            size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", f"tajo/{name}"))
            sizes[name] = size - base
        if max(sizes.values()) >= OWN_LAYERS_BYTES_MAX:
            raise FailedError(f"too large: {sizes}")
        return ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sizes.items())

    def the_demo_is_played(self) -> str:
        """A day in a contact centre: Brevo holds exactly what was expected"""
        self.stack.compose("--profile", "demo", "run", "--rm", "-T", "demo")
        state = self.stack.brevo()
        for contact in state["contacts"]:
            told = [
                contact.get("email"),
                *(contact["attributes"].get(name) for name in ("FIRSTNAME", "LASTNAME", "SMS")),
            ]
            self.people.update(
                word for one in told if one for word in [one, *str(one).split()] if len(word) > 3
            )
        if not state["contacts"] or not state["events"]:
            raise FailedError("the demo ended with 0, and Brevo has nothing")
        return f"{len(state['contacts'])} contacts, {len(state['events'])} events"

    def only_twilio_is_heard(self) -> str:
        """A webhook from outside, twice, is one event; one with a wrong signature is a 403 and nothing"""
        known = self.call()
        self.arrives(known)
        stranger = Caller(0)
        if (status := self.send(stranger, "d3Jvbmc=")) != 403:
            raise FailedError(f"a wrong signature is answered with {status}")
        self.arrives(self.call())  # later than the stranger's, so that would be there too
        if self.events_of(stranger) is not None:
            raise FailedError("what was wrongly signed reached Brevo")
        return ""

    def all_is_traced(self) -> str:
        """Traces arrive over OTLP and connect ingest, mapper and brevo-sink"""
        way = {"ingest", "mapper", "brevo-sink"}

        def look() -> dict[str, list[str]] | None:
            traces = json.loads(get(self.stack.collector))
            return traces if any(way <= set(services) for services in traces.values()) else None

        traces = until("a trace from ingest to brevo-sink", look)
        self.hold_nothing_private("the spans", get(self.stack.collector + "/bytes").decode("latin-1"))
        whole = sum(way <= set(services) for services in traces.values())
        return f"{len(traces)} traces, {whole} of them through all three"

    def all_is_measured(self) -> str:
        """Prometheus' targets answer with our metrics, from another container"""
        targets = re.findall(
            r'targets: \["([^"]+)"', (self.stack.folder / "deploy/prometheus/prometheus.yml").read_text()
        )
        for target in targets:
            program = (
                f"import urllib.request as u; print(u.urlopen('http://{target}/metrics').read().decode())"
            )
            if "tajo_ready 1.0" not in self.stack.inside("jaeger", "python", "-c", program):
                raise FailedError(f"{target}/metrics does not say tajo_ready 1.0")
        return ", ".join(targets)

    def each_is_killed(self) -> str:
        """Each container killed is back and healthy by itself, and who calls meanwhile arrives once"""
        took = []
        for name in ("nats", *SERVICES):
            before, began = self.stack.containers()[name]["RestartCount"], time.monotonic()
            self.stack.kill(name)
            caller = self.call()
            until(f"{name} started again", lambda: self.stack.containers()[name]["RestartCount"] > before)  # noqa: B023 - called at once
            until(f"all healthy after {name} was killed", self.stack.healthy)
            took.append(f"{name} {time.monotonic() - began:.0f} s")
            self.arrives(caller)
        return ", ".join(took)

    def data_are_kept(self) -> str:
        """After docker compose down and up, book, log and ledger are as before, and what is told again is not doubled"""
        self.keep_logs()
        before, delivered = self.all_done(), self.delivered()
        began = time.monotonic()
        self.stack.compose("down")
        if (down_s := time.monotonic() - began) > GRACE_S:
            raise FailedError(f"docker compose down took {down_s:.0f} s: something did not end by SIGTERM")
        self.stack.compose("up", "-d")
        until("all healthy", self.stack.healthy)
        after = self.all_done()
        for count in ("conversationsTracked", "customersLinked", "deadLetters"):
            if before[count] != after[count]:
                raise FailedError(f"{count} was {before[count]}, and is {after[count]}")
        if delivered != (now := self.delivered()):
            raise FailedError(f"the ledger held {delivered} events, and holds {now}")
        for caller in self.callers:
            if (status := self.send(caller)) // 100 != 2:
                raise FailedError(f"a repeated webhook is answered with {status}")
        known = len(self.callers)
        self.arrives(self.call())
        state = self.stack.brevo()  # this Brevo keeps nothing: all it has came after
        if (len(state["contacts"]), len(state["events"])) != (1, 1):
            raise FailedError(f"{known} repeated webhooks and a new one made {len(state['contacts'])} contacts, "
                              f"{len(state['events'])} events")  # fmt: skip
        return f"{after['conversationsTracked']} conversations, {delivered} events in the ledger; down took {down_s:.0f} s"

    def delivered(self) -> int:
        """How many events the ledger has."""
        program = (
            "import sqlite3; print(sqlite3.connect('file:/data/brevo-sink/ledger.sqlite?mode=ro', uri=True)"
            ".execute('select count(*) from event').fetchone()[0])"
        )
        return int(self.stack.inside("brevo-sink", "python", "-c", program))

    def a_day_is_quiet(self) -> str:
        """Up to here nobody warned of anything but the wrong signature"""
        said = {name: run("docker", "logs", one["Id"]) for name, one in self.stack.containers().items()}
        if (found := warnings(said)) != {"ingest warning signature_refused"}:
            raise FailedError(f"in the logs: {found}")
        return f"{sum(len(text.splitlines()) for text in said.values())} lines"

    def logs_are_clean(self) -> str:
        """No log holds an error, a traceback, a secret, or a name, mail or phone of a customer"""
        self.keep_logs()
        for name, text in self.logs.items():
            self.hold_nothing_private(f"the log of {name}", text)
        allowed = {f"{name} warning {event}" for name in SERVICES for event in WHILE_KILLED}
        found = warnings(self.logs) - {"ingest warning signature_refused"}
        if strange := found - allowed:
            raise FailedError("in the logs:\n" + "\n".join(sorted(strange)))
        lines = sum(len(text.splitlines()) for text in self.logs.values())
        return f"{lines} lines, {len(self.people)} words looked for; while killed: {', '.join(sorted(found))}"

    def keep_logs(self) -> None:
        """Add what the containers logged; `down` takes it away."""
        for name, one in self.stack.containers().items():
            self.logs[name] = self.logs.get(name, "") + run("docker", "logs", one["Id"])

    def hold_nothing_private(self, where: str, text: str) -> None:
        for word in self.people | {caller.email for caller in self.callers} | set(self.secrets.values()):
            for written in (word, json.dumps(word)[1:-1]):
                if re.search(rf"(?<!\w){re.escape(written)}(?!\w)", text):
                    raise FailedError(f"{where} holds {word}")

    def checks(self) -> list[Callable[[], str]]:
        return [
            self.it_comes_up, self.it_is_confined, self.it_is_small, self.the_demo_is_played, self.only_twilio_is_heard,
            self.all_is_traced, self.all_is_measured, self.a_day_is_quiet, self.each_is_killed, self.data_are_kept, self.logs_are_clean,
        ]  # fmt: skip


def warnings(logs: dict[str, str]) -> set[str]:
    """What is more than information in the logs of the services and the broker: service, level, event."""
    found = set()
    for name, text in logs.items():
        if "Traceback" in text:
            raise FailedError(f"{name} logged a traceback:\n{text[text.index('Traceback') :][:3000]}")
        for line in text.splitlines():
            if name in SERVICES:
                said = json.loads(line)
                if said["level"] not in ("debug", "info"):
                    found.add(f"{name} {said['level']} {said['event']}")
            elif name == "nats" and not BROKER_LINES.search(line):
                found.add(f"nats {line}")
    return found


def not_run() -> list[str]:
    """What this machine cannot run of the stack, and what stands for it."""
    if promtool := shutil.which("promtool"):
        run(promtool, "check", "config", "deploy/prometheus/prometheus.yml")
        return [
            "Jaeger: in its place something of ours counts spans",
            "Prometheus: promtool has checked its configuration",
        ]
    return [
        "Jaeger: in its place something of ours counts spans",
        "Prometheus: its targets are asked as it would ask",
    ]


def main() -> None:
    for one in not_run():
        print(f"· not run here: {one}")
    with tempfile.TemporaryDirectory(prefix="tajo-e2e-") as folder:
        stack = Stack(Path(folder))
        print(f"· {stack.compose('version').splitlines()[0]}")
        stack.remove()  # what a killed run left
        test = Test(stack)
        try:
            for check in test.checks():
                began = time.monotonic()
                found = check()
                print(f"✓ {check.__doc__}  {time.monotonic() - began:.0f} s")
                if found:
                    print(f"  {found}")
        except (FailedError, OSError, subprocess.SubprocessError) as error:
            test.keep_logs()
            for name, text in test.logs.items():
                print(f"── {name}\n" + "\n".join(text.splitlines()[-30:]))
            sys.exit(f"✗ {error}")
        finally:
            stack.remove()
    print("All is as it must be.")


if __name__ == "__main__":
    main()
