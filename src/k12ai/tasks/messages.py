"""What is said of a task, in the published envelope."""

import datetime
from typing import Any

import msgspec

from k12ai.explain import explain_end
from k12ai.models import ENVELOPE_VERSION
from k12ai.task import MessageType, Task
from k12ai.tasks.journal import Line

encode = msgspec.json.Encoder().encode


def message(task: Task, kind: MessageType, body: Any) -> tuple[str, bytes]:
    """Return the key and the value of a message about a task: the envelope, with the body under its type."""
    now = datetime.datetime.now().astimezone()
    value = {
        "version": ENVELOPE_VERSION,
        "type": kind,
        "tag": "framework",
        "user": task.user,
        "service_uuid": task.service_uuid,
        "op": task.op,
        "task_id": task.task_id,
        "timestamp": int(now.timestamp() * 1000),
        "datetime": now.strftime("%Y-%m-%d %H:%M:%S"),
        kind: body,
    }
    return f"{task.key}/{kind}", encode(value)


def status(task: Task) -> tuple[str, bytes]:
    """Return the message that tells a task's state."""
    body: dict[str, Any] = {"value": task.state, "reason": task.reason}
    if task.state == "running":
        body |= {"container_id": task.container_id, "gpus": task.gpus}
    if task.ended:
        body |= {
            "code": task.code,
            "exit_code": task.exit_code,
            "signal": task.signal,
            "oom_kills": task.oom_kills,
            "killed": task.killed,
            "survivors": task.survivors,
            "gpu_memory_left_bytes": task.gpu_memory_left_bytes,
            "stopped_by": task.stopped_by,
        }
    return message(task, "status", body)


def of_line(task: Task, line: Line) -> tuple[str, bytes]:
    """Return the message that a line of the journal becomes; progress and words are part of the state's."""
    match line.type:
        case "progress":
            return message(task, "status", {"value": task.state, "reason": task.reason, "progress": line.data})
        case "status":
            text = line.data.get("text")
            return message(task, "status", {"value": task.state, "reason": task.reason, "text": text})
        case _:
            return message(task, line.type, line.data)


def unreadable_lines(task: Task, count: int) -> tuple[str, bytes]:
    """Return the message that says that lines of the journal were left out."""
    return message(
        task,
        "error",
        {
            "code": 999999,
            "en": f"{count} lines of what the program reported cannot be read",
            "zh": f"程序上报的内容中有 {count} 行无法读取",
        },
    )


def ended_badly(task: Task) -> tuple[str, bytes]:
    """Return the error message of a task whose program did not say itself what was wrong."""
    found = explain_end(task.reason or "exited", task.exit_code, task.signal, oom=task.oom_kills > 0)
    return message(task, "error", found.as_dict() | ({"detail": task.detail} if task.detail else {}))
