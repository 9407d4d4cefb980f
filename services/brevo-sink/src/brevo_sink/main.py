"""brevo-sink: Brevo commands in, Brevo told once.  What is judged stands in answer.py, budget.py and desk.py."""

import asyncio
import os
import sys
from typing import Any

from faststream.asgi import AsgiFastStream
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import Brevo
from brevo_sink.budget import Budget
from brevo_sink.delivery import Delivery
from brevo_sink.forgetting import Forgetting
from brevo_sink.gate import Gate
from brevo_sink.ledger import Ledger
from brevo_sink.mappings import Mappings
from brevo_sink.metrics import Metrics
from brevo_sink.order import Live
from brevo_sink.recall import Recall
from brevo_sink.settings import Settings
from shared import bus, log, service, spans
from shared.config import Config
from shared.connector_file import ConfigError, load
from shared.counter import total
from shared.credentials import environment
from shared.heartbeat import BrevoSinkCounts
from shared.lease import Lease
from shared.login import Login, login_as
from shared.otel import Otel
from shared.pending import Pending
from shared.settings import SettingsError, make_folder, secure_url
from shared.settings import load as load_settings
from shared.topology import BREVO, BREVO_SINK, BREVO_SINK_PAST, RECEIPTS


def create_app(settings: Settings, config: Config, login: Login) -> AsgiFastStream:
    """Build the service; nothing runs yet but the ledger is open."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    broker = bus.connect(settings.nats_url, service="brevo-sink", login=login)
    folder = settings.data_dir / "brevo-sink"
    lease = Lease(broker, "brevo-sink", folder)
    ledger = Ledger(folder / "ledger.sqlite")
    gate = Gate(metrics)
    pending = Pending(broker, registry, streams=(BREVO, RECEIPTS), consumers=(BREVO_SINK, BREVO_SINK_PAST))
    brevo = Brevo(
        url=settings.brevo_url.rstrip("/"),
        api_key=settings.api_key,
        budget=Budget(settings.rate_fraction, settings.plan),
        metrics=metrics,
        timeout_s=settings.timeout_s,
        log_calls=config.flex.log_api_calls,
        may=lease.held,
    )
    publisher = bus.Publisher(broker, may=lease.held)
    delivery = Delivery(
        brevo=brevo,
        ledger=ledger,
        publisher=publisher,
        gate=gate,
        metrics=metrics,
        look_s=settings.look_s,
        conflicts=settings.conflicts,
        import_from=settings.import_from,
        import_new=settings.import_new,
        unheard=lambda: bus.waits(broker, BREVO_SINK_PAST),
        may=lease.held,
    )
    forgetting = Forgetting(
        broker, brevo=brevo, ledger=ledger, hearing=delivery.hearing, publisher=publisher, gate=gate
    )
    recall = Recall(broker, ledger)
    live = Live(broker)
    mappings = Mappings(brevo, gate, config, read_config=lambda: load(settings.config))
    subscribers: list[Any] = []

    async def remember() -> None:
        # The lease is ours, so nobody adds to what was being sent; all that was is in RECEIPTS by now.
        await recall.catch_up()
        await forgetting.begin()
        metrics.ambiguous.labels("event.track").inc(ledger.doubt())
        delivery.expect(await live.coming_again())

    async def hear() -> None:
        # Brevo is looked at, at the pace it allows, while the ledger is read.  Whatever fails first says why we leave.
        await asyncio.gather(mappings.works(), remember())
        await gate.passed()
        on_batch = mappings.before(delivery.hearing.on_batch)
        live_first = ((BREVO_SINK, live.ahead(on_batch)), (BREVO_SINK_PAST, live.behind(on_batch)))
        for consumer, heard in live_first:
            # Each is stopped, should the next not come about.
            subscribers.append(await bus.listen(broker, consumer, heard))
        await forgetting.forever()

    async def leave() -> None:
        gate.release()
        for subscriber in subscribers:
            await subscriber.stop()
        await delivery.finish()

    async def mend() -> None:
        await gate.mend(mappings.works)

    async def close() -> None:
        await brevo.close()
        ledger.close()

    async def ready() -> str:
        if recall.why or gate.why:
            return recall.why or gate.why
        if not mappings.looked_at:
            return "looking at Brevo's attributes and lists"
        return "" if bus.client(broker) else "no connection to NATS"

    def counts() -> BrevoSinkCounts:
        in_hand, in_doubt = delivery.in_hand
        return BrevoSinkCounts(
            delivered=total(metrics.commands, "outcome", ("delivered",)),
            rejected=total(metrics.commands, "outcome", ("rejected",)),
            in_hand=in_hand,
            in_doubt=in_doubt,
            paused=gate.why,
            contacts_per_second=brevo.budget["contacts"].per_second,
        )

    app = service.build(
        broker,
        name="brevo-sink",
        counts=counts,
        ready=ready,
        registry=registry,
        note=lambda: "; ".join(filter(None, (mappings.note, delivery.note()))),
        at_end=[leave],
        work=[
            hear,
            mend,
            delivery.pump_upserts,
            delivery.pump_imports,
            delivery.pump_events,
            delivery.pump_alone,
            delivery.watch_doubts,
            delivery.watch_stranded,
            delivery.hearing.keep_alive,
            pending.watch,
        ],
        lease=lease,
        stand_by=[recall.follow],
    )
    app.after_shutdown(close)
    return app


def main() -> None:
    """Run until SIGTERM.  Exit code 78: the settings or the connector file cannot be used, or the port is in use."""
    try:
        settings = load_settings(Settings, environment(os.environ))
        config = load(settings.config)
        otel = load_settings(Otel, os.environ)
        login = login_as("brevo-sink", settings.nats_url, os.environ)
        secure_url("TAJO_BREVO_URL", settings.brevo_url, allow_http=settings.allow_http)
        listening = service.listen("TAJO_BREVO_SINK_PORT", settings.host, settings.port)
        make_folder(settings.data_dir, "brevo-sink")
    except (SettingsError, ConfigError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the person who starts it
        sys.exit(os.EX_CONFIG)
    log.set_up("brevo-sink", level="verbose" if config.flex.debug else config.flex.log_level)
    spans.set_up("brevo-sink", otel)
    service.serve(create_app(settings, config, login), listening)
