"""Which raw events belong together: they name the same interaction, or the same customer.  Pure."""

from collections.abc import Collection, Iterable

from mapper.heard import Heard


class Kin:
    """Notes what each event names, in any order; then says which belong to some of them.

    It keeps a sequence and a name for each event, and each name once: some 300 bytes an event.
    """

    def __init__(self) -> None:
        self._up: dict[str, str] = {}
        self._named: list[tuple[int, str]] = []

    def note(self, sequence: int, names: Iterable[str]) -> None:
        """An event names all of these; one that names nothing belongs to no other."""
        first = ""
        for name in names:
            root = self._root(name)
            if first:
                self._up[root] = self._root(first)
            else:
                first = name
        if first:
            self._named.append((sequence, first))

    def of(self, sequences: Collection[int] = (), names: Iterable[str] = ()) -> set[int]:
        """The events that belong to these, or to who is named so; and these themselves."""
        wanted = set(sequences)
        roots = {self._root(name) for name in names if name in self._up}
        roots |= {self._root(name) for sequence, name in self._named if sequence in wanted}
        return wanted | {sequence for sequence, name in self._named if self._root(name) in roots}

    def _root(self, name: str) -> str:
        up = self._up
        up.setdefault(name, name)
        while up[name] != name:
            up[name] = name = up[up[name]]
        return name


def of_interaction(heard: Heard) -> tuple[str, ...]:
    """What names the interaction of an event."""
    return heard.links


def of_customer(heard: Heard) -> tuple[str, ...]:
    """What names its interaction, or the customer whose it is: what one of them is told of hangs on all of them."""
    return (*heard.links, *(f"{kind}:{value}" for kind, value in heard.identifiers.items()))
