"""The server is killed while tasks run, start and stop (B22), and the next one knows them all.

What was acknowledged is there, no program runs twice, and nothing runs that the server does not know.
"""

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from k12ai.client import RequestRefused
from k12ai.failpoints import NAMES, VARIABLE
from k12ai.task import ENDED, Task
from tests.long.site import OP, RUNS, WAIT, Place, Site, of, stop_request
from tests.long.wire import Peer, Reply, ask, peers, request_of
from tests.support.server import Server

pytestmark = pytest.mark.slow

Eventually = Callable[..., Any]
Record = Callable[[str, object], None]

ROUNDS = int(os.environ.get("TORTURE_ROUNDS", "20"))
RUNNING = 20
STARTS = 50
ENDING = 8
STOPPING = 4
WITH_KEY = 40
GRACE_S = 5
READY_S = 30
ENDED_S = 120


class Start:
    """A start that was asked for, what was answered, and what is to become of it."""

    def __init__(
        self, place: Place, code: str, exit_code: int, key: str | None, said: Sequence[Any] = ()
    ) -> None:
        self.place = place
        self.said = list(said)
        self.exit_code = exit_code
        self.key = key
        self.request = place.start(code, key=key)
        self.task_id = ""  # as it was told, or found
        self.acknowledged = False

    def told(self, reply: Reply | None) -> None:
        """Take the answer; None where there was none."""
        if reply is not None:
            assert reply.status == 202, reply
            self.task_id, self.acknowledged = reply.json["task_id"], True


