"""The connector file: what is accepted, and where and how a mistake is named."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from shared.config import Attribute, Rule
from shared.connector_file import ConfigError, load, parse

ROOT = Path(__file__).parent.parent.parent
SHIPPED = (ROOT / "config/tajo.yaml").read_text()
DOCUMENTED = (
    SHIPPED.replace("debug: false", "debug: true            # accepted as the documentation shows it")
    .replace("log_level: info", "log_level: verbose")
    .replace("log_api_calls: false", "log_api_calls: true")
)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("text", [SHIPPED, DOCUMENTED], ids=["shipped", "documented"])
def test_the_file_of_the_documentation_works_as_it_is(text):
    read = parse(text)

    assert read.fields["last_conversation_date"] == Attribute("LAST_SUPPORT_DATE", "date")
    assert read.fields["customer_tier"] == Attribute("VIP_TIER", "text")
    assert read.rules["task.canceled"] == Rule("SUPPORT_ABANDONED")
    assert read.flex.lists.csat_respondents == 33


def test_the_mappings_are_accepted_inside_the_connector_and_mean_the_same():
    head, _, tail = SHIPPED.partition("field_mapping:")
    inside = head + "".join(f"    {line}\n" for line in f"field_mapping:{tail}".splitlines())

    assert parse(inside).fields == parse(SHIPPED).fields
    assert parse(inside).hash == parse(SHIPPED).hash


def test_a_connector_that_maps_nothing_tells_nothing_and_a_file_that_was_cut_off_is_none(tmp_path):
    (tmp_path / "tajo.yaml").write_text("\n")

    assert parse("connectors: {}").rules == {}
    with pytest.raises(ConfigError, match="is empty"):
        load(tmp_path / "tajo.yaml")


LAUGHS = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 1500, "is nested too deeply"),
        (LAUGHS, "has more than 50,000 values"),
        ("# " + "x" * 1024**2, "has more than 1,048,576 bytes"),
        ("[]", "Expected `object`, got `array`"),
        ("tajo", "Expected `object`, got `str`"),
    ],
    ids=["deep", "aliases", "long", "list", "text"],
)
def test_what_no_connector_file_is_like_is_refused(text, said):
    assert problems(text) == [f"line 1, column 1: {said}"]


@pytest.mark.parametrize("name", ["bad name!", "x" * 256, "ends\n", ""])
@pytest.mark.parametrize("long", [False, True])
def test_an_event_name_brevo_does_not_take_is_a_mistake_however_the_rule_is_written(name, long):
    rule = {"name": name} if long else name

    assert len(problems(json.dumps({"event_mapping": {"survey.completed": rule}}))) == 1


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("task.canceled:", "task.cancelled:", "line 29, column 3: no event is called 'task.cancelled'; did you mean task.canceled?"),
        ("task.canceled:", "worker.activity.update:", "line 29, column 3: worker.activity.update happens to no customer, so there is no contact to tell it of"),
        ("support_contacts: 32", "support_contacts: all", "line 9, column 13: Expected `int | null`, got `str`"),
        ("log_level: info", "log_levl: info", "line 12, column 5: Object contains unknown field `log_levl`"),
        ("VIP_TIER", "VipTier", "line 24, column 3: 'VipTier' is no Brevo attribute name: capitals, digits and _, at most 50"),
        ("VIP_TIER", "FIRSTNAME", "line 24, column 3: FIRSTNAME is filled from friendly_name already"),
        ("attributes.phone: SMS", "attributes.phone: PHONE", "line 18, column 3: attributes.phone identifies the contact: write SMS on the right"),
        ("customer_tier: VIP_TIER", "customer_tier: EMAIL", "line 24, column 3: EMAIL identifies the contact: map attributes.email or attributes.phone to it"),
        ("customer_tier: VIP_TIER", "a b: VIP_TIER", "line 24, column 3: 'a b' is neither a known source nor a path such as customers.tier"),
        ("AVG_WAIT_TIME", "{attribute: AVG_WAIT_TIME, type: date}", "line 21, column 3: avg_wait_time is a float, not a date"),
        (" SUPPORT_RESOLVED", " {name: 'a b'}", "line 28, column 20: Expected `str` matching regex '^[A-Za-z0-9_-]+$'"),
        (" SUPPORT_RESOLVED", " {name: X, on: Y}", "line 28, column 29: Object contains unknown field `on`"),
        (" SUPPORT_RESOLVED", " {name: X, when: {'a b': 1}}", "line 28, column 3: 'a b' is neither a property nor a path such as customers.tier"),
        (" SUPPORT_RESOLVED", " {name: X, properties: {tier: customer_tier, a: 5}}", "line 28, column 63: Expected `str`, got `int`"),
        (" SUPPORT_RESOLVED", " {name: X, properties: {a: null}}", "line 28, column 42: Expected `str`, got `null`"),
        (" SUPPORT_RESOLVED", " {name: X, when: {queue: Support, reason: null}}", "line 28, column 52: Expected `bool | int | float | str | array`, got `null`"),
        (" SUPPORT_RESOLVED", " {name: X, when: {reason: {a: b}}}", "line 28, column 36: Expected `bool | int | float | str | array`, got `object`"),
        (" SUPPORT_RESOLVED", " {name: X, when: {reason: [a, [b]]}}", "line 28, column 48: Expected `bool | int | float | str`, got `array`"),
        ("debug: false", "poller: {rates: {flex: 5, events: 0}}", "line 11, column 31: Expected `int` >= 1"),
        (" SUPPORT_RESOLVED", " {name: X, delivery: twice}", "line 28, column 29: Invalid enum value 'twice'; it is one of exactly_once, at_least_once, at_most_once"),
        ("[voice,", "[fax,", "line 10, column 16: Invalid enum value 'fax'; it is one of voice, sms, whatsapp, webchat, email, messenger, video, rcs"),
        ("debug: false", "time_zone: Mars/Base", "line 11, column 5: no time zone is called 'Mars/Base'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_where_it_stands(written, instead, said):
    assert written in SHIPPED

    assert problems(SHIPPED.replace(written, instead, 1)) == [said]


def test_every_mistake_is_named_at_once_in_the_order_of_the_file():
    text = SHIPPED.replace("task.canceled:", "task.cancelled:").replace("VIP_TIER", "VipTier")

    assert [line.split(":")[0] for line in problems(text)] == ["line 24, column 3", "line 29, column 3"]


def test_what_is_not_yaml_is_named_where_it_breaks():
    assert problems("connectors: [") == [
        "line 1, column 14: not YAML: expected the node content, but found '<stream end>'"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b\nc: \a\n", "line 2, column 4: not YAML: special characters are not allowed"),
        ("a:\n  b: 2026-13-01\n", "line 2, column 6: not YAML: a date, number or boolean that is none: put it in quotes if it is text"),
        ("a: !!int\n", "line 1, column 4: not YAML: a date, number or boolean that is none: put it in quotes if it is text"),
        ("a: !!bool foo\n", "line 1, column 4: not YAML: a date, number or boolean that is none: put it in quotes if it is text"),
        ("? [a, {b: 1}]\n: 2\n", "line 1, column 1: not YAML: a key is a mapping or a list"),
        ('a: 1\nb: "\\U99999999"\n', "line 2, column 5: not YAML: an escape names no character"),
    ],
    ids=["control", "date", "number", "boolean", "key", "character"],
)  # fmt: skip
def test_a_value_that_yaml_itself_cannot_read_is_a_mistake_like_the_others(text, said):
    assert problems(text) == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("field_mapping:\n  customer_tier: S3CRET\nfield_mapping:\n  account_id: S3CRET\n", "line 3, column 1: 'field_mapping'"),
        ("event_mapping:\n  task.created: S3CRET\n  task.created: S3CRET\n", "line 3, column 3: 'task.created'"),
        ("a: &a {x: S3CRET}\nb:\n  <<: *a\n  <<: *a\n", "line 4, column 3: '<<'"),
        (f"{'k' * 99}: S3CRET\n" * 2, f"line 2, column 1: '{'k' * 80}'"),
    ],
    ids=["section", "rule", "merge", "long"],
)  # fmt: skip
def test_what_is_there_twice_is_named_without_what_it_holds(text, said):
    assert problems(text) == [f"{said} is there already: keep one"]


def test_a_mapping_in_two_places_is_refused():
    text = SHIPPED.replace("    debug: false", "    debug: false\n    field_mapping: {account_id: OTHER}")

    assert any("stands at the top and inside twilio_flex: keep one" in line for line in problems(text))


def test_the_hash_changes_with_what_decides_and_with_nothing_else():
    base = parse(SHIPPED).hash

    assert parse(DOCUMENTED).hash == base
    replay = SHIPPED.replace("debug: false", "replay: {event_age_max_s: 60}")
    assert parse(replay).flex.replay.event_age_max_s == 60
    assert parse(replay).hash == base
    assert parse(SHIPPED.replace("VIP_TIER", "TIER")).hash != base
    assert parse(SHIPPED.replace("support_contacts: 32", "support_contacts: 7")).hash != base


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: line 1, column 1: cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml")


def test_the_shipped_schema_is_the_one_of_the_code_and_accepts_the_shipped_file():
    printed = subprocess.run(
        [sys.executable, "-m", "tajo", "mapping", "schema"], capture_output=True, check=True
    ).stdout
    shipped = (ROOT / "config/tajo.schema.json").read_bytes()

    assert printed == shipped, "run: uv run tajo mapping schema > config/tajo.schema.json"
    jsonschema.validate(YAML(typ="safe").load(DOCUMENTED), json.loads(shipped))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"connectors": {"twilio_flex": {"log_levl": "info"}}}, json.loads(shipped))


def test_all_mistakes_are_named_at_once():
    written = """field_mapping:
  customer_tier: vipTier
  order.total: {attribute: TOTAL, type: flot}
event_mapping:
  task.cancelled: A
  task.created: {name: "a b"}
  task.completed: {nam: X}
"""

    assert [one.partition(":")[0] for one in problems(written)] == [
        "line 2, column 3", "line 3, column 35", "line 5, column 3", "line 6, column 18", "line 7, column 20",
    ]  # fmt: skip


def test_numbers_with_a_point_are_read():
    read = parse(
        "connectors: {twilio_flex: {poller: {interval_s: 2.5}}}\nevent_mapping: {task.created: {name: A, when: {x: 1.5}}}"
    )

    assert read.flex.poller.interval_s == 2.5
    assert read.rules["task.created"].when == {"x": 1.5}
