"""The client against the local Twilio: whatever goes wrong on the way, every item is read once, within the limits."""

import asyncio
import random

import msgspec
import pytest

from poller import endpoints
from poller.answer import Absent
from poller.rates import Rates
from poller.twilio import Credentials, Twilio, TwilioError
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.rest import LIMITS, TwilioSandbox
from sandbox.traffic import traffic
from sandbox.twilio import ACCOUNT_SID, WORKSPACE_SID, iso
from shared.verdict import Pause, Reject, Retry

EVENTS = traffic(3500, random.Random(4))[1]
EVENTS.sort(key=lambda event: event.time_ms)
END_S = EVENTS[-1].time_ms / 1000 + 1
START = iso(EVENTS[0].time_ms)


@pytest.fixture
async def local():
    """A local Twilio at the end of its day, and a client for it: `client(tries_max=2)` for an impatient one."""
    sandbox = TwilioSandbox(events=list(EVENTS), clock=lambda: END_S)
    made = []
    async with serving(BrevoSandbox(), sandbox) as url:

        def client(*, token: str = sandbox.token, **how) -> Twilio:
            urls = {
                product: f"{url}/twilio/{product}"
                for product in ("taskrouter", "conversations", "flex", "events")
            }
            made.append(Twilio(Credentials(ACCOUNT_SID, ACCOUNT_SID, token), urls=urls, **how))
            return made[-1]

        yield sandbox, client
        for one in made:
            await one.close()


async def read(client: Twilio, **named: str) -> list[str]:
    sids = []
    async for page in client.pages(endpoints.EVENTS, WorkspaceSid=WORKSPACE_SID, **named):
        sids += [msgspec.json.decode(item)["sid"] for item in page.items]
    return sids


@pytest.mark.parametrize("shuffled", [False, True])
async def test_pages_hold_everything_once(local, shuffled):
    sandbox, client = local
    sandbox.shuffled = shuffled

    sids = await read(client(), StartDate=START)

    assert len(sids) == len(EVENTS)
    assert set(sids) == {event.sid for event in EVENTS}
    assert sandbox.answered.total() == 4


async def test_everything_is_read_through_bad_weather(local):
    sandbox, client = local
    sandbox.faults += [
        Fault("status", status=429, times=2, headers={"retry-after": "1"}),
        Fault("latency", every=2, seconds=0.3),
        Fault("status", every=2, status=500),
        Fault("reset", every=2),
        Fault("status", every=2, status=503, body="upstream connect error"),
    ]

    sids = await read(client(), StartDate=START)

    assert sorted(sids) == sorted(event.sid for event in EVENTS)
    assert not any(fault.times for fault in sandbox.faults)


async def test_a_page_that_is_no_json_is_asked_for_again(local):
    sandbox, client = local
    sandbox.faults += [Fault("status", status=200, body="<html>Bad gateway</html>")]

    assert len(await read(client(), StartDate=START)) == len(EVENTS)


@pytest.mark.parametrize(
    "body",
    [
        {"events": {}, "meta": {"next_page_url": None}},
        {"events": [], "meta": []},
        {"events": [], "meta": {"next_page_url": 7}},
        {"events": [], "meta": {"next_page_url": "http://[::bad/x"}},
        {
            "events": [],
            "meta": {
                "next_page_url": f"/twilio/taskrouter/v1/Workspaces/{WORKSPACE_SID}/Events?PageSize=1000"
            },
        },
    ],
)
async def test_an_answer_that_is_no_page_or_leads_back_is_said_and_ends_nothing_else(local, body):
    sandbox, client = local
    sandbox.faults += [Fault("status", status=200, body=body, times=3, path="/twilio/taskrouter")]
    one = client()

    with pytest.raises(TwilioError, match=r"no page|lead back"):
        await read(one)
    sandbox.faults.clear()
    assert len(await read(one, StartDate=START)) == len(EVENTS)


