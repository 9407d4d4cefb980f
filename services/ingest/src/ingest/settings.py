"""Ingest's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ingest.judge import Judge
from shared.config import Config
from shared.settings import PORT, ApiKey, AuthTokens, ConfigPath, DataDir, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    auth_tokens: AuthTokens
    account_sid: Annotated[
        str, env("TWILIO_ACCOUNT_SID", "the Twilio account, AC…; else the connector file's")
    ] = ""
    public_url: Annotated[
        str,
        Meta(pattern=r"\Ahttps?://[^/?#\s][^?#\s]*\Z", title="no query: /webhooks comes behind it"),
        env(
            "TAJO_PUBLIC_URL",
            "what stands before /webhooks in the URLs Twilio calls, https://host: its signature covers it",
        ),
    ] = "http://127.0.0.1:8080"
    api_key: ApiKey = ""
    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    config: ConfigPath = Path("config/tajo.yaml")
    data_dir: DataDir = Path(".tajo/data")
    spool_bytes_max: Annotated[
        int,
        Meta(ge=0),
        env("TAJO_SPOOL_BYTES_MAX", "bytes of webhooks kept on disk while the broker is away; full is a 503"),
    ] = 1024**3  # some 390,000 events: two hours at 50 a second; then Event Streams tries again for four
    host: Annotated[str, env("TAJO_INGEST_HOST", "address on which webhooks are heard")] = "127.0.0.1"
    port: Annotated[int, PORT, env("TAJO_INGEST_PORT", "port on which webhooks are heard")] = 8080

    def judge(self, config: Config) -> Judge:
        """What the judgement needs to know."""
        return Judge(
            public_url=self.public_url.rstrip("/"),
            tokens=tuple(token.strip() for token in self.auth_tokens.split(",") if token.strip()),
            account_sid=self.account_sid or config.flex.account_sid,
            keep_bodies=config.flex.message_bodies,
        )
