"""In Jaeger's place under `make e2e`: takes spans over OTLP on 4318, and says on 16686 which there were.

`GET /` answers {trace id: [service names]}, `GET /bytes` all that was sent.  Of protobuf it reads only what it needs:
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

import json
import signal
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OTLP, PAGE = 4318, 16686
LENGTH_DELIMITED, VARINT, FIXED = 2, 0, {1: 8, 5: 4}

traces: dict[str, set[str]] = defaultdict(set)
sent: list[bytes] = []
one_at_a_time = threading.Lock()


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data: bytes):
    """Each length-delimited field of a message: its number and bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        match key & 7:
            case 2:
                length, at = varint(data, at)
                yield key >> 3, data[at : at + length]
                at += length
            case 0:
                _, at = varint(data, at)
            case fixed:
                at += FIXED[fixed]


def within(data: bytes, *path: int):
    """The bytes of all fields at a path of numbers."""
    for number, value in fields(data):
        if number == path[0]:
            yield from within(value, *path[1:]) if path[1:] else [value]


def keep(request: bytes) -> None:
    for resource_spans in within(request, 1):
        named = {next(within(one, 1)): one for one in within(resource_spans, 1, 1)}
        service = next(within(named[b"service.name"], 2, 1)).decode()
        for trace_id in within(resource_spans, 2, 2, 1):
            traces[trace_id.hex()].add(service)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with one_at_a_time:
            sent.append(body)
            keep(body)
        self._answer(b"")

    def do_GET(self) -> None:
        with one_at_a_time:
            told = {trace: sorted(services) for trace, services in traces.items()}
            self._answer(b"".join(sent) if self.path == "/bytes" else json.dumps(told).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a container's first process has no default for it
    threading.Thread(target=ThreadingHTTPServer(("", PAGE), Receiver).serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", OTLP), Receiver).serve_forever()
