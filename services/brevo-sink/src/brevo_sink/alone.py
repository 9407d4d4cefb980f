"""What is done to a contact alone: renaming and deleting it.

One after the other, and while nothing is in flight for the contacts concerned.  What shares a contact is done in the
order it was said; what is to be tried again holds up nothing else.  What a killed sink had in hand comes again only after
a while, when what was said later may be heard already; so the contacts of what is to come again are not touched before it
has come.
"""

import bisect
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import quote

from brevo_sink import answer, papers
from brevo_sink.answer import Outcome
from brevo_sink.brevo import Brevo, Lost, NotSent, Reply
from brevo_sink.desk import Desk, Item
from brevo_sink.ends import RETRY_MAX_S, Ends
from brevo_sink.gate import Gate
from brevo_sink.ledger import END, Ledger
from brevo_sink.relink import relink
from shared import span, spans
from shared.command import Command, ContactDelete, ContactRelink
from shared.topology import BREVO_SINK
from shared.verdict import Done, Pause, Reject, Retry

SAY_S = 60.0  # that one is tried in vain before a person is told
EXPECTED_S = 3 * BREVO_SINK.ack_wait_s  # a killed sink may have said until just now that it has them


class Alone:
    """The way of a relink and of a deletion to Brevo."""

    def __init__(self, *, brevo: Brevo, ledger: Ledger, desk: Desk, ends: Ends, gate: Gate) -> None:
        self._brevo = brevo
        self._ledger = ledger
        self._desk = desk
        self._ends = ends
        self._gate = gate
        self._waiting: list[Item] = []  # by position
        self._put_off: dict[str, tuple[float, str, Item]] = {}  # by id, of these: until when, and why
        self._pending: dict[str, tuple[int, Command]] = {}  # by id: heard, and not done
        self._expected: dict[str, tuple[int, Command]] = {}  # by id: yet to come again
        self._expected_until = 0.0

    def expect(self, commands: Iterable[tuple[int, ContactRelink | ContactDelete]]) -> None:
        """These, each with its position in BREVO, come again; what does not within EXPECTED_S was settled."""
        for position, command in commands:
            self._expected[command.id] = (position, command)
            self._desk.block(*_concerned(command))
        self._expected_until = time.monotonic() + EXPECTED_S

    def hold(self, item: Item) -> None:
        """Nothing more of these contacts is taken until `settle` has ended."""
        self._ends.held[item.command.id] = item
        self._wait(item)
        self._pending[item.command.id] = (item.sequence, item.command)
        self._desk.block(*_concerned(item.command))
        self.heard(item.command.id)

    def heard(self, id_: str) -> None:
        """It has come again, if it was to."""
        if id_ in self._expected:
            self._desk.free(*_concerned(self._expected.pop(id_)[1]))

    def given_at(self, name: str) -> int:
        """At which position of BREVO a contact gets this name that has it not yet; END where none will.

        What is said of the name from there on is said of that contact.
        """
        found = (*self._pending.values(), *self._expected.values())
        return min(
            (at for at, one in found if isinstance(one, ContactRelink) and one.ext_id == name), default=END
        )

    def whom(self, item: Item) -> tuple[str, bool]:
        """What the contact is called that a command is about, and whether it is forgotten.

        A name that changed may have come back: what is said after that is not said of who had it before.
        """
        name = item.command.ext_id
        given = self.given_at(name) <= item.position
        return (name, False) if given else self._ledger.whom(name, item.position)

    @property
    def note(self) -> str:
        """What a person should know; an empty text when all is well."""
        return waiting(self._put_off.values(), time.monotonic())

    def next(self) -> Item | None:
        """What was said first, and shares no contact with what was said before it and is put off.

        Nothing while something said before it has yet to come again.
        """
        now = time.monotonic()
        if now > self._expected_until:
            for id_ in list(self._expected):
                self.heard(id_)
        first = min((position for position, _ in self._expected.values()), default=END)
        before: set[str] = set()  # contacts of what was said before and is put off
        for number, item in enumerate(self._waiting):
            if item.sequence > first:
                break
            concerned = _concerned(item.command)
            until = self._put_off[item.command.id][0] if item.command.id in self._put_off else now
            if until <= now and before.isdisjoint(concerned):
                return self._waiting.pop(number)
            before.update(concerned)
        return None

    async def settle(self, item: Item, wait: Callable[[], Awaitable[None]]) -> None:
        """Try it, once nothing is in flight for its contacts; `wait` returns when that may be so.

        What is to be tried again comes with `next` once more, and its contacts are left alone until it has ended.
        """
        ended = True
        try:
            await self._gate.passed()
            while self._desk.busy(*_concerned(item.command)):
                await wait()
            await self._brevo.turn("contacts")
            with spans.work(span.SINK, "consumer", papers.causes([item]), papers.heard([item])):
                ended = await self._tried(item)
        finally:
            if ended:
                self._put_off.pop(item.command.id, None)
                self._pending.pop(item.command.id, None)
                self._desk.free(*_concerned(item.command))

    async def _tried(self, item: Item) -> bool:
        """Whether it has ended."""
        match await self._call(item):
            case Pause() as pause:
                spans.fail(pause.why)
                self._gate.shut(pause)
            case Retry("429"):  # the bucket rests (budget.py)
                spans.fail("429")
                item.tries += 1
            case Retry() as retry:
                spans.fail(answer.without_words(retry.why))
                item.tries += 1
                until = time.monotonic() + min(retry.after_s * item.tries, RETRY_MAX_S)
                self._put_off[item.command.id] = (until, retry.why, item)
            case Reject(why):
                await self._ends.reject([item], [why])
                return True
            case _:
                await self._record(item)
                return True
        self._wait(item)
        return False

    def _wait(self, item: Item) -> None:
        bisect.insort(self._waiting, item, key=lambda one: one.sequence)

    async def _call(self, item: Item) -> Outcome:
        if item.said_again and self._ledger.renamed(_concerned(item.command), after=item.position):
            return Reject("a name in it was given to another contact, or taken away, after it was first said")
        match item.command:
            case ContactRelink() as command:
                return await relink(self._brevo, self._ledger, command)
            case command:
                return await self._delete(self._ledger.foreign_name(command.ext_id) or command.ext_id)

    async def _delete(self, name: str) -> Outcome:
        return await delete(self._brevo, name)

    async def _record(self, item: Item) -> None:
        """First the ledger, in one transaction; then the receipts, and ack."""
        match item.command:
            case ContactRelink(ext_id=ext_id, was=was, id=id_):
                self._ledger.relink(was, ext_id, item.sequence, id_)
                self._pending.pop(id_, None)
                superseded = self._desk.rename(was, ext_id, before=self.given_at(was))
                await self._ends.end(superseded, "superseded")
            case command:
                self._ledger.erase(command.ext_id, item.sequence, command.id)
                for ended in self._desk.drop(command.ext_id, before=item.sequence):
                    await self._ends.end([ended], "superseded")
        await self._ends.end([item], "delivered")


