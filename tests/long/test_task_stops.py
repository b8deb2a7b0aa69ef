"""Tasks are stopped again and again, at every moment, however they resist, and started too often at once.

(B15, B16, B18, B20.)
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pytest

from k12ai.task import TaskState
from tests.long.site import OP, RUNS, RUNTIMES, SLEEPS, WAIT, WAITS, Place, Site, of, stop_request
from tests.long.wire import Reply, ask, peers, served
from tests.support.process import zombies
from tests.support.server import Server

pytestmark = pytest.mark.slow

Eventually = Callable[..., Any]
Record = Callable[[str, object], None]

TIMES = 20
AT_ONCE = 8
GRACE_S = 5
SLACK_S = 30
ANSWER_S = 120
LOOK_S = 2

IS_UP = "open('up', 'w').close()\n"
# Each of them notes every SIGTERM that it gets.
IGNORES_TERM = f"""{RUNS}
signal.signal(signal.SIGTERM, lambda *_: open("terms", "a").write("x"))
{IS_UP}while True: time.sleep(600)
"""
HEEDS_TERM = IGNORES_TERM.replace('write("x")', 'write("x") and sys.exit(7)')
# They start others, and then wait to be released.
BOMB = f"""{RUNS}
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            os.fork()
        except OSError:
            pass
{IS_UP}{WAIT}"""
SHELL_BOMB = f"""{RUNS}
import contextlib, subprocess
if os.fork() == 0:
    while True:
        with contextlib.suppress(OSError):
            subprocess.run(["sh", "-c", "b() {{ b | b & }}; b"], stderr=subprocess.DEVNULL)
{IS_UP}{WAIT}"""
ORPHANS = f"""{RUNS}
for _ in range(100):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
{IS_UP}{WAIT}"""
# It leaves its parent, its session and its environment, and does not heed SIGTERM.
ESCAPES = f"""{RUNS}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        words = "open('up', 'w').close(); import time; time.sleep(600)"
        mark = os.environ["K12AI_USER"] + "/tasks/" + os.environ["K12AI_TASK_ID"]
        os.execve(sys.executable, [sys.executable, "-c", words, mark], {{}})
    os._exit(0)
