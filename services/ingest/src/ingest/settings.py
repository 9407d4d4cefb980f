"""Ingest's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Struct

from shared.settings import ApiKey, ConfigPath, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    auth_tokens: Annotated[
        str, env("TWILIO_AUTH_TOKEN", "Twilio's auth token; several, by comma, while one is rotated")
    ]
    account_sid: Annotated[
        str, env("TWILIO_ACCOUNT_SID", "the Twilio account, AC…; else the connector file's")
    ] = ""
    public_url: Annotated[
        str,
        env(
            "TAJO_PUBLIC_URL",
            "what stands before /webhooks in the URLs Twilio calls: its signature covers it",
        ),
    ] = "http://127.0.0.1:8080"
    api_key: ApiKey = ""
    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    config: ConfigPath = Path("config/tajo.yaml")
    host: Annotated[str, env("TAJO_INGEST_HOST", "address on which webhooks are heard")] = "127.0.0.1"
    port: Annotated[int, env("TAJO_INGEST_PORT", "port on which webhooks are heard")] = 8080
