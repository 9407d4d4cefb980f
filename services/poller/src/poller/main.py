"""poller: connects, and says how it is.  It polls nothing yet; docs/architecture.md says what it will."""

import os
import sys

from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from poller.settings import Settings
from shared import bus, log, service
from shared.lease import Lease
from shared.settings import SettingsError, load


def create_app(settings: Settings) -> AsgiFastStream:
    """Build the service; nothing runs yet."""
    broker = bus.connect(settings.nats_url, service="poller")

    async def ready() -> str:
        return "" if bus.client(broker) else "no connection to NATS"

    lease = Lease(broker, "poller", settings.data_dir / "poller")
    return service.build(broker, ready=ready, registry=CollectorRegistry(), lease=lease)


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings cannot be used."""
    try:
        settings = load(Settings, os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    log.set_up("poller")
    service.serve(create_app(settings), host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
