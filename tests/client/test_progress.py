"""What is drawn of a task while it works."""

import io
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from k12ai.client.progress import show_progress
from k12ai.task import Message, MessageType, Task

EVIL = "\x1b[2J\x1b]0;owned\x07[red]\x9b31m"
# What the display itself needs: colours, and a way back to the beginning of its line.
OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK])")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("status", {"value": "running", "text": EVIL}),
        ("status", {"value": EVIL}),
        ("status", {"value": "running", "progress": {"done": 1, "total": 2, "phase": EVIL}}),
        ("metrics", {EVIL: 0.5}),
    ],
)
def test_nothing_that_a_task_says_is_obeyed_by_the_terminal(kind: MessageType, body: dict[str, Any]) -> None:
    task = Task(
        task_id="0123456789ab",
        user="alice",
        service_uuid="p1",
        framework="k12py",
        op="runcode.start",
        key="framework/alice/p1/runcode.start",
        state="running",
        created_at=datetime.now(UTC),
    )
    said = Message(task_id=task.task_id, type=kind, sequence=1, timestamp=0, body=body)
    drawn = io.StringIO()
    list(show_progress(task, [said], Console(file=drawn, force_terminal=True, width=200)))
    assert "[red]" in drawn.getvalue()
    assert all(character.isprintable() or character in "\r\n" for character in OWN.sub("", drawn.getvalue())), (
        ascii(drawn.getvalue())
    )
