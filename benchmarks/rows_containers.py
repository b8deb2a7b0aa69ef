"""What a task in a container costs beside the Engine's own command line."""

import shutil
import subprocess
import time

from benchmarks.bench import Bench
from benchmarks.fleet import Skipped
from benchmarks.table import Row
from benchmarks.tasks import SAYS_WHEN, by_hand_s, said_at, submit, task_server
from k12ai.frameworks.py.framework import PyFramework
from k12ai.images import image_of

MOST = 1.2

STARTING = ("submit to the first line of a program in a container (peer: docker run of the same image)",)


def starting(bench: Bench) -> list[Row]:
    """The first line of a program comes at most a fifth later than with `docker run`, in turns."""
    image = image_of(PyFramework())
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "image", "inspect", image], capture_output=True).returncode:
        raise Skipped(f"the image {image} is not there (k12ai images build k12py), or no docker command")
    ours, theirs = [], []
    by_hand = [docker, "run", "--rm", "--network", "none", image, "python3", "-c", SAYS_WHEN]
    with task_server(bench, "--runtime", "docker") as (_, client):
        for number in range(bench.scale.task_rounds):
            began = time.time()
            ours.append(said_at(submit(client, f"p{number}", SAYS_WHEN)) - began)
            theirs.append(by_hand_s(by_hand))
    return [Row.of_rounds(STARTING[0], "s", ours, theirs, at_most=MOST)]