class Town:
    """Tasks that run over many rounds, and what was counted in them."""

    def __init__(self, site: Site, dice: random.Random, eventually: Eventually) -> None:
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.twice: list[str] = []
        self.orphans: list[str] = []
        self.running: list[Start] = []
        self._site = site
        self._dice = dice
        self._eventually = eventually

    def round(self) -> None:
        """Kill the server while it has everything to do, start the next, and compare."""
        self._fill()
        ending = [self.running.pop() for _ in range(ENDING)]
        stopping = [self.running.pop(0) for _ in range(STOPPING)]
        starting = [self._start(number) for number in range(STARTS)]
        before = self._site.alive()
        stopped = asyncio.run(self._strike(starting, stopping))
        self.counts["begun before the kill"] += len(self._site.alive().keys() - before.keys())

        for each in ending:  # while nobody looks
            each.place.release()
        self._eventually(lambda: not of(ids(ending), self._site.alive()), within_s=ENDED_S)
        self._site.open()
        if self._dice.random() < 0.5:  # while it takes up what the last one left
            time.sleep(self._dice.uniform(0, 0.5))
            self._site.kill()
            self._site.open()

        self._find(starting)
        self._send_again(starting)
        self._check_ended(ending)
        self._check_stopped(stopping, stopped)
        for each in self.running:
            assert self._site.client.task(each.task_id).state == "running"
            assert before[each.task_id] <= self._site.alive()[each.task_id], "the same processes run on"
        self._eventually(lambda: not self._site.active().keys() & ids(starting), within_s=ENDED_S)
        self._check_ended([each for each in starting if each.task_id])
        self._count_runs([*starting, *ending, *stopping, *self.running])
        self._count_orphans()

    def stop_all(self) -> None:
        """Stop what still runs, oldest first."""
        for each in self.running:
            assert self._site.client.stop_task(each.task_id, grace_s=GRACE_S).state == "stopped"
            self._check_said(each)
        self._count_runs(self.running)
        self._count_orphans()

    def _fill(self) -> None:
        """Have so many tasks run: those that end when they are told to are the last."""
        new = [self._runner(ends=number >= RUNNING - ENDING) for number in range(len(self.running), RUNNING)]
        for each, reply in zip(new, asyncio.run(self._ask([each.request for each in new])), strict=True):
            each.told(reply)
        self.running += new
        for each in new:
            assert self._site.client.messages(each.task_id, types=("metrics",), wait_s=ENDED_S).messages
        self._eventually(lambda: not {task.state for task in self._site.active().values()} - {"running"})

    def _runner(self, *, ends: bool) -> Start:
        exit_code = self._dice.randint(0, 99)
        begins = f"{RUNS}from k12ai import report; report.metric(begun=1)\n"
        ends_so = f"{WAIT}report.result(last={exit_code}); raise SystemExit({exit_code})\n"
        code = begins + (ends_so if ends else "time.sleep(600)\n")
        return Start(
            self._site.place(), code, exit_code, None, said=[{"begun": 1}] + [{"last": exit_code}] * ends
        )

    def _start(self, number: int) -> Start:
        place, exit_code = self._site.place(), self._dice.randint(0, 99)
        rest = "time.sleep(0.2)\n" if number % 2 else ""
        key = f"key of {place.service_uuid}" if number < WITH_KEY else None
        return Start(place, f"{RUNS}{rest}raise SystemExit({exit_code})\n", exit_code, key)

    async def _strike(self, starting: Sequence[Start], stopping: Sequence[Start]) -> list[Reply | None]:
        """Ask for everything at once and kill the server; return the answers of the stops."""
        # Half of the kills come while the answers do, the others while the programs are started.
        moment_s = self._dice.choice([self._dice.uniform(0, 0.1), self._dice.uniform(0.1, 4)])
        order = [each.request for each in starting] + [stop_request(each.task_id, GRACE_S) for each in stopping]
        asking = asyncio.create_task(self._ask(order))
        await asyncio.sleep(moment_s)
        self._site.kill()
        replies = await asking
        for start, reply in zip(starting, replies[: len(starting)], strict=True):
            start.told(reply)
        self.counts["acknowledged"] += sum(each.acknowledged for each in starting)
        return replies[len(starting) :]

    async def _ask(self, requests: Sequence[bytes]) -> list[Reply | None]:
        async with asyncio.timeout(60), peers(self._site.server, len(requests)) as callers:
            pairs = zip(callers, requests, strict=True)
            return list(await asyncio.gather(*(answer_to(caller, request) for caller, request in pairs)))

    def _find(self, starting: Sequence[Start]) -> None:
        """Every acknowledged task is there; of each other start there is at most one, and it is noted."""
        for each in starting:
            user, service_uuid = each.place.user, each.place.service_uuid
            found = self._site.client.tasks(user=user, service_uuid=service_uuid)
            if each.acknowledged:
                try:
                    task = self._site.client.task(each.task_id)
                except RequestRefused:
                    self.lost.append(each.task_id)
                    continue
                assert (task.user, task.service_uuid, task.op) == (user, service_uuid, OP)
                assert ids_of(found) == [each.task_id]
            elif found:
                (each.task_id,) = ids_of(found)
                self.counts["recorded, not acknowledged"] += 1
        assert self.lost == []

    def _send_again(self, starting: Sequence[Start]) -> None:
        """With its key, a start is the task of then, whether it was acknowledged or not."""
        again = [each for each in starting if each.key is not None]
        for each, reply in zip(again, asyncio.run(self._ask([each.request for each in again])), strict=True):
            then = each.task_id
            each.told(reply)
            assert then in ("", each.task_id)
            self.counts["sent again"] += 1
            self.counts["sent again, a new task"] += not then

    def _check_ended(self, ended: Sequence[Start]) -> None:
        for each in ended:
            task = self._eventually(lambda each=each: self._ended(each), within_s=ENDED_S)
            wanted = "succeeded" if each.exit_code == 0 else "failed"
            printed = "".join(self._site.client.logs(each.task_id))
            assert (task.state, task.reason, task.exit_code) == (wanted, "exited", each.exit_code), (
                task,
                printed,
            )
            assert self._site.states(each.task_id) == ["queued", "starting", "running", wanted]
            self._check_said(each)

    def _check_said(self, start: Start) -> None:
        """Nothing that a program has reported is lost, and nothing comes twice."""
        messages = self._site.messages(start.task_id)
        assert [each.body for each in messages if each.type in ("metrics", "result")] == start.said
        self.counts["reports, each once"] += len(start.said)

    def _ended(self, start: Start) -> Task | None:
        task = self._site.client.task(start.task_id)
        return task if task.ended else None

    def _check_stopped(self, stopping: Sequence[Start], replies: Sequence[Reply | None]) -> None:
        """What was answered is so; what was not is asked for again."""
        for each, reply in zip(stopping, replies, strict=True):
            if reply is not None:
                assert (reply.status, reply.json["state"]) == (200, "stopped")
                self.counts["stops answered"] += 1
            task = self._site.client.stop_task(each.task_id, grace_s=GRACE_S)
            assert (task.state, task.reason) == ("stopped", "stopped_by_user")
            states = self._site.states(each.task_id)  # it may have been gone before "stopping" was written
            assert [state for state in states if state != "stopping"] == [
                "queued",
                "starting",
                "running",
                "stopped",
            ]
            assert states.count("stopping") <= 1
            self._check_said(each)
            self.counts["stopped"] += 1

    def _count_runs(self, starts: Sequence[Start]) -> None:
        """A task's program has run once; where there is no task, nothing has run."""
        for each in starts:
            ran = each.place.ran()
            if sum(ran.values()) > 1:
                self.twice.append(each.task_id)
            assert ran == ({each.task_id: 1} if each.task_id else {})
        assert self.twice == []

    def _count_orphans(self) -> None:
        """Everything that runs is known, and everything that is known to run does."""

        def agreed() -> bool:
            return self._site.alive().keys() == self._site.active().keys()

        try:
            self._eventually(agreed, within_s=10)
        finally:
            self.orphans += self._site.alive().keys() - self._site.active().keys()


