"""What every process says of itself to Prometheus, each declared once."""

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from shared.heartbeat import Role
from shared.lease import Lease

State = Callable[[], Awaitable[tuple[Role, str]]]
"""What a process is, and why it cannot do its work just now."""


class Vitals:
    """Whether it works; memory, CPU time and open files come from the operating system."""

    def __init__(self, registry: CollectorRegistry, lease: Lease | None) -> None:
        ProcessCollector(registry=registry)  # process_resident_memory_bytes and its like; Linux only
        self.ready = Gauge(
            "tajo_ready", "1 where this process does its work, or stands by as it should", registry=registry
        )
        if lease:
            held = Gauge(
                "tajo_lease_held",
                "1 where this process works, 0 where it stands by; the sum over a service's processes is 1",
                registry=registry,
            )
            held.set_function(lease.held)

    def watching(self, state: State) -> State:
        """The same, and what it says is said here too; a heartbeat asks each second."""

        async def watched() -> tuple[Role, str]:
            role, why = await state()
            self.ready.set(not why)
            return role, why

        return watched
