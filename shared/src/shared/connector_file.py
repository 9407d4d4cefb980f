"""Reading the connector file: every mistake is named with its line and column, and what to write instead.  Pure, but for `load`."""

import difflib
import itertools
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from shared.command import Delivery
from shared.config import (
    EVENT_TYPES,
    IDENTIFIERS,
    TYPES,
    Attribute,
    AttributeType,
    Channel,
    Config,
    LogLevel,
    Rate,
    RateName,
    Resource,
    Rule,
    Wanted,
)

_ATTRIBUTE = re.compile(r"[A-Z][A-Z0-9_]{0,49}")  # facts: mixed case is ignored in silence by Brevo
_STRANGE = (ValueError, LookupError, ArithmeticError)  # what int(), datetime and a table of words raise
_NO_CHARACTER = re.compile(r"\\U(?!000|0010)")  # an escape beyond U+10FFFF
_UNKNOWN = re.compile(r"unknown field `(.+)`")
_QUOTED = re.compile(r'"([^"]*)"')
_WORDS = {
    "type": get_args(AttributeType),
    "log_level": get_args(LogLevel),
    "resources": get_args(Resource),
    "rates": get_args(RateName),
    "channels": get_args(Channel),
    "delivery": get_args(Delivery),
}
_VALUES: dict[str, Any] = {
    "field_mapping": str | Attribute,
    "event_mapping": str | Rule,
    "properties": str,
    "when": Wanted,
    "rates": Rate,
}
"""What each mapping of the file holds; msgspec does not say which of its keys is wrong."""

PROBLEMS_MAX = 50  # that are told at once
BYTES_MAX = 1024**2  # of the file; ours has 4 KB, and each field and rule some 100 bytes
NODES_MAX = (
    50_000  # values, aliases followed: ten references to ten references, and so on, are no end of them
)
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_EVENT_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


class Problem(Struct, frozen=True):
    """One mistake, where it stands (from 1), and what to write instead."""

    line: int
    column: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.what}"