async def test_one_answer_with_a_wrong_date_moves_no_clock(local):
    sandbox, client = local
    one = client()
    for clock in (END_S, END_S, 4_070_908_800.0, END_S):
        sandbox.clock = lambda clock=clock: clock
        await one.fetch(endpoints.CONFIGURATION)

    assert abs(one.now_ms() / 1000 - END_S) < 60


async def test_no_second_ever_holds_more_than_a_limit(local):
    sandbox, client = local
    one = client()

    async def ask() -> None:
        for _ in range(9):
            await one.fetch(endpoints.TASK, WorkspaceSid=WORKSPACE_SID, Sid=f"WT{'0' * 32}")

    await asyncio.gather(*(ask() for _ in range(8)), read(one, StartDate=START))

    assert not [what for what in sandbox.answered if what.endswith("429")]
    assert 25 <= sandbox.peak("taskrouter") <= LIMITS["taskrouter"]


async def test_the_sandbox_refuses_what_goes_beyond(local):
    sandbox, client = local
    hasty = client(rates=Rates(dict.fromkeys(endpoints.LIMITS, 1000), 1.0), tries_max=1)

    results = await asyncio.gather(*(read(hasty, Minutes="1") for _ in range(25)), return_exceptions=True)

    refused = [one for one in results if isinstance(one, TwilioError)]
    assert refused
    assert all(isinstance(one.verdict, Retry) for one in refused)
    assert sandbox.peak("taskrouter_events") > LIMITS["taskrouter_events"]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Pause), (403, Pause), (400, Reject), (500, Retry)]
)  # fmt: skip
async def test_what_does_not_work_is_said(local, status, kind):
    sandbox, client = local
    sandbox.faults += [Fault("status", status=status, times=None)]

    with pytest.raises(TwilioError) as raised:
        await read(client(tries_max=2))

    assert isinstance(raised.value.verdict, kind)
    assert sandbox.token not in str(raised.value)


async def test_a_wrong_token_is_told_with_what_to_do(local):
    _, client = local

    with pytest.raises(TwilioError, match=r"console\.twilio\.com"):
        await client(token="wrong").fetch(endpoints.CONFIGURATION)


async def test_what_is_absent_is_none_or_an_empty_list(local):
    _, client = local
    one = client()

    assert await one.fetch(endpoints.TASK, WorkspaceSid=WORKSPACE_SID, Sid=f"WT{'0' * 32}") is None
    assert [page async for page in one.pages(endpoints.EVENTS, WorkspaceSid=f"WS{'0' * 32}")] == []
    assert [page.items async for page in one.pages(endpoints.CHANNELS)] == [[]]


@pytest.mark.parametrize("kind", ["status_after_apply", "reset_after_apply"])
async def test_what_may_have_been_made_is_not_made_again(local, kind):
    sandbox, client = local
    sandbox.faults += [Fault(kind, status=500)]

    with pytest.raises(TwilioError, match="may have taken effect"):
        await client().create(
            endpoints.WORKSPACE_UPDATE,
            [("EventCallbackUrl", "https://a.example")],
            WorkspaceSid=WORKSPACE_SID,
        )

    assert sandbox.answered.total() == 1


async def test_what_was_refused_for_the_rate_is_made_again(local):
    sandbox, client = local
    sandbox.faults += [Fault("status", status=429)]

    made = await client().create(
        endpoints.WORKSPACE_UPDATE, [("EventCallbackUrl", "https://a.example")], WorkspaceSid=WORKSPACE_SID
    )

    assert made["event_callback_url"] == sandbox.callback_url == "https://a.example"


async def test_credentials_go_where_we_were_told_whatever_a_page_says(local):
    sandbox, client = local
    page = {"events": [], "meta": {"next_page_url": "https://evil.example/twilio/taskrouter/v1/elsewhere"}}
    sandbox.faults += [Fault("status", status=200, body=page)]

    with pytest.raises(TwilioError, match="404"):  # a later page that is not there is no end of the list
        await read(client())
    assert sandbox.answered["GET /twilio/taskrouter/v1/elsewhere 404"] == 1


