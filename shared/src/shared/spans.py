"""Recording spans: what services call, as they call the log.  Nothing is recorded until `set_up`, and then what is sampled.

Whether a trace is recorded is decided where it begins, and stands in its traceparent; what is not costs a look at one
character.  So a trace is whole or absent, with one exception: what failed is recorded even then, as a trace of its own
within its service, linked to what caused it.  Spans are made when they have ended, all of one piece of work together.
"""

import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from shared import span, trace
from shared.message import MSG_ID, Message
from shared.otel import Otel
from shared.span import LINKS_MAX, Attributes, Kind, Span

RESCUED_PER_S = 20  # failures of traces that are not sampled: a fault that lasts must not become a flood
CHILDREN_MAX = 200  # spans kept of one piece of work until it has ended


class Cause(Struct, frozen=True):
    """What a piece of work follows from: a message's traceparent, and what is said of it."""

    traceparent: str
    about: Attributes = {}


class _Recorder:
    """What `set_up` made."""

    def __init__(self) -> None:
        self.ratio = 0.0
        self.export: Callable[[Span], None] | None = None
        self.end: Callable[[], None] = lambda: None
        self._second, self._rescued = 0, 0

    def record(self, spans: Sequence[Span]) -> None:
        """The spans of one trace, the first of them the cause of the rest."""
        if self.export is None or not spans:
            return
        if not trace.sampled(spans[0].own):
            if not spans[0].error or not self._may_rescue():
                return
            first, *rest = spans
            spans = [span.rescued(first), *(replace(one, own=trace.chosen(one.own)) for one in rest)]
        for one in spans:
            self.export(one)

    def _may_rescue(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._rescued = second, 0
        self._rescued += 1
        return self._rescued <= RESCUED_PER_S


_recorder = _Recorder()
_current: ContextVar["Work | None"] = ContextVar("work", default=None)


def set_up(service: str, settings: Otel) -> None:
    """Record from here on, where the settings ask for it; else nothing of OpenTelemetry is even loaded."""
    if settings.on:
        otlp = importlib.import_module("shared.otlp")
        _recorder.export, _recorder.end = otlp.exporter(service)
        _recorder.ratio = settings.ratio


def end() -> None:
    """Send what waits, for two seconds at most."""
    _recorder.end()


def start() -> str:
    """A traceparent for what begins here."""
    return trace.start(_recorder.ratio)


def record(*spans: Span) -> None:
    """Spans of one trace that have ended, the first of them the cause of the rest.  Never raises, never waits."""
    _recorder.record(spans)


class Work:
    """A piece of work, and what is done for it.  Recorded when it ends: once for each cause whose trace is recorded."""

    def __init__(self, name: str, kind: Kind, causes: Sequence[Cause], attributes: Attributes) -> None:
        self._name, self._kind, self._attributes = name, kind, attributes
        self._causes = causes
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        told = (cause.traceparent for cause in self._causes if trace.sampled(cause.traceparent))
        first = next(told, self._causes[0].traceparent if self._causes else "")
        self.own = trace.follow(first) if first else start()  # where log lines and what is published belong
        self._began_ns = time.time_ns()
        self._children: list[Span] = []
        self._failed: dict[str, str] = {}  # why, by traceparent of the cause; by "" of all

    @property
    def has_more(self) -> bool:
        """Whether anything is to be recorded: it never ended yet, or something was done since."""
        return not self._ended or bool(self._children or self._failed)

    def add(self, child: Span) -> None:
        """Something that was done for it, and has ended."""
        if len(self._children) < CHILDREN_MAX:
            self._children.append(child)

    def fail(self, why: str, traceparents: Iterable[str] = ("",)) -> None:
        """It did not work, for these causes or for all."""
        for one in traceparents:
            self._failed.setdefault(one, why)

    def end(self, attributes: Attributes | None = None) -> None:
        """Record it; what is done from here on is another of its kind."""
        if _recorder.export is not None:
            self._record({**self._attributes, **(attributes or {})}, time.time_ns())
        self._ended = True
        self._begin()

    def _record(self, attributes: Attributes, now_ns: int) -> None:
        """A call that serves several is in the trace of each: the first says for whom, the others point to the first."""
        whom = tuple(cause.traceparent for cause in self._causes[:LINKS_MAX]) if len(self._causes) > 1 else ()
        told = [
            one for one in self._causes if trace.sampled(one.traceparent) or one.traceparent in self._failed
        ]
        if not told and (self._failed or trace.sampled(self.own)):
            told = [*self._causes[:1]] or [Cause("")]
        first: list[Span] = []
        seen = set[str]()
        for cause in told:
            own = self.own if self.own[:36] == cause.traceparent[:36] and not seen else ""
            own = own or (trace.follow(cause.traceparent) if cause.traceparent else self.own)
            children = []
            if own[:36] not in seen:
                links: list[tuple[str, ...]] = [(one.own,) for one in first] or [whom] * len(self._children)
                children = [
                    replace(child, own=child.own or trace.follow(own), parent=own, links=link)
                    for child, link in zip(self._children, links, strict=True)
                ]
                first = first or children
            seen.add(own[:36])
            error = self._failed.get(cause.traceparent) or self._failed.get("", "")
            done = Span(
                name=self._name, kind=self._kind, own=own, parent=cause.traceparent,
                start_ns=self._began_ns, end_ns=now_ns, attributes={**attributes, **cause.about}, error=error,
            )  # fmt: skip
            _recorder.record([done, *children])


@contextmanager
def work(
    name: str, kind: Kind, causes: Sequence[Cause] = (), attributes: Attributes | None = None
) -> Iterator[Work]:
    """Work on what was heard, or without causes of its own accord; calls made meanwhile are told as its own."""
    one = Work(name, kind, causes, attributes or {})
    token = _current.set(one)
    try:
        yield one
    except Exception as error:
        one.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        if one.has_more:
            one.end()


def recording() -> bool:
    """Whether anything is recorded at all; where a span is made often, it need not be made for nothing."""
    return _recorder.export is not None


def call(one: Span) -> None:
    """A call that has ended: of the work that is done just now, else of nobody's."""
    current = _current.get()
    if current is not None:
        current.add(one)
    elif _recorder.export is not None:
        _recorder.record([replace(one, own=one.own or start())])


def fail(why: str, traceparents: Iterable[str] = ("",)) -> None:
    """What is done just now did not work, for these causes or for all."""
    if (current := _current.get()) is not None:
        current.fail(why, traceparents)


def current() -> str:
    """The traceparent of what is done just now; empty where nothing is."""
    one = _current.get()
    return one.own if one is not None else ""


class Batch:
    """Messages heard at once: what follows from each, and a span for each whose trace is recorded."""

    def __init__(self, name: str, *, stream: str, durable: str, count: int) -> None:
        self._name, self._stream, self._durable, self._count = name, stream, durable, count
        self._began_ns = time.time_ns()
        self._heard: list[tuple[str, Mapping[str, str], str, str]] = []  # its own, headers, task, error

    def follow(self, headers: Mapping[str, str], task_sid: str = "") -> str:
        """The traceparent of what is done with a message."""
        heard = headers.get(trace.TRACEPARENT, "")
        if not trace.sampled(heard) or _recorder.export is None:
            return heard
        own = trace.follow(heard)
        self._heard.append((own, headers, task_sid, ""))
        return own

    def fail(self, headers: Mapping[str, str], why: str) -> None:
        """Nothing can be done with this one."""
        if _recorder.export is not None:
            self._heard.append((trace.follow(headers.get(trace.TRACEPARENT)), headers, "", why))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = kind.__name__ if kind is not None and issubclass(kind, Exception) else ""
        now_ns = time.time_ns() if self._heard else 0
        for own, headers, task_sid, why in self._heard:
            said = span.messaging(
                self._stream, "process", "process",
                id_=headers.get(MSG_ID, ""), count=self._count, group=self._durable,
            )  # fmt: skip
            done = Span(
                name=self._name, kind="consumer", own=own, parent=headers.get(trace.TRACEPARENT, ""),
                start_ns=self._began_ns, end_ns=now_ns, attributes={**said, **span.task(task_sid)}, error=why or failed,
            )  # fmt: skip
            _recorder.record([done])


class Again(Batch):
    """The same for messages that were heard before: all that follows is one new trace, linked to theirs.

    Whatever makes something anew of the log hears it through this: a rebuild, a replay.  `own` is for what follows from
    none of them alone.
    """

    def __init__(self, name: str, *, stream: str = "", count: int = 0) -> None:
        super().__init__(name, stream=stream, durable="", count=count)
        self.own = start()
        self._links: list[str] = []

    def follow(self, headers: Mapping[str, str], task_sid: str = "") -> str:  # noqa: ARG002 - it is about many
        """The traceparent of what is done with a message."""
        heard = headers.get(trace.TRACEPARENT, "")
        if trace.sampled(heard) and len(self._links) < LINKS_MAX:
            self._links.append(heard)
        return self.own

    def fail(self, headers: Mapping[str, str], why: str) -> None:
        """It was said when it was heard first."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        failed = kind.__name__ if kind is not None and issubclass(kind, Exception) else ""
        said = span.messaging(self._stream, "process", "process", count=self._count) if self._stream else {}
        done = Span(
            name=self._name, kind="consumer" if self._stream else "internal", own=self.own,
            start_ns=self._began_ns, end_ns=time.time_ns(), attributes=said, links=tuple(self._links), error=failed,
        )  # fmt: skip
        _recorder.record([done])


def published(
    stream: str, messages: Sequence[Message], began_ns: int, about: Callable[[Message], Attributes]
) -> None:
    """Messages that are on disk now: a span for each whose trace is recorded, with what is said `about` it."""
    if _recorder.export is None:
        return
    for message in messages:
        own = message.headers.get(trace.TRACEPARENT, "")
        if trace.sampled(own) and message.subject.startswith(f"{stream.lower()}."):
            done = span.published(
                stream, own=own, parent=trace.cause_of(message.headers), id_=message.headers[MSG_ID], count=1,
                start_ns=began_ns, end_ns=time.time_ns(), about=about(message),
            )  # fmt: skip
            _recorder.record([done])
