"""The sink's settings."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from brevo_sink.answer import Conflicts
from brevo_sink.brevo import TIMEOUT_S
from brevo_sink.budget import Plan
from shared.settings import PORT, PRINTABLE, AllowHttp, ConfigPath, DataDir, NatsUrl, env


class Settings(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    api_key: Annotated[str, PRINTABLE, env("BREVO_API_KEY", "Brevo's API key, xkeysib-…")]
    brevo_url: Annotated[str, env("TAJO_BREVO_URL", "Brevo's API")] = "https://api.brevo.com/v3"
    allow_http: AllowHttp = False
    rate_fraction: Annotated[
        float,
        Meta(gt=0, le=1),
        env("TAJO_BREVO_RATE_FRACTION", "how much of the account's rate limits is ours; others share them"),
    ] = 0.7
    plan: Annotated[
        Plan,
        env("TAJO_BREVO_PLAN", "general, advanced or extended: whose limits hold until Brevo's answers tell"),
    ] = "general"
    timeout_s: Annotated[
        float,
        Meta(gt=0, le=25),
        env("TAJO_BREVO_TIMEOUT_S", "seconds until a call without an answer is given up, at most 25"),
    ] = TIMEOUT_S
    look_s: Annotated[
        float,
        Meta(gt=0),
        env(
            "TAJO_BREVO_LOOK_S", "seconds between looks for an event of which nobody knows whether it arrived"
        ),
    ] = 20.0
    conflicts: Annotated[
        Conflicts,
        env("TAJO_BREVO_CONFLICTS", "drop_identifier or park: an identifier that is another contact's"),
    ] = "drop_identifier"
    import_from: Annotated[
        int,
        Meta(ge=0),
        env("TAJO_BREVO_IMPORT_FROM", "so many contacts of the past that wait go by import; 0 for never"),
    ] = 500
    import_new: Annotated[
        bool,
        env(
            "TAJO_BREVO_IMPORT_NEW",
            "1 where nobody else's contact has an email or phone of ours: new contacts go by import too",
        ),
    ] = False
    nats_url: NatsUrl = "nats://127.0.0.1:4222"
    config: ConfigPath = Path("config/tajo.yaml")
    data_dir: DataDir = Path(".tajo/data")
    host: Annotated[str, env("TAJO_BREVO_SINK_HOST", "address of the sink's health and metrics")] = (
        "127.0.0.1"
    )
    port: Annotated[int, PORT, env("TAJO_BREVO_SINK_PORT", "port of the sink's health and metrics")] = 8082
