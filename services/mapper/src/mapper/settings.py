"""The mapper's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from shared.settings import PORT, ConfigPath, DataDir, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    config: ConfigPath = Path("config/tajo.yaml")
    data_dir: DataDir = Path(".tajo/data")
    host: Annotated[str, env("TAJO_MAPPER_HOST", "address of the mapper's health and metrics")] = "127.0.0.1"
    port: Annotated[int, PORT, env("TAJO_MAPPER_PORT", "port of the mapper's health and metrics")] = 8081