def _concerned(command: Command) -> tuple[str, ...]:
    return (command.was, command.ext_id) if isinstance(command, ContactRelink) else (command.ext_id,)


async def delete(brevo: Brevo, name: str) -> Outcome:
    """Delete a contact by its ext_id, and see that it is gone.  A turn was taken for the first of two calls."""
    path, by = f"/contacts/{quote(name, safe='')}", [("identifierType", "ext_id")]
    match await brevo.call("DELETE", path, params=by, kind="contact.delete"):
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(status, headers, body):
            outcome = answer.of_delete(status, headers, body)
            return await _is_gone(brevo, name) if isinstance(outcome, Done) else outcome


async def _is_gone(brevo: Brevo, name: str) -> Outcome:
    """Whether Brevo has nobody of this name any more: Done, or to be tried again."""
    await brevo.turn("contacts")
    path, by = f"/contacts/{quote(name, safe='')}", [("identifierType", "ext_id")]
    match await brevo.call("GET", path, params=by):
        case Reply(200, _, _):
            return Retry("a contact that was deleted is still there", answer.AGAIN_S)
        case NotSent(why) | Lost(why):
            return Retry(why, answer.AGAIN_S)
        case Reply(status, headers, body):
            outcome = answer.of_delete(status, headers, body)
            return outcome if isinstance(outcome, Done | Pause) else Retry(f"HTTP {status}", answer.AGAIN_S)


def waiting(put_off: Iterable[tuple[float, str, Item]], now: float) -> str:
    """What is said of those put off: an empty text while none has waited for SAY_S."""
    long = sorted(
        (item.sequence, why, now - item.heard) for _, why, item in put_off if now - item.heard >= SAY_S
    )
    if not long:
        return ""
    position, why, waited_s = long[0]
    first = f"BREVO:{position} for {waited_s:.0f} s ({why})"
    return f"relinks and deletions that Brevo does not carry out: {len(long)}, the first {first}"
