"""mapper: raw events in, Brevo commands out.  What is judged stands in fold.py and step.py."""

import os
import sys

import structlog
from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from mapper.book import Book
from mapper.mapping import Mapping
from mapper.rebuild import rebuild
from mapper.settings import Settings
from mapper.step import Policy
from mapper.tally import Tally
from shared import bus, log, service
from shared.config import Config, ConfigError, load
from shared.heartbeat import MapperCounts
from shared.lease import Lease
from shared.settings import SettingsError
from shared.settings import load as load_settings
from shared.topology import MAPPER

logger = structlog.get_logger()


def create_app(settings: Settings, config: Config) -> AsgiFastStream:
    """Build the service; nothing runs yet but the book is open."""
    registry = CollectorRegistry()
    broker = bus.connect(settings.nats_url, service="mapper")
    folder = settings.data_dir / "mapper"
    folder.mkdir(parents=True, exist_ok=True)
    lease = Lease(broker, "mapper", folder)
    book = Book(folder / "book.sqlite")
    tally = Tally(folder / "book.sqlite")
    mapping = Mapping(book, bus.Publisher(broker, may=lease.held), Policy.of(config), registry)

    async def hear() -> None:
        await rebuild(broker, mapping)
        await mapping.catch_up()
        await bus.listen(broker, MAPPER, mapping.on_batch)

    async def close() -> None:
        book.close()

    async def ready() -> str:
        return mapping.stuck or ("" if bus.client(broker) else "no connection to NATS")

    def counts() -> MapperCounts:
        size = tally.size._asdict() if tally.size else {}
        return MapperCounts(**size, sequence=mapping.sequence)

    if not config.flex.enabled:
        logger.warning("connector_disabled", meaning="events are logged, and mapped once it is enabled")
    work = [hear, mapping.on_time] if config.flex.enabled else []
    app = service.build(
        broker,
        name="mapper",
        counts=counts,
        ready=ready,
        note=lambda: "" if config.flex.enabled else "maps nothing: enabled is false in the connector file",
        registry=registry,
        work=[*work, tally.count],
        lease=lease,
    )
    app.after_shutdown(close)
    return app


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used."""
    try:
        settings = load_settings(Settings, os.environ)
        config = load(settings.config)
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    log.set_up("mapper", level="verbose" if config.flex.debug else config.flex.log_level)
    service.serve(create_app(settings, config), host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
