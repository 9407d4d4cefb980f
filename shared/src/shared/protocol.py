"""HTTP as uvicorn speaks it over httptools, with what both lack: limits on a request's head, in bytes and seconds."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024  # Twilio sends 1 KB; a webhook set to GET has its parameters here
HEAD_S = 5.0  # from the connection or the head's first byte to its last; Twilio gives up after 5 s

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n"
)


class BoundedProtocol(HttpToolsProtocol):
    """One connection.  A head too large is a 503, one too slow is hung up on."""

    _head_bytes = 0  # of a head that is not complete, beyond what came together with its first byte
    _in_head = True
    _refused = False
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection: the first head is due."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._end_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        """The head is there; the body has its own limits, in whoever reads it."""
        self._end_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes, counted while they are of a head."""
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX:
            self._refused = True
            if self._is_busy():
                self.cycle.keep_alive = False  # what came before is answered, then uvicorn hangs up
            elif not self.transport.is_closing():
                self.transport.write(_REFUSAL)
                self.transport.close()

    def _begin_head(self) -> None:
        self._end_head()
        self._in_head = True
        self._head_bytes = 0
        self._too_slow = self.loop.call_later(HEAD_S, self._give_up)

    def _end_head(self) -> None:
        self._in_head = False
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _give_up(self) -> None:
        if self._is_busy():  # with an earlier request, and perhaps not reading
            self._too_slow = self.loop.call_later(HEAD_S, self._give_up)
        else:
            self.transport.close()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
