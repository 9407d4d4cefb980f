"""The poller's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from shared.settings import DataDir, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    data_dir: DataDir = Path(".tajo/data")
    host: Annotated[str, env("TAJO_POLLER_HOST", "address of the poller's health and metrics")] = "127.0.0.1"
    port: Annotated[int, env("TAJO_POLLER_PORT", "port of the poller's health and metrics")] = 8083