os.wait()
{WAIT}"""


def is_up(place: Place) -> bool:
    return (place.directory / "up").exists()


def started(reply: Reply) -> str:
    """Return the id of the task that a start was answered with."""
    assert reply.status == 202, reply
    task_id: str = reply.json["task_id"]
    return task_id


def check_nothing_left(site: Site, eventually: Eventually) -> None:
    """Of tasks that have all ended there is no process, no zombie and no cgroup, and no fault was met."""
    assert site.alive() == {}
    eventually(lambda: not zombies(site.server.process.pid))
    eventually(lambda: not site.groups())
    assert site.errors() == []


# --- stopping while starting ------------------------------------------------------------------


async def stop_after(site: Site, server: Server, delay_ms: int) -> str:
    """Start a task, and stop it so much later; return its id."""
    task_id = started(await ask(server, site.place().start(SLEEPS)))
    await asyncio.sleep(delay_ms / 1000)
    reply = await ask(server, stop_request(task_id, GRACE_S))
    assert (reply.status, reply.json["state"]) == (200, "stopped"), reply
    return task_id


async def stop_meanwhile(site: Site, server: Server) -> str:
    """Start a task and ask for its stop at the same time, until it is there to be stopped; return its id."""
    place = site.place()
    starting = asyncio.create_task(ask(server, place.start(SLEEPS)))
    while (reply := await ask(server, place.execute("runcode.stop", {"timeout": GRACE_S}))).status == 404:
        assert reply.json["code"] == 100205
    assert (reply.status, reply.json["message"]["state"]) == (200, "stopped"), reply
    task_id = started(await starting)
    assert reply.json["message"]["task_id"] == task_id
    return task_id


@pytest.mark.parametrize("delay_ms", [None, 0, 1, 5, 20, 50, 100, 200])
async def test_a_stop_while_a_task_starts_always_stops_it_and_leaves_nothing(
    site: Site, eventually: Eventually, record_property: Record, delay_ms: int | None
) -> None:
    server = site.open()
    turns = asyncio.Semaphore(AT_ONCE)
    seconds = []

    async def stopped() -> str:
        async with turns:
            began = time.monotonic()
            task_id = await (
                stop_meanwhile(site, server) if delay_ms is None else stop_after(site, server, delay_ms)
            )
            seconds.append(time.monotonic() - began)
        assert of([task_id], site.alive()) == {}, "it was said to have stopped"
        return task_id

    async with asyncio.timeout(TIMES * (GRACE_S + SLACK_S)), asyncio.TaskGroup() as group:
        stopping = [group.create_task(stopped()) for _ in range(TIMES)]
    ids = [each.result() for each in stopping]
    killed = had_run = 0
    for task_id in ids:
        task = site.client.task(task_id)
        assert (task.state, task.reason, task.code) == ("stopped", "stopped_by_user", 100004), task
        assert task.survivors == []
        states = site.states(task_id)
        assert (states[0], states[-1]) == ("queued", "stopped")
        assert len(set(states)) == len(states), states
        killed += task.killed
        had_run += task.exit_code is not None or task.signal is not None
    check_nothing_left(site, eventually)
    record_property("stopped", len(ids))
    record_property("had a process", had_run)
    record_property("killed after the grace", killed)
    record_property("start to stop", f"{min(seconds):.1f} to {max(seconds):.1f} s")
    record_property("left", 0)


# --- stopping many times ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "terms"),
    [
        pytest.param(HEEDS_TERM, "x", id="a program that heeds it"),
        pytest.param(IGNORES_TERM, "x", id="one that ignores it"),
        pytest.param(SLEEPS, "", id="one that waits its turn"),
    ],
)
async def test_50_stops_at_once_and_10_later_have_one_answer_and_are_one_stop(
    site: Site, eventually: Eventually, record_property: Record, code: str, terms: str
) -> None:
    server = site.open(max_tasks=1)
    place = before = site.place()
    task_id = started(await ask(server, place.start(code if terms else f"{RUNS}{IS_UP}time.sleep(600)")))
    eventually(lambda: is_up(before), within_s=ANSWER_S)
    if not terms:
        place = site.place()
        task_id = started(await ask(server, place.start(code)))
        eventually(lambda: site.client.task(task_id).reason == "waiting_cpu")
    request = stop_request(task_id, GRACE_S)
    began = time.monotonic()
    async with asyncio.timeout(ANSWER_S), peers(server, 50) as callers:
        first = asyncio.gather(*(caller.ask(request) for caller in callers[:40]))
        while (await asyncio.to_thread(site.client.task, task_id)).state in ("queued", "running"):
            await asyncio.sleep(0.01)
        # These find it stopping, where it takes its time.
        second = await asyncio.gather(*(caller.ask(request) for caller in callers[40:]))
        replies = [*await first, *second]
    seconds = time.monotonic() - began
    replies += [await ask(server, request) for _ in range(10)]
    assert {reply.status for reply in replies} == {200}
    answers = {reply.body for reply in replies}
    assert len(answers) == 1
    assert site.client.task(task_id).state == replies[0].json["state"] == "stopped"
    assert of([task_id], site.alive()) == {}
    states = site.states(task_id)
    assert states[0] == "queued"
    assert states[-1] == "stopped"
    assert len(set(states)) == len(states), "one transition"
    heard = place.directory / "terms"
    assert (heard.read_text() if heard.exists() else "") == terms, "one SIGTERM"
    for other in site.active():
        site.client.stop_task(other, grace_s=0)
    check_nothing_left(site, eventually)
    record_property("stops", len(replies))
    record_property("different answers", len(answers))
    record_property("states", " ".join(states))
    record_property("SIGTERM", len(terms))
    record_property("answered within", f"{seconds:.1f} s, with a grace of {GRACE_S} s")


# --- starting too often -----------------------------------------------------------------------


async def test_of_20_starts_at_once_for_one_op_of_a_project_one_is_a_task_and_19_are_refused(
    site: Site, eventually: Eventually, record_property: Record
) -> None:
    server = site.open()
    statuses: Counter[int] = Counter()
    for _ in range(TIMES):
        place = site.place()
        modern, published = place.start(SLEEPS), place.execute(OP, {"code": SLEEPS})
        async with asyncio.timeout(ANSWER_S), peers(server, 20) as callers:
            replies = await asyncio.gather(
                *(caller.ask((modern, published)[number % 2]) for number, caller in enumerate(callers))
            )
        (accepted,) = [reply for reply in replies if reply.status == 202]
        refused = [reply for reply in replies if reply is not accepted]
        assert {(reply.status, reply.json["code"]) for reply in refused} == {(409, 100204)}
        statuses.update(reply.status for reply in replies)
        (task,) = site.client.tasks(user=place.user, service_uuid=place.service_uuid)
        assert all(task.task_id in reply.body.decode() for reply in replies), "who runs is named"
        eventually(lambda place=place: place.ran(), within_s=ANSWER_S)
        assert site.client.stop_task(task.task_id, grace_s=GRACE_S).state == "stopped"
        assert place.ran() == {task.task_id: 1}
    check_nothing_left(site, eventually)
    record_property("answers", dict(statuses))


class Quota:
    """Sees to it that never more tasks run than may, by the records, the stats and the processes."""

    def __init__(self, site: Site, places: int) -> None:
        self.most: Counter[str] = Counter()
        self.samples = 0
        self._site = site
        self._places = places

    def sample(self) -> set[str]:
        """Count in every way; return the tasks that are up."""
        states = {task_id: task.state for task_id, task in self._site.active().items()}
        found = {
            "tasks": {task_id for task_id, state in states.items() if state != "queued"},
            "stats": self._site.listed(),
            # To look takes time, in which one can end and another start: who is there twice was there between.
            "processes": self._site.alive().keys() & self._site.alive().keys(),
        }
        for name, ids in found.items():
            self.most[name] = max(self.most[name], len(ids))
            assert len(ids) <= self._places, (name, sorted(ids))
        self.samples += 1
        return {task_id for task_id, state in states.items() if state == "running"}

    def full(self, waiting: Collection[str]) -> list[str]:
        """Return those that run of the tasks that are to be released, once as many do as can."""
        deadline = time.monotonic() + ANSWER_S
        while len(running := self.sample() & set(waiting)) < min(self._places, len(waiting)):
            assert time.monotonic() < deadline, f"only {len(running)} of {len(waiting)} run"
        return sorted(running)


@pytest.mark.parametrize("killed", [False, True], ids=["one server", "two servers"])
async def test_of_50_projects_never_more_than_6_tasks_run_and_all_have_their_turn(
    site: Site, dice: random.Random, eventually: Eventually, record_property: Record, killed: bool
) -> None:
    server = site.open(max_tasks=6)
    places = [site.place() for _ in range(50)]
    requests = [place.start(WAITS, key=place.service_uuid) for place in places]
    async with asyncio.timeout(ANSWER_S), peers(server, 50) as callers:
        replies = await asyncio.gather(
            *(caller.ask(request) for caller, request in zip(callers, requests, strict=True))
        )
    waiting = {started(reply): place for reply, place in zip(replies, places, strict=True)}
    quota = Quota(site, 6)
    stopped = set()
    while waiting:
        running = quota.full(waiting)
        if killed and len(waiting) < 40:
            site.kill()
            server, killed = site.open(max_tasks=6), False
            again = [await ask(server, request) for request in requests]
            assert [started(reply) for reply in again] == [started(reply) for reply in replies], (
                "the tasks of then"
            )
            continue
        for task_id in dice.sample(running, dice.randint(1, len(running))):
            waiting.pop(task_id).release()
        if queued := sorted(waiting.keys() - set(running)):
            task_id = dice.choice(queued)  # which may have got its turn by now
            assert site.client.stop_task(task_id, grace_s=GRACE_S).state == "stopped"
            del waiting[task_id]
            stopped.add(task_id)
    eventually(lambda: not site.active(), within_s=ANSWER_S)
    for reply, place in zip(replies, places, strict=True):
        task = site.client.task(started(reply))
        assert task.state == ("stopped" if task.task_id in stopped else "succeeded"), task
        assert place.ran() in ({task.task_id: 1}, {} if task.task_id in stopped else None), task
    check_nothing_left(site, eventually)
    record_property("tasks", len(places))
    record_property("stopped while they waited", len(stopped))
    record_property("most at once", dict(quota.most))
    record_property("samples", quota.samples)


# --- resisting --------------------------------------------------------------------------------


async def spread(site: Site, place: Place, task_id: str, expected: int) -> int:
    """Return how many processes a task had at most, once it has spread and been looked at for a while."""
    most = 0
    enough = time.monotonic() + LOOK_S
    while time.monotonic() < enough or most < expected or not is_up(place):
        most = max(most, len((await asyncio.to_thread(site.alive)).get(task_id, ())))
    return most


async def brought_to_its_end(site: Site, place: Place, task_id: str, end: TaskState) -> float:
    """Stop a task, or let its program end; return how long that took."""
    began = time.monotonic()
    if end == "stopped":
        reply = await ask(site.server, stop_request(task_id, GRACE_S))
        assert (reply.status, reply.json["state"]) == (200, "stopped"), reply
    else:
        place.release()
        while not (await asyncio.to_thread(site.client.task, task_id)).ended:
            await asyncio.sleep(0.1)
    seconds = time.monotonic() - began
    assert of([task_id], site.alive()) == {}, "it was said to have ended"
    return seconds


@pytest.mark.parametrize("site", [*RUNTIMES, "process, bare"], indirect=True)
@pytest.mark.parametrize("end", ["stopped", "succeeded"])
@pytest.mark.parametrize(
    ("code", "limit", "expected"),
    [
        pytest.param(BOMB, 64, 60, id="a fork bomb"),
        pytest.param(SHELL_BOMB, 64, 24, id="a fork bomb of shells"),
        pytest.param(ORPHANS, 256, 100, id="100 orphans"),
        pytest.param(ESCAPES, 64, 3, id="setsid and two forks"),
    ],
)
async def test_of_a_task_that_spreads_nothing_outlives_its_end_and_others_are_served_meanwhile(
    site: Site,
    eventually: Eventually,
    record_property: Record,
    code: str,
    limit: int,
    expected: int,
    end: TaskState,
) -> None:
    server = site.open()
    if not site.limits_processes():
        pytest.skip("nothing here limits the processes of a task")
    place, neighbour = site.place(), site.place()
    neighbour_id = started(await ask(server, neighbour.start(WAITS)))
    task_id = started(await ask(server, place.start(code, limits={"processes": limit})))
    over = asyncio.Event()
    good = asyncio.create_task(served(server, over))
    try:
        async with asyncio.timeout(ANSWER_S):
            most = await spread(site, place, task_id, expected)
            seconds = await brought_to_its_end(site, place, task_id, end)
    finally:
        over.set()
        answered = await good
    task = site.client.task(task_id)
    assert (task.state, task.survivors) == (end, [])
    assert most <= limit + 1, "and the one that stands over it"
    assert answered > 0
    assert site.client.task(neighbour_id).state == "running"
    neighbour.release()
    eventually(lambda: site.client.task(neighbour_id).state == "succeeded", within_s=ANSWER_S)
    check_nothing_left(site, eventually)
    record_property("processes at most", most)
    record_property("gone after", f"{seconds:.1f} s" + f" of {GRACE_S} s" * (end == "stopped"))
    record_property("killed", task.killed)
    record_property("others answered meanwhile", answered)
    record_property("left", 0)
