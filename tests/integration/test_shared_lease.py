"""The lease on a real broker: one holds it, and is followed when it cannot or will not go on."""

import asyncio
import os
import shutil
import time

import pytest

from shared import bus, lease
from shared.lease import LEASE_S, Lease


@pytest.fixture
async def brokers(nats_server):
    made = []

    async def make():
        made.append(broker := bus.connect(nats_server.url, service="test"))
        await broker.connect()
        return broker

    yield make
    for broker in made:
        await broker.stop()


async def acquire(one: Lease) -> None:
    """Return once it is ours."""
    while not await one.acquire():  # noqa: ASYNC110 - another process has no Event of ours
        await asyncio.sleep(lease.LOOK_S)


async def applying(brokers, folder, service="mapper") -> Lease:
    one = Lease(await brokers(), service, folder)
    await one.lock()
    return one


async def test_of_many_who_ask_at_once_one_gets_it_and_each_service_has_its_own(brokers, tmp_path):
    many = [await applying(brokers, tmp_path / str(number)) for number in range(5)]
    asking = [asyncio.create_task(acquire(one)) for one in many]
    other = await applying(brokers, tmp_path / "other", "poller")

    await asyncio.wait_for(acquire(other), 2)
    await asyncio.wait(asking, timeout=3, return_when=asyncio.ALL_COMPLETED)

    assert sum(one.held() for one in many) == 1
    assert sum(one.other for one in many) == 4
    for task in asking:
        task.cancel()


async def test_one_that_is_let_go_is_taken_at_once(brokers, tmp_path):
    first, second = await applying(brokers, tmp_path / "1"), await applying(brokers, tmp_path / "2")
    await acquire(first)
    waiting = asyncio.create_task(acquire(second))

    began = time.monotonic()
    await first.release()
    await waiting

    assert time.monotonic() - began < 1
    assert second.held()
    assert not first.held()


async def test_a_holder_that_renews_no_more_stops_before_another_begins(brokers, tmp_path):
    first, second = await applying(brokers, tmp_path / "1"), await applying(brokers, tmp_path / "2")
    await acquire(first)
    began = time.monotonic()

    async def stopped() -> float:
        while first.held():  # noqa: ASYNC110 - time is what passes
            await asyncio.sleep(0.01)
        return time.monotonic()

    ended, _ = await asyncio.gather(stopped(), acquire(second))
    taken = time.monotonic()

    assert taken - ended > 1.5
    assert LEASE_S <= taken - began < LEASE_S + 2
    await asyncio.wait_for(first.hold(), 2)  # says so as soon as it looks


async def test_without_a_broker_it_runs_out_and_is_gone_on_with_when_nobody_took_it(
    nats_server, brokers, tmp_path, monkeypatch
):
    monkeypatch.setattr(lease, "LEASE_S", 4.0)
    one = await applying(brokers, tmp_path / "1")
    await acquire(one)
    holding = asyncio.create_task(one.hold())

    nats_server.kill()
    deadline = time.monotonic() + 20
    while one.held():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    nats_server.start()
    while not one.held():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

    assert not holding.done()
    holding.cancel()


async def test_who_starts_again_on_the_same_directory_takes_its_own_at_once_and_a_copy_does_not(
    brokers, tmp_path
):
    first = await applying(brokers, tmp_path / "1")
    await acquire(first)
    shutil.copytree(tmp_path / "1", tmp_path / "copy")
    second = Lease(await brokers(), "mapper", tmp_path / "1")
    locking = asyncio.create_task(second.lock())
    await asyncio.wait([locking], timeout=1)
    shut_out = not locking.done()

    os.close(first._file)  # as the kernel does when a process dies
    await locking
    copy = await applying(brokers, tmp_path / "copy")
    copying = asyncio.create_task(acquire(copy))
    await asyncio.wait([copying], timeout=1)
    began = time.monotonic()
    await acquire(second)

    assert shut_out
    assert time.monotonic() - began < 1
    assert second.instance == first.instance != copy.instance
    assert not copying.done()
    copying.cancel()
