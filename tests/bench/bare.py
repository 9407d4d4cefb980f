"""What ingest is held against, a process of its own: `python -m tests.bench.bare empty|unkept PORT`.

`empty` answers 204 to everything from the HTTP server ingest has; `unkept` is ingest's own handler, which verifies, reads and
redacts, with a log that has everything at once.
"""

import sys
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from ingest.commit import Commit
from ingest.judge import Judge
from ingest.metrics import Metrics
from ingest.quarantine import Quarantine
from ingest.webhook import Webhooks
from shared import service
from shared.message import Message
from tests.bench import machine


async def empty(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """204."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/health/ready":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def _kept(_messages: Sequence[Message]) -> None:
    pass


def unkept() -> Any:
    """Ingest's handler of TaskRouter's callbacks, and no broker."""
    metrics = Metrics(CollectorRegistry())
    judge = Judge(machine.PUBLIC_URL, (machine.TOKEN,), "", keep_bodies=False)
    handler = Webhooks(judge, Commit(_kept), Quarantine(_kept, metrics), metrics, api_key="").route(
        "/webhooks/taskrouter"
    )

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        one = handler if scope.get("path") == "/webhooks/taskrouter" else empty
        await one(scope, receive, send)

    return application


if __name__ == "__main__":
    listening = service.listen("PORT", "127.0.0.1", int(sys.argv[2]))
    service.serve({"empty": lambda: empty, "unkept": unkept}[sys.argv[1]](), listening)
