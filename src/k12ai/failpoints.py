"""Places where a test can have the server killed, by name; without `K12AI_FAILPOINT` they do nothing.

A crash can come between any two steps. Here it comes exactly between those that matter, so that a test
can show what is found afterwards.
"""

import os
import signal

NAMES = ("after_intent", "before_create", "after_create", "before_start", "after_start", "before_end")
VARIABLE = "K12AI_FAILPOINT"

_CHOSEN = os.environ.get(VARIABLE, "")


def reach(name: str) -> None:
    """Kill this process, as `kill -9` does, where this is the place that was chosen."""
    if name == _CHOSEN:
        os.kill(os.getpid(), signal.SIGKILL)
