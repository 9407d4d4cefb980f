"""The poller's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Struct
from msgspec.structs import replace

from poller.endpoints import Product
from poller.twilio import URLS
from shared.config import Config
from shared.settings import PORT, PRINTABLE, AllowHttp, AuthTokens, ConfigPath, DataDir, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    account_sid: Annotated[
        str, env("TWILIO_ACCOUNT_SID", "the Twilio account, AC…; else the connector file's")
    ] = ""
    flex_flow_sid: Annotated[
        str, env("TAJO_FLEX_FLOW_SID", "the legacy Flex flow, FO…; else the connector file's")
    ] = ""
    auth_tokens: AuthTokens = ""
    api_key_sid: Annotated[
        str, PRINTABLE, env("TWILIO_API_KEY_SID", "an API key, SK…, for REST calls instead of the auth token")
    ] = ""
    api_key_secret: Annotated[str, PRINTABLE, env("TWILIO_API_KEY_SECRET", "the secret of that key")] = ""
    flex_url: Annotated[str, env("TAJO_TWILIO_FLEX_URL", "Twilio's Flex API")] = URLS["flex"]
    taskrouter_url: Annotated[str, env("TAJO_TWILIO_TASKROUTER_URL", "Twilio's TaskRouter API")] = URLS[
        "taskrouter"
    ]
    conversations_url: Annotated[str, env("TAJO_TWILIO_CONVERSATIONS_URL", "Twilio's Conversations API")] = (
        URLS["conversations"]
    )
    events_url: Annotated[str, env("TAJO_TWILIO_EVENTS_URL", "Twilio's Event Streams API")] = URLS["events"]
    allow_http: AllowHttp = False
    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    config: ConfigPath = Path("config/tajo.yaml")
    data_dir: DataDir = Path(".tajo/data")
    host: Annotated[str, env("TAJO_POLLER_HOST", "address of the poller's health and metrics")] = "127.0.0.1"
    port: Annotated[int, PORT, env("TAJO_POLLER_PORT", "port of the poller's health and metrics")] = 8083

    def over(self, config: Config) -> Config:
        """The connector file, with the account and the flow that the environment names."""
        flex = config.flex
        named = replace(
            flex,
            account_sid=self.account_sid or flex.account_sid,
            flex_flow_sid=self.flex_flow_sid or flex.flex_flow_sid,
        )
        return replace(config, connectors=replace(config.connectors, twilio_flex=named))

    @property
    def urls(self) -> dict[Product, str]:
        """Where each product is."""
        return {
            "flex": self.flex_url,
            "taskrouter": self.taskrouter_url,
            "conversations": self.conversations_url,
            "events": self.events_url,
        }
