"""The Python client: the same as the command line, and telling of what happened elsewhere.  docs/client.md

    async with TajoClient() as tajo:
        await tajo.connectors.handle_event("twilio-flex", type="task.completed", payload={"task_sid": "WT…"})

What is not given is read as the services read it: environment, then credential store.  Nothing is written to
os.environ.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from shared.backfill import Backfill
from shared.event import rfc3339
from shared.login import Login, login_as
from shared.settings import SettingsError, secure_url
from tajo import deployment
from tajo import sync as reads
from tajo.events import Request, request_of
from tajo.install import Asked, Report, install
from tajo.installation import Installation, known, read
from tajo.output import NATS_URL
from tajo.status import Status

TIMEOUT_S = 15.0  # ingest answers within 5 s, or says 503
TRIES_MAX = 5
DELAY_S, DELAY_MAX_S = 0.5, 8.0


class NotTakenError(Exception):
    """Ingest did not take an event, and why.  It may be told again: an event told twice is one."""


class TajoClient:
    """A deployment of Tajo.  `async with` keeps one connection; without it each call makes its own."""

    def __init__(
        self,
        api_key: str | None = None,
        brevo_api_key: str | None = None,
        *,
        ingest_url: str | None = None,
        nats_url: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`api_key` is TAJO_API_KEY; `ingest_url` where ingest is, else TAJO_INGEST_HOST and _PORT on this machine.

        `nats_url` is where the broker is, else TAJO_NATS_URL.
        """
        given = {"TAJO_API_KEY": api_key, "BREVO_API_KEY": brevo_api_key}
        self._given = {name: value for name, value in given.items() if value}
        self._environ = dict(os.environ if environ is None else environ)
        self._ingest_url = ingest_url
        self.nats_url = nats_url or self._environ.get("TAJO_NATS_URL") or NATS_URL
        self._http: httpx.AsyncClient | None = None
        self.connectors = Connectors(self)

    @property
    def login(self) -> Login:
        """What opens the broker.  Raises SettingsError."""
        return login_as("tajo", self.nats_url, self._environ)

    async def __aenter__(self) -> Self:
        self._http = _http()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.aclose()
            self._http = None

    def installation(self, name: str, given: Mapping[str, str | None]) -> Installation:
        """What is known of a connector.  Raises SettingsError and ConfigError."""
        return read(
            name,
            self._environ,
            {**self._given, **{variable: value for variable, value in given.items() if value}},
        )

    async def post(self, installation: Installation, request: Request) -> None:
        """Tell ingest, until it is on disk there.  Raises SettingsError and NotTakenError."""
        key = installation.values.get("TAJO_API_KEY")
        if not key:
            raise SettingsError(
                "TAJO_API_KEY is not set: ingest takes what you tell only with the key it knows"
            )
        base = secure_url(
            "ingest_url",
            self._ingest_url or _local(installation.environ),
            allow_http=installation.twilio.allow_http,
        )
        headers = {"x-tajo-key": key, "content-type": "application/json"}
        async with self._client() as http:
            why = ""
            for tries in range(TRIES_MAX):
                if tries:
                    await asyncio.sleep(min(DELAY_S * 2 ** (tries - 1), DELAY_MAX_S))
                try:
                    answer = await http.post(f"{base}{request.path}", content=request.body, headers=headers)
                except httpx.HTTPError as error:
                    why = f"it does not answer ({type(error).__name__}): does it run there?"
                    continue
                match answer.status_code:
                    case 200 | 204:
                        return
                    case 403 | 404:
                        raise NotTakenError(
                            f"ingest at {base} knows another TAJO_API_KEY, or none: restart it once it is set"
                        )
                    case status if status != 429 and status < 500:
                        raise NotTakenError(f"ingest at {base} answers {status}: is that ingest?")
                    case status:
                        why = f"it answers {status}"
            raise NotTakenError(f"ingest at {base}: {why}")

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        if self._http:
            yield self._http
            return
        async with _http() as http:
            yield http


class Connectors:
    """What can be done with a connector, by its name."""

    def __init__(self, client: TajoClient) -> None:
        self._client = client

    async def connect(
        self,
        name: str,
        *,
        account_sid: str | None = None,
        auth_token: str | None = None,
        api_key_sid: str | None = None,
        api_key_secret: str | None = None,
        flex_flow_sid: str | None = None,
        public_url: str | None = None,
        check: bool = True,
        event_streams: bool = False,
        event_callback: bool = False,
        force: bool = False,
    ) -> Report:
        """As `tajo connectors install`; who calls it has consented to what it asks for.

        Raises SettingsError, ConfigError, NotInstalledError (nothing is stored then) and TwilioError.
        """
        given = {
            "TWILIO_ACCOUNT_SID": account_sid, "TWILIO_AUTH_TOKEN": auth_token, "TWILIO_API_KEY_SID": api_key_sid,
            "TWILIO_API_KEY_SECRET": api_key_secret, "TAJO_FLEX_FLOW_SID": flex_flow_sid, "TAJO_PUBLIC_URL": public_url,
        }  # fmt: skip
        installation = self._client.installation(name, given)
        return await install(installation, Asked(check, event_streams, event_callback, force))

    async def sync(
        self,
        name: str,
        *,
        type: str = "incremental",  # noqa: A002 - the command's word
        resources: Sequence[str] = reads.USUAL,
        since: str = "",
        channels: Sequence[str] = (),
        on_look: Callable[[list[Backfill]], None] = lambda _: None,
    ) -> list[Backfill]:
        """As `tajo connectors sync`: returns how the reading of each resource ended; `on_look` hears how far each is.

        Cancelled, it stops them, and the same again goes on from there.  Raises WrongWordError for a word that is none,
        and nats' errors and OSError where the broker cannot be reached.
        """
        known(name)
        asked = reads.asks(type_=type, resources=resources, since=since, channels=channels)
        return await reads.sync(self._client.nats_url, asked, on_look, login=self._client.login)

    async def status(self, name: str) -> Status:
        """As `tajo connectors status`.  Raises nats' errors and OSError where the broker cannot be reached."""
        known(name)
        return await deployment.status(self._client.nats_url, self._client.login)

    async def handle_event(self, name: str, *, type: str, payload: Mapping[str, Any]) -> None:  # noqa: A002 - CloudEvents' word
        """Tell of something that happened; returns once it is on disk.  Told again it is the same event.

        Raises EventError for what cannot be told, SettingsError, ConfigError and NotTakenError.
        """
        request = request_of(type, payload, now=rfc3339(time.time_ns() // 1_000_000))
        await self._client.post(self._client.installation(name, {}), request)


def _http() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)


def _local(environ: Mapping[str, str]) -> str:
    """Where ingest listens; one that listens everywhere is called on this machine."""
    host = environ.get("TAJO_INGEST_HOST") or "127.0.0.1"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{host}:{environ.get('TAJO_INGEST_PORT') or 8080}"
