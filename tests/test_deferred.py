"""Asynchronous requests: accepted durably, published not too early, finished after a crash."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from k12ai import deferred as module
from k12ai.access.principal import Principal
from k12ai.background import Background
from k12ai.deferred import Deferred
from k12ai.errors import ContainerNotFound, StorageFull, TooManyRequestsPending
from k12ai.models import Answer, PlatformRequest, ResultEnvelope
from k12ai.stores.base import Store
from k12ai.stores.sql import SqlStore
from k12ai.texts import Language

REQUEST = PlatformRequest("query", "u", "k12platform", "p", is_async=True)
KEY = "platform/u/p/query/result"


async def perform(request: PlatformRequest, language: Language, _: Principal) -> Answer:
    if request.op == "container.stop":
        raise ContainerNotFound("unknow")
    return Answer.success({"language": language})


@pytest.fixture(name="store")
async def _store(tmp_path: Path) -> AsyncIterator[Store]:
    async with SqlStore(tmp_path) as store:
        yield store


@pytest.fixture(name="background")
async def _background(store: Store) -> AsyncIterator[Background]:
    async with Background() as background:
        yield background


async def published(store: Store, key: str = KEY) -> ResultEnvelope:
    async with asyncio.timeout(10):
        with store.waiting(key, prefix=False) as waiter:
            while not (entries := (await store.get(key)).entries):
                await waiter.changed()
    return msgspec.json.decode(entries[0].value, type=ResultEnvelope)


async def test_the_result_is_what_the_synchronous_answer_would_have_been(
    store: Store, background: Background
) -> None:
    deferred = Deferred(store, background, perform, keep_s=60)
    deferred.begin(await deferred.accept(REQUEST, "zh"))
    envelope = await published(store)
    assert (envelope.type, envelope.tag, envelope.op, envelope.user) == ("result", "platform", "query", "u")
    assert envelope.result == Answer(100000, "success", {"language": "zh"})
    assert await store.pending() == []


async def test_an_error_is_a_result_too(store: Store, background: Background) -> None:
    deferred = Deferred(store, background, perform, keep_s=60)
    stop = msgspec.structs.replace(REQUEST, op="container.stop")
    deferred.begin(await deferred.accept(stop, "en"))
    envelope = await published(store, "platform/u/p/container.stop/result")
    assert envelope.result == Answer(100202, "task service start fails", "container id unknow is not found")


async def test_a_fault_of_ours_is_a_result_too(store: Store, background: Background) -> None:
    async def fails(request: PlatformRequest, language: Language, _: Principal) -> Answer:
        raise ZeroDivisionError

    deferred = Deferred(store, background, fails, keep_s=60, max_pending=1)
    deferred.begin(await deferred.accept(REQUEST, "en"))
    assert (await published(store)).result.code == 100199
    await asyncio.sleep(0.05)
    await deferred.accept(REQUEST, "en")  # and it is not pending any more


async def test_nothing_is_published_within_half_a_second_of_its_answer(
    store: Store, background: Background
) -> None:
    """So that "post, then delete the key, then read it" cannot delete the new result."""
    deferred = Deferred(store, background, perform, keep_s=60)
    loop = asyncio.get_running_loop()
    ticket = await deferred.accept(REQUEST, "en")
    begun = loop.time()
    deferred.begin(ticket)
    await published(store)
    assert loop.time() - begun >= 0.5


async def test_what_was_accepted_before_a_crash_is_carried_out_after_it(
    store: Store, background: Background
) -> None:
    await Deferred(store, background, perform, keep_s=60).accept(REQUEST, "en")  # and then the server dies
    await Deferred(store, background, perform, keep_s=60).resume()
    assert (await published(store)).result.code == 100000


async def test_a_full_disk_delays_a_result_and_does_not_lose_it(
    store: Store, background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    really_publish = store.publish
    failures = iter([StorageFull(), StorageFull()])

    async def publish(*arguments: object, **named: object) -> None:
        for failure in failures:
            raise failure
        await really_publish(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "publish", publish)
    deferred = Deferred(store, background, perform, keep_s=60)
    deferred.begin(await deferred.accept(REQUEST, "en"))
    assert (await published(store)).result.code == 100000


async def test_as_many_as_allowed_may_be_pending_and_no_more(store: Store, background: Background) -> None:
    deferred = Deferred(store, background, perform, keep_s=60, max_pending=2)
    first = await deferred.accept(REQUEST, "en")
    await deferred.accept(REQUEST, "en")
    with pytest.raises(TooManyRequestsPending):
        await deferred.accept(REQUEST, "en")
    deferred.begin(first)
    await published(store)
    await asyncio.sleep(0.05)
    await deferred.accept(REQUEST, "en")