async def answer_to(caller: Peer, request: bytes) -> Reply | None:
    """Return the answer, None where the connection ends without one."""
    try:
        return await caller.ask(request)
    except (ConnectionError, asyncio.IncompleteReadError):
        return None


def ids(starts: Sequence[Start]) -> set[str]:
    return {each.task_id for each in starts}


def ids_of(tasks: Sequence[Task]) -> list[str]:
    return [task.task_id for task in tasks]


def test_kills_among_running_starting_and_stopping_tasks_lose_none_and_start_none_twice(
    site: Site, dice: random.Random, eventually: Eventually, record_property: Record
) -> None:
    town = Town(site, dice, eventually)
    site.open()
    began = time.monotonic()
    try:
        for _ in range(ROUNDS):
            town.round()
        town.stop_all()
    finally:
        record_property("kills", len(site.ready_s) - 1)
        for name, count in town.counts.items():
            record_property(name, count)
        record_property("lost", len(town.lost))
        record_property("twice", len(town.twice))
        record_property("orphans", len(town.orphans))
        record_property("cgroups left", len(site.groups()))
        ready_s = site.ready_s[1:] or [0.0]
        record_property("ready again", f"{statistics.median(ready_s):.1f} s, at most {max(ready_s):.1f} s")
        record_property("a round", f"{(time.monotonic() - began) / ROUNDS:.1f} s")
    assert site.alive() == {}
    assert len(site.groups()) == 0
    assert site.errors() == []
    assert max(site.ready_s) < READY_S


@pytest.mark.parametrize("name", NAMES)
def test_a_start_whose_server_is_killed_at_a_named_step_is_one_task_that_runs_once(
    site: Site, eventually: Eventually, record_property: Record, name: str
) -> None:
    server = site.open(environ={VARIABLE: name})
    place = site.place()
    request = place.start(f"{RUNS}raise SystemExit(7)\n", key="once")

    async def start() -> Reply | None:
        async with Peer(server) as caller:
            return await answer_to(caller, request)

    told = asyncio.run(start())
    eventually(
        lambda: server.process.poll() is not None or asyncio.run(is_over(server, place)), within_s=ENDED_S
    )
    if server.process.poll() is None:
        pytest.skip("tasks of this runtime do not pass here")
    site.kill()  # what is left of its connections
    server = site.open()
    again = asyncio.run(start())
    assert again is not None
    task_id = again.json["task_id"]
    assert told is None or told.json["task_id"] == task_id
    eventually(lambda: asyncio.run(is_over(server, place)), within_s=ENDED_S)
    task = site.client.task(task_id)
    assert (task.state, task.exit_code) == ("failed", 7), task
    assert place.ran() == {task_id: 1}
    assert site.states(task_id) == ["queued", "starting", "running", "failed"]
    eventually(lambda: not site.alive())
    eventually(lambda: not site.groups())
    record_property("acknowledged", told is not None)


async def is_over(server: Server, place: Place) -> bool:
    """Whether the one task of a project has ended; False also where the server dies before it says so."""
    query = f"user={place.user}&service_uuid={place.service_uuid}"
    try:
        reply = await ask(server, request_of("GET", f"/api/v1/tasks?{query}"))
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    states = [task["state"] for task in reply.json["tasks"]]
    assert len(states) <= 1
    return bool(states) and states[0] in ENDED