class ConfigError(Exception):
    """The file cannot be used; every mistake found is in `problems`."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load(path: Path) -> Config:
    """Read and check the file.  Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(BYTES_MAX + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(str(path), [Problem(1, 1, f"cannot be read: {reason}")]) from error
    if not text.strip():
        raise ConfigError(str(path), [Problem(1, 1, "is empty; docs/mapping.md says what it may hold")])
    return parse(text, str(path))


def parse(text: str, path: str = "config") -> Config:
    """The configuration a text holds.  Pure; raises ConfigError."""
    if len(text) > BYTES_MAX:
        raise ConfigError(path, [Problem(1, 1, f"has more than {BYTES_MAX:,} bytes")])
    try:
        yaml = YAML()
        yaml.Constructor = _Constructor
        tree = yaml.load(StringIO(text))
        plain = _plain({} if tree is None else tree, itertools.count(1))
    except (RecursionError, _TooMuchError) as error:
        what = (
            "is nested too deeply"
            if isinstance(error, RecursionError)
            else f"has more than {NODES_MAX:,} values"
        )
        raise ConfigError(path, [Problem(1, 1, what)]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError(path, [Problem(line, column, _not_yaml(error))]) from error
    except ReaderError as error:
        line, column = _place(text, error.position)
        raise ConfigError(path, [Problem(line, column, f"not YAML: {error.reason}")]) from error
    except TypeError as error:  # ruamel takes most keys that are none, but not a mapping in a list
        raise ConfigError(path, [Problem(1, 1, "not YAML: a key is a mapping or a list")]) from error
    except _STRANGE as error:  # of an escape, before there is a node
        found = _NO_CHARACTER.search(text)
        line, column = _place(text, found.start() if found else 0)
        raise ConfigError(path, [Problem(line, column, "not YAML: an escape names no character")]) from error
    config, problems = _converted(tree, plain)
    problems += [_problem(tree, steps, what) for steps, what in _mistakes(config)]
    if problems:
        raise ConfigError(path, sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return config


def _place(text: str, position: int) -> tuple[int, int]:
    """Line and column, from 1."""
    before = text[:position]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Constructor(RoundTripConstructor):
    """Says where; ruamel lets through what int() and datetime raise, and the table of its booleans."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except _STRANGE as error:
            what = "a date, number or boolean that is none: put it in quotes if it is text"
            raise ConstructorError(problem=what, problem_mark=node.start_mark) from error


def _not_yaml(error: MarkedYAMLError) -> str:
    """What is wrong, for a person.  ruamel tells of a key that is there twice with both its values: only the key is said."""
    what = error.problem or error.context
    twice = _QUOTED.search(what) if isinstance(error, DuplicateKeyError) else None
    return f"{twice[1][:80]!r} is there already: keep one" if twice else f"not YAML: {what}"


class _TooMuchError(Exception):
    """More than NODES_MAX values."""


def _converted(tree: Any, rest: Any) -> tuple[Config, list[Problem]]:
    """The configuration without what is not well formed, and each of that."""
    problems: list[Problem] = []
    for _ in range(PROBLEMS_MAX):
        try:
            return msgspec.convert(rest, Config), problems
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `")
            steps = _named_steps(rest, _steps(where.rstrip("`")))
            if what.startswith("Invalid enum value"):
                words = next((_WORDS[step] for step in reversed(steps) if step in _WORDS), ())
                what += f"; it is one of {', '.join(words)}"
            problems.append(_problem(tree, steps, what))
            unknown = _UNKNOWN.search(what)
            if not _without(rest, (*steps, unknown[1]) if unknown else steps):
                break
    return Config(), problems


def _plain(node: Any, count: Iterator[int]) -> Any:
    """The tree without what ruamel notes in it: msgspec takes no float of another class.  Raises _TooMuchError."""
    if next(count) > NODES_MAX:
        raise _TooMuchError
    if hasattr(node, "items"):
        return {key: _plain(value, count) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item, count) for item in node]
    return float(node) if isinstance(node, float) else node


def _named_steps(tree: Any, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps with the keys msgspec does not name."""
    named: tuple[str, ...] = ()
    for step in steps:
        named = (*named, _bad_key(_at(tree, named), named[-1]) if step == "..." else step)
    return named


def _at(tree: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        tree = tree[step]
    return tree


def _without(tree: Any, steps: tuple[str, ...]) -> bool:
    """Take out the entry that is wrong: of a mapping's rule or attribute the whole of it."""
    if not steps:
        return False
    whole = next(
        (n + 2 for n, step in enumerate(steps) if step in ("field_mapping", "event_mapping")), len(steps)
    )
    *above, last = steps[:whole]
    try:
        del _at(tree, tuple(above))[last]
    except (KeyError, TypeError, IndexError):
        return False
    return True


_Found = list[tuple[tuple[str, ...], str]]  # where it stands, and what to write instead


def _mistakes(config: Config) -> _Found:
    """What is well formed and yet cannot be meant."""
    inside = ("connectors", "twilio_flex")
    found: _Found = [
        ((name,), f"{name} stands at the top and inside twilio_flex: keep one")
        for name in ("field_mapping", "event_mapping")
        if getattr(config, name) and getattr(config.flex, name)
    ]
    for name, mistakes in (
        ("field_mapping", _field_mistakes(config.fields)),
        ("event_mapping", _event_mistakes(config.rules)),
    ):
        at = (*inside, name) if getattr(config.flex, name) else (name,)
        found.extend(((*at, key), what) for key, what in mistakes)
    try:
        ZoneInfo(config.flex.time_zone)
    except (KeyError, ValueError, OSError):
        found.append(((*inside, "time_zone"), f"no time zone is called {config.flex.time_zone!r}"))
    return found


def _field_mistakes(fields: dict[str, Attribute]) -> Iterator[tuple[str, str]]:
    taken: dict[str, str] = {}
    for source, field in fields.items():
        right = field.attribute
        if not _PATH.fullmatch(source):
            yield source, f"{source!r} is neither a known source nor a path such as customers.tier"
        if source in IDENTIFIERS and right != IDENTIFIERS[source]:
            yield source, f"{source} identifies the contact: write {IDENTIFIERS[source]} on the right"
        elif source not in IDENTIFIERS and right in ("email", "EMAIL", "SMS", "EXT_ID"):
            yield source, f"{right} identifies the contact: map attributes.email or attributes.phone to it"
        elif right != "email" and not _ATTRIBUTE.fullmatch(right):
            yield source, f"{right!r} is no Brevo attribute name: capitals, digits and _, at most 50"
        if right in taken:
            yield source, f"{right} is filled from {taken[right]} already"
        taken[right] = source
        if source in TYPES and field.type not in (TYPES[source], "text"):
            yield source, f"{source} is a {TYPES[source]}, not a {field.type}"


def _event_mistakes(rules: dict[str, Rule]) -> Iterator[tuple[str, str]]:
    for type_, rule in rules.items():
        if type_.startswith(("worker.", "activity.", "task-channel.", "workspace.")):
            yield type_, f"{type_} happens to no customer, so there is no contact to tell it of"
        elif type_ not in EVENT_TYPES:
            yield type_, f"no event is called {type_!r}; {_nearest(type_)}"
        if not _EVENT_NAME.fullmatch(rule.name):
            yield (
                type_,
                f"{rule.name[:80]!r} is no event name at Brevo: letters, digits, - and _, at most 255",
            )
        for source in (*rule.properties.values(), *rule.when):
            if not _PATH.fullmatch(source):
                yield type_, f"{source!r} is neither a property nor a path such as customers.tier"


def _nearest(type_: str) -> str:
    near = difflib.get_close_matches(type_, EVENT_TYPES, n=1)
    return f"did you mean {near[0]}?" if near else "docs/mapping.md lists them"


def _steps(path: str) -> tuple[str, ...]:
    """The path of a msgspec error, `$.lists[0]`, as steps; `...` stands for a key it does not name."""
    return tuple(item or key for item, key in re.findall(r"\[([^\]]*)\]|\.([^.\[]+)", path))


def _bad_key(mapping: dict[str, Any], name: str) -> str:
    """Which value of the mapping of this name cannot be read; the first, where all can."""
    kind = _VALUES[name]
    for key, value in mapping.items():
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            return key
    return next(iter(mapping))


def _problem(tree: Any, steps: tuple[str, ...], what: str) -> Problem:
    """Place a mistake: go down the tree as far as the path leads."""
    line, column = 0, 0
    node: Any = tree
    for step in steps:
        try:
            if not hasattr(node, "keys"):
                line, column = node.lc.item(int(step))
                node = node[int(step)]
            else:
                line, column = node.lc.key(step)
                node = node[step]
        except (KeyError, AttributeError, ValueError, IndexError, TypeError):
            break
    unknown = _UNKNOWN.search(what)
    if unknown and hasattr(node, "lc") and unknown[1] in node:
        line, column = node.lc.key(unknown[1])
    return Problem(line + 1, column + 1, what)
