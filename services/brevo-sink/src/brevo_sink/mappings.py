"""Mappings Brevo was made ready for.  One we do not know means that somebody edited the connector file."""

import time
from collections.abc import Awaitable, Callable

import structlog
from nats.aio.msg import Msg

from brevo_sink import papers
from brevo_sink.brevo import Brevo, Reply
from brevo_sink.gate import Gate
from brevo_sink.preflight import preflight
from shared.config import Config
from shared.connector_file import ConfigError

READ_S = 5.0  # between two readings of the connector file for want of a mapping

log = structlog.get_logger()


class Mappings:
    """Reads the connector file again when a command's mapping is unknown, and has Brevo looked at again before it is told."""

    def __init__(
        self, brevo: Brevo, gate: Gate, config: Config, *, read_config: Callable[[], Config]
    ) -> None:
        """`read_config` reads the file as it is then, and raises ConfigError."""
        self._brevo = brevo
        self._gate = gate
        self._config = config
        self._read_config = read_config
        self._known = {config.hash}
        self._strange: set[str] = set()  # told of in the log
        self._next = float("-inf")
        self.looked_at = False  # Brevo has what the mapping needs
        self.note = ""  # what a person should know; an empty text when all is well

    async def works(self) -> bool:
        """Whether Brevo would take commands: the preflight while it has not passed, else the account."""
        if self.looked_at:
            await self._brevo.turn("other")
            answer = await self._brevo.call("GET", "/account")
            return isinstance(answer, Reply) and answer.status == 200
        stop = await preflight(self._brevo, self._config)
        self.looked_at = stop is None
        if stop:
            self._gate.shut(stop)
        return self.looked_at

    def before(
        self, on_batch: Callable[[list[Msg]], Awaitable[None]]
    ) -> Callable[[list[Msg]], Awaitable[None]]:
        """The same handler, once Brevo was looked at for what the batch was made by."""

        async def heard(messages: list[Msg]) -> None:
            await self._meet(papers.mappings(messages))
            await on_batch(messages)

        return heard

    async def _meet(self, hashes: set[str]) -> None:
        """Return once Brevo was looked at for these, or nothing can be done about it: they are told all the same."""
        unknown = hashes - self._known
        if not unknown or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + READ_S
        try:
            config = self._read_config()
        except ConfigError as error:
            where = str(error).splitlines()[0]
            self.note = f"the connector file cannot be read, so Brevo has what its mapping before needs: mend it ({where})"
            log.warning("connector_file_unreadable", problems=len(error.problems))
            return
        self.note = ""
        if config.hash not in self._known:
            self._config, self.looked_at = config, False
            self._known.add(config.hash)
            log.info("mapping_met", mapping=config.hash)
            await self.works()
        for strange in sorted(unknown - self._known - self._strange):
            log.warning("mapping_unknown", mapping=strange, file=config.hash)
            self._strange.add(strange)
