"""`tajo connectors test`: ask everything there is once, in the order in which one thing needs another."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any

import httpx
import msgspec
import nats.errors
import nats.js.errors
from msgspec import Struct
from nats.aio.client import Client
from nats.js import JetStreamContext

from brevo_sink.brevo import Reply
from brevo_sink.preflight import REMEDY, look, why_not
from poller import endpoints
from poller.endpoints import Endpoint
from poller.twilio import Twilio, TwilioError
from shared.bootstrap import consumer_config, stream_config
from shared.login import Login, login_as
from shared.settings import NatsUrl, SettingsError, env, load
from shared.topology import CONSUMERS, STREAMS, TWILIO
from shared.verdict import Pause
from tajo import findings
from tajo.broker import DeniedError, connected
from tajo.findings import Failed, Fetched, Finding
from tajo.installation import Installation, calling_brevo, calling_twilio
from tajo.up import SERVICES

LOOK_BACK = 200  # raw events looked at for one that came by webhook
WAIT_S = 3.0  # for an answer on this machine
MONITORING = 8222  # NATS' usual port for it; compose opens it, within its own network


class Broker(Struct, frozen=True):
    """Where the broker is; read from the environment by shared.settings.load."""

    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    monitoring_url: Annotated[
        str,
        env(
            "TAJO_NATS_MONITORING_URL", "the broker's monitoring, which tells whether it syncs before it acks"
        ),
    ] = ""


async def look_at(installation: Installation) -> AsyncIterator[Finding]:
    """One finding after another, each as soon as it is known.  Raises SettingsError."""
    if not (installation.account_sid and installation.credentials):
        raise SettingsError(
            "TWILIO_ACCOUNT_SID or TWILIO_AUTH_TOKEN is not set: run tajo connectors install twilio-flex"
        )
    async for finding in _twilio(installation):
        yield finding
    async for finding in _brevo(installation):
        yield finding
    broker = load(Broker, installation.environ)
    async for finding in _broker(broker, login_as("tajo", broker.nats_url, installation.environ)):
        yield finding
    for name in SERVICES:
        yield await _service(name, installation.environ)


# -- Twilio -------------------------------------------------------------------------------------------------


async def _twilio(installation: Installation) -> AsyncIterator[Finding]:
    """Flex is asked with each of the credentials, and the rest with the first that Twilio knows, as the poller does."""
    if mixed := findings.of_regions(installation.twilio.urls):
        yield mixed
    answers = []
    for one in installation.credentials:
        async with calling_twilio(installation, one) as twilio:
            answers.append(await _fetched(twilio, endpoints.CONFIGURATION))
    best = next((n for n, answer in enumerate(answers) if not findings.refused(answer)), 0)
    async with calling_twilio(installation, installation.credentials[best]) as twilio:
        async for finding in _flex(installation, twilio, answers[best]):
            yield finding
    keys = len(answers) - len(installation.tokens)
    known = any(not findings.refused(answer) for answer in answers[keys:])
    for at in range(keys, len(answers)):
        if at != best:
            yield findings.of_token(at - keys + 1, answers[at], another_known=known)


async def _flex(installation: Installation, twilio: Twilio, flex: Fetched) -> AsyncIterator[Finding]:
    """What `flex` says, and what hangs on it."""
    told = installation.config.flex.poller
    first = findings.of_flex(
        flex, installation.account_sid, findings.region(installation.twilio.urls["flex"])
    )
    yield first
    by_flex = flex if isinstance(flex, Mapping) else {}
    uses = by_flex.get("taskrouter_workspace_sid") or ""
    workspace_sid = told.workspace_sid or uses
    chat_service_sid = told.chat_service_sid or by_flex.get("chat_service_instance_sid") or ""
    if first.status == "failed" and not workspace_sid:
        for name in (findings.CONVERSATIONS, findings.WORKSPACE, findings.AGENTS, findings.QUEUES):
            yield findings.skipped(name, "Flex does not say where it is")
        return
    page = await _page(twilio, endpoints.CONVERSATIONS, ChatServiceSid=chat_service_sid)
    yield findings.of_conversations(chat_service_sid, page)
    found = await _fetched(twilio, endpoints.WORKSPACE, WorkspaceSid=workspace_sid)
    yield findings.of_workspace(told.workspace_sid, uses, found)
    for name, said, endpoint in (
        (findings.AGENTS, "readable", endpoints.WORKERS),
        (findings.QUEUES, "loaded", endpoints.TASK_QUEUES),
    ):
        page = await _page(twilio, endpoint, WorkspaceSid=workspace_sid)
        yield findings.of_list(name, said, page)


async def _fetched(twilio: Twilio, endpoint: Endpoint, **named: str) -> Fetched:
    if not all(named.values()):
        return None
    try:
        return await twilio.fetch(endpoint, backfill=False, **named)
    except TwilioError as error:
        return error.verdict


async def _page(twilio: Twilio, endpoint: Endpoint, **named: str) -> list[msgspec.Raw] | Failed | None:
    """The first page, of one thing; None where there is no such list."""
    if not all(named.values()):
        return None
    try:
        async for page in twilio.pages(
            msgspec.structs.replace(endpoint, page_size=1), backfill=False, **named
        ):
            return page.items
    except TwilioError as error:
        return error.verdict
    return None


# -- Brevo --------------------------------------------------------------------------------------------------


async def _brevo(installation: Installation) -> AsyncIterator[Finding]:
    if "BREVO_API_KEY" not in installation.values:
        remedy = "tajo connectors install twilio-flex --brevo-api-key -"
        yield findings.failed(findings.BREVO, "BREVO_API_KEY is not set", remedy)
        yield findings.skipped(findings.ATTRIBUTES, "there is no key")
        return
    async with calling_brevo(installation) as brevo:
        await brevo.turn("other")
        answer = await brevo.call("GET", "/account")
        if stop := why_not(answer):
            yield findings.failed(findings.BREVO, stop.why, stop.remedy)
            yield findings.skipped(findings.ATTRIBUTES, "Brevo does not answer")
            return
        assert isinstance(answer, Reply)  # noqa: S101 - anything else has stopped us
        yield findings.of_plan(_object(answer.body))
        looked = await look(brevo, installation.config)
        if isinstance(looked, Pause):
            yield findings.failed(findings.ATTRIBUTES, looked.why, looked.remedy)
        else:
            yield findings.of_attributes(looked.create, looked.problems, REMEDY)


# -- ours ---------------------------------------------------------------------------------------------------


async def _broker(broker: Broker, login: Login) -> AsyncIterator[Finding]:
    stack = AsyncExitStack()
    try:
        connection = await stack.enter_async_context(connected(broker.nats_url, login))
    except (nats.errors.Error, OSError) as error:
        why, remedy = (
            f"no broker answers ({type(error).__name__})",
            "is it running, and is TAJO_NATS_URL right?",
        )
        if isinstance(error, DeniedError):
            why, remedy = str(error), error.remedy
        yield findings.failed(findings.NATS, why, remedy)
        for name in (findings.STREAMS, findings.WEBHOOKS):
            yield findings.skipped(name, "there is no broker")
        return
    try:
        yield findings.passed(findings.NATS, "reachable")
        jetstream = connection.jetstream(timeout=WAIT_S)
        yield findings.of_streams(await _differences(jetstream))
        always = await _syncs_always(connection, broker.monitoring_url)
        if always is not None:
            yield findings.of_disk(always=always)
        yield await _webhooks(jetstream)
    except (nats.errors.Error, nats.js.errors.Error) as error:
        yield findings.failed(
            findings.STREAMS, f"JetStream does not answer ({type(error).__name__})", "run tajo bootstrap"
        )
    finally:
        await stack.aclose()


async def _differences(jetstream: JetStreamContext) -> list[str]:
    """Where the broker is not as shared/topology.py says."""
    found: list[str] = []
    for stream in STREAMS:
        try:
            has, wants = (await jetstream.stream_info(stream.name)).config, stream_config(stream)
        except nats.js.errors.NotFoundError:
            found.append(f"no stream {stream.name}")
            continue
        names = ("subjects", "max_age", "max_bytes", "discard", "duplicate_window")
        found += [f"{stream.name}'s {name}" for name in names if getattr(has, name) != getattr(wants, name)]
    for consumer in CONSUMERS:
        try:
            info = await jetstream.consumer_info(consumer.stream, consumer.durable)
        except nats.js.errors.NotFoundError:
            found.append(f"no consumer {consumer.durable}")
            continue
        wanted = consumer_config(consumer)
        found += [
            f"{consumer.durable}'s {name}"
            for name in ("ack_wait", "max_ack_pending", "max_deliver")
            if getattr(info.config, name) != getattr(wanted, name)
        ]
    return found


class _JetStream(Struct):
    config: dict[str, Any] = {}


class _Varz(Struct):
    """https://docs.nats.io/running-a-nats-service/nats_admin/monitoring"""

    server_id: str = ""
    jetstream: _JetStream = msgspec.field(default_factory=_JetStream)