async def test_an_endpoint_takes_nothing_it_does_not_know(local):
    _, client = local

    with pytest.raises(TypeError, match="takes no Page"):
        await read(client(), Page="2")


def test_nothing_of_a_secret_is_printed():
    credentials = Credentials("AC1", "SK1", "s3cret")

    assert "s3cret" not in f"{credentials!r} {credentials} {TwilioError(endpoints.EVENTS, Absent('404'))}"


async def test_a_web_chat_is_begun_and_stands_among_the_conversations(local):
    sandbox, client = local
    begun = await client().create(
        endpoints.WEB_CHAT_CREATE, [("AddressSid", "IG" + "0" * 32), ("CustomerFriendlyName", "Ana")]
    )

    assert begun["conversation_sid"] == sandbox.conversations[-1].sid
    assert sandbox.conversations[-1].participants == ({"identity": begun["identity"]},)
    with pytest.raises(TwilioError) as caught:
        await client().create(endpoints.WEB_CHAT_CREATE, [("CustomerFriendlyName", "Ana")])
    assert caught.value.verdict == Reject("400, Twilio error 20001")
    assert len(sandbox.conversations) == 1


async def test_a_legacy_web_chat_is_begun_with_its_four_fields_and_never_twice(local):
    sandbox, client = local
    form = [
        ("FlexFlowSid", "FO" + "1" * 32), ("Identity", "guest"), ("CustomerFriendlyName", "Ana"), ("ChatFriendlyName", "Chat"),
    ]  # fmt: skip

    begun = await client().create(endpoints.WEB_CHANNEL_CREATE, form)
    sandbox.faults += [Fault("reset_after_apply", method="POST")]
    with pytest.raises(TwilioError) as caught:
        await client().create(endpoints.WEB_CHANNEL_CREATE, form)

    assert (begun["sid"], begun["flex_flow_sid"]) == (sandbox.conversations[0].sid, "FO" + "1" * 32)
    assert isinstance(caught.value.verdict, Reject)  # it may have taken effect, so it is not tried again
    assert len(sandbox.conversations) == 2


async def test_what_is_deleted_is_gone_and_deleting_it_again_is_no_error(local):
    sandbox, client = local
    sink = await client().create(
        endpoints.SINK_CREATE,
        [("Description", "x"), ("SinkType", "webhook"), ("SinkConfiguration", '{"destination": "https://a.example"}')],
    )  # fmt: skip
    sandbox.faults += [Fault("reset_after_apply", method="DELETE")]

    await client().delete(endpoints.SINK_DELETE, Sid=sink["sid"])
    await client().delete(endpoints.SINK_DELETE, Sid=sink["sid"])

    assert sandbox.streams.sinks == {}


async def test_types_of_a_subscription_stand_each_in_a_field_of_its_own(local):
    _, client = local
    sink = await client().create(
        endpoints.SINK_CREATE,
        [("Description", "x"), ("SinkType", "webhook"), ("SinkConfiguration", '{"destination": "https://a.example"}')],
    )  # fmt: skip
    told = [("Description", "x"), ("SinkSid", sink["sid"])]
    types = [f'{{"type": "com.twilio.taskrouter.{name}", "schema_version": 4}}' for name in ("task.created", "task.canceled")]  # fmt: skip

    with pytest.raises(TwilioError):
        await client().create(endpoints.SUBSCRIPTION_CREATE, [*told, ("Types", f"[{', '.join(types)}]")])
    made = await client().create(endpoints.SUBSCRIPTION_CREATE, [*told, *(("Types", text) for text in types)])

    pages = [page async for page in client().pages(endpoints.SUBSCRIBED_EVENTS, SubscriptionSid=made["sid"])]
    assert [msgspec.json.decode(item)["type"] for page in pages for item in page.items] == [
        "com.twilio.taskrouter.task.canceled", "com.twilio.taskrouter.task.created",
    ]  # fmt: skip
    with pytest.raises(TwilioError):
        await client().create(endpoints.SUBSCRIPTION_CREATE, [*told, *(("Types", text) for text in types)])
