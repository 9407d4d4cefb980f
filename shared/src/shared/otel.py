"""Whether spans are recorded: OpenTelemetry's own variables, as every service reads them.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from shared.settings import env

Sampler = Literal[
    "always_on", "always_off", "traceidratio",
    "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
]  # fmt: skip
"""Ours is parent-based by whatever name: who begins a trace decides, and the others do as it says."""


class Otel(Struct, frozen=True):
    """Read from the environment by shared.settings.load.  The exporter reads the rest of OTEL_EXPORTER_OTLP_* and OTEL_BSP_*."""

    endpoint: Annotated[str, env("OTEL_EXPORTER_OTLP_ENDPOINT", "where spans go, http://host:4318")] = ""
    traces_endpoint: Annotated[
        str, env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "the same, as a whole URL: http://host:4318/v1/traces")
    ] = ""
    protocol: Annotated[
        Literal["http/protobuf"], env("OTEL_EXPORTER_OTLP_PROTOCOL", "only http/protobuf is spoken")
    ] = "http/protobuf"
    disabled: Annotated[bool, env("OTEL_SDK_DISABLED", "true: no spans whatever else is set")] = False
    sampler: Annotated[
        Sampler, env("OTEL_TRACES_SAMPLER", "parentbased_always_on, or parentbased_traceidratio")
    ] = "parentbased_always_on"
    sampler_arg: Annotated[
        float, Meta(ge=0, le=1), env("OTEL_TRACES_SAMPLER_ARG", "how many traces are sampled: 0.01 of 1")
    ] = 1.0

    @property
    def on(self) -> bool:
        """Whether spans are recorded at all."""
        return bool(self.endpoint or self.traces_endpoint) and not self.disabled

    @property
    def ratio(self) -> float:
        """How many of the traces that begin here are recorded, between 0 and 1."""
        return {"on": 1.0, "off": 0.0}.get(self.sampler.rpartition("_")[2], self.sampler_arg)