async def _syncs_always(connection: Client, monitoring_url: str) -> bool | None:
    """As the broker's monitoring says, if that is open and this broker's own; else None."""
    host = connection.connected_url.hostname if connection.connected_url else None
    url = monitoring_url.rstrip("/") or f"http://{host}:{MONITORING}"
    try:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
            answer = await client.get(f"{url}/varz")
        varz = msgspec.json.decode(answer.content, type=_Varz)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError):
        return None
    if varz.server_id != connection._server_info.get("server_id"):  # noqa: SLF001 - nats-py has no public name for it
        return None
    return bool(varz.jetstream.config.get("sync_always"))


async def _webhooks(jetstream: JetStreamContext) -> Finding:
    """When the last raw event that came by webhook was stored."""
    state = (await jetstream.stream_info(TWILIO.name)).state
    sequences = range(state.last_seq, max(state.first_seq - 1, state.last_seq - LOOK_BACK, 0), -1)
    for sequence in sequences:
        try:
            message = await jetstream.get_msg(TWILIO.name, sequence)
        except nats.js.errors.NotFoundError:
            continue  # erased
        if (message.headers or {}).get("ce-source", "").startswith("/webhooks/"):
            stored_s = message.time.timestamp() if message.time else time.time()
            return findings.of_webhooks(time.time() - stored_s, len(sequences))
    return findings.of_webhooks(None, len(sequences) if state.messages else 0)


async def _service(name: str, environ: Mapping[str, str]) -> Finding:
    """Where the service says its health is; one that listens everywhere is asked on this machine."""
    prefix = f"TAJO_{name.upper().replace('-', '_')}"
    host = environ.get(f"{prefix}_HOST") or "127.0.0.1"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    where = f"{host}:{environ.get(f'{prefix}_PORT') or SERVICES[name]}"
    try:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
            answer = await client.get(f"http://{where}/health/ready")
    except (httpx.HTTPError, httpx.InvalidURL):
        return findings.of_service(name, 0, where)
    return findings.of_service(name, answer.status_code, answer.text.strip()[:500])


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
