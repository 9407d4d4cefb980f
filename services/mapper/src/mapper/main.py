"""mapper: raw events in, Brevo commands out.  What is judged stands in fold.py and step.py."""

import asyncio
import os
import sys
from collections.abc import Sequence

import structlog
from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from mapper.beside import read_beside
from mapper.book import Book
from mapper.forgetting import Forgetting
from mapper.mapping import Mapping
from mapper.metrics import Metrics
from mapper.rebuild import rebuild
from mapper.replays import Replays
from mapper.settings import Settings
from mapper.shelf import Shelf
from mapper.step import Policy
from mapper.tally import Tally
from shared import bus, erasure, log, service, spans
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.heartbeat import MapperCounts
from shared.lease import Lease
from shared.login import Login, login_as
from shared.otel import Otel
from shared.pending import Pending
from shared.settings import SettingsError, make_folder
from shared.settings import load as load_settings
from shared.topology import DEAD, MAPPER, TWILIO

logger = structlog.get_logger()


def create_app(settings: Settings, config: Config, login: Login) -> AsgiFastStream:
    """Build the service; nothing runs yet but the book is open."""
    registry = CollectorRegistry()
    broker = bus.connect(settings.nats_url, service="mapper", login=login)
    folder = settings.data_dir / "mapper"
    lease = Lease(broker, "mapper", folder)
    shelf = Shelf(folder)
    metrics = Metrics(registry)

    async def erase(sequences: Sequence[int]) -> None:
        await erasure.erase(bus.connected(broker), TWILIO.name, sequences)

    mapping = Mapping(
        Book(shelf.open()),
        bus.Publisher(broker, may=lease.held),
        Policy.of(config),
        metrics,
        erase=erase,
    )
    tally = Tally(shelf.link)
    metrics.measure(tally, shelf.link)
    pending = Pending(broker, registry, streams=(TWILIO, DEAD), consumers=(MAPPER,))
    replays = Replays(
        broker, mapping, shelf, read_config=lambda: load(settings.config), nats_url=settings.nats_url
    )
    forgetting = Forgetting(broker, mapping, shelf)

    async def hear() -> None:
        await forgetting.begin()
        await rebuild(
            broker, mapping, lambda after, to: read_beside(settings.nats_url, config, after=after, to=to)
        )
        await mapping.catch_up()
        await bus.listen(broker, MAPPER, mapping.on_batch)
        async with asyncio.TaskGroup() as group:
            for work in (replays.work, forgetting.forever):
                group.create_task(work())

    async def close() -> None:
        mapping.close()

    async def ready() -> str:
        return mapping.stuck or ("" if bus.client(broker) else "no connection to NATS")

    def counts() -> MapperCounts:
        size = tally.size._asdict() if tally.size else {}
        under_way = replays.under_way
        return MapperCounts(**size, sequence=mapping.sequence, mapping=mapping.config.hash, replays=under_way)

    if not config.flex.enabled:
        logger.warning("connector_disabled", meaning="events are logged, and mapped once it is enabled")
    work = [hear, mapping.on_time, mapping.bring_on] if config.flex.enabled else []
    app = service.build(
        broker,
        name="mapper",
        counts=counts,
        ready=ready,
        note=lambda: "" if config.flex.enabled else "maps nothing: enabled is false in the connector file",
        registry=registry,
        work=[*work, tally.count, pending.watch],
        lease=lease,
    )
    app.after_shutdown(close)
    return app


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used, or the port is in use."""
    try:
        settings = load_settings(Settings, os.environ)
        config = load(settings.config)
        otel = load_settings(Otel, os.environ)
        login = login_as("mapper", settings.nats_url, os.environ)
        listening = service.listen("TAJO_MAPPER_PORT", settings.host, settings.port)
        make_folder(settings.data_dir, "mapper")
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    log.set_up("mapper", level="verbose" if config.flex.debug else config.flex.log_level)
    spans.set_up("mapper", otel)
    service.serve(create_app(settings, config, login), listening)
