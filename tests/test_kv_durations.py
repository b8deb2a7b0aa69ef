"""Waiting times: Go durations, clamped, with Consul's jitter."""

import pytest

from k12ai.api import kv


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("10s", 10),
        ("1m30s", 90),
        ("1.5s", 1.5),
        ("500000us", 0.5),
        ("20m", 600),
        ("1h", 600),
        ("0s", 300),
        ("0", 300),
        ("-5s", 300),
        ("", 300),
    ],
)
def test_wait_is_clamped_and_jittered_by_up_to_a_sixteenth(text: str, seconds: float) -> None:
    for _ in range(50):
        assert seconds <= kv._wait_s(text) <= seconds * 17 / 16


@pytest.mark.parametrize("text", ["x", "5", "5 s", "s", "1e3s", "５s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(kv.BadKvRequest, match="Invalid wait time"):
        kv._wait_s(text)
