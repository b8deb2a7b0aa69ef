"""What it costs to ask who asks."""

import statistics

from benchmarks.bench import STATS_USER, Bench, stats_of
from benchmarks.table import Quantity, Row
from k12ai.client import Client

TOKENS = ("stats p50: what the token adds, against the same without",)
MOST_S = 100e-6
# The people of a school, each of whom has a token that has to be told from the others.
PEOPLE = 1_000


def tokens(bench: Bench) -> list[Row]:
    """Looking at a token, whose it is and how often it came, takes at most a tenth of a millisecond."""
    # What is measured would be refused as too much.
    unlimited = ("--token-requests-per-s", "1000000", "--address-requests-per-s", "1000000")
    with bench.server(0) as unguarded, bench.server(0, *unlimited) as guarded:
        token = _make_tokens(guarded.url)
        guarded.http.headers["Authorization"] = f"Bearer {token}"
        ours, peer = [], []
        for _ in range(bench.scale.latency_rounds):
            peer.append(bench.p50_s(stats_of(unguarded)))
            ours.append(bench.p50_s(stats_of(guarded, token)))
    added_s = statistics.median(one - other for one, other in zip(ours, peer, strict=True))
    return [
        Row(
            TOKENS[0],
            Quantity(added_s, "s"),
            peer=Quantity(statistics.median(peer), "s"),
            bar=f"<= {MOST_S * 1e6:.0f} µs",
            met=added_s <= MOST_S,
            ratio=statistics.median(one / other for one, other in zip(ours, peer, strict=True)),
        )
    ]


def _make_tokens(url: str) -> str:
    with Client(url) as client:
        admin = client.access.create_token("head", "admin").token
    with Client(url, admin) as head:
        students = [STATS_USER, *(f"student{number}" for number in range(PEOPLE - 2))]
        made = head.access.set_class("school", students)
    return made.tokens[0].token
