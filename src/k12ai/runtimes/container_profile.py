"""The one builder of every container that runs a task: a fixed profile, in which a request can choose little.

No capability, no new privileges, a read-only root, an account that is not root, no network, caps on
memory, processes, processors and output; never the Engine's socket, never a path of a request's choice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k12ai.models import (
    LABEL_INSTANCE,
    LABEL_OP,
    LABEL_SERVICE_NAME,
    LABEL_SERVICE_UUID,
    LABEL_TASK_ID,
    LABEL_USER,
)
from k12ai.runtimes.accounts import Account
from k12ai.runtimes.base import Launch
from k12ai.runtimes.task_dirs import LOG_BYTES, SHM_BYTES, TMP_BYTES, TaskDir

MAX_OPEN_FILES = 4096
_INIT_DIR = "/k12ai"
_INIT_FILES = ("container_init.py", "container_watch.py", "segments.py")
# A module is compiled once; Python would keep the syntax tree of a script as long as it runs.
_BOOT = (
    "import sys; sys.path.append(sys.argv.pop(1)); import container_init; "
    "sys.exit(container_init.main(*sys.argv[1:]))"
)


def container_name(instance: str, task_id: str) -> str:
    """Return the name that only one container can have: so a task is started once, whoever tries again."""
    return f"k12ai-{instance}-{task_id}"


def profile(launch: Launch, directory: TaskDir, account: Account, instance: str) -> dict[str, Any]:
    """Return the body of the Engine's ``POST /containers/create``."""
    return {
        "Image": launch.image,
        "Entrypoint": ["python3", "-I", "-S", "-c", _BOOT, _INIT_DIR],
        "Cmd": [*_init_arguments(directory), "python3", *launch.arguments],
        "Env": [f"{name}={value}" for name, value in _environment(launch, directory).items()],
        "WorkingDir": str(launch.project_dir),
        "User": "{}:{}".format(*account),
        "Hostname": "task",
        "Labels": {
            LABEL_SERVICE_NAME: launch.framework,
            LABEL_OP: launch.op,
            LABEL_USER: launch.user,
            LABEL_SERVICE_UUID: launch.service_uuid,
            LABEL_TASK_ID: launch.task_id,
            LABEL_INSTANCE: instance,
        },
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "AutoRemove": False,  # the exit code must stay until it is on record
            "Binds": None,
            "Mounts": [*_mounts(launch, directory)],
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,size={TMP_BYTES},mode=1777"},  # noqa: S108 - the container's
            "ReadonlyRootfs": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "NetworkMode": "bridge" if launch.network else "none",
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "RestartPolicy": {"Name": "no"},
            "ShmSize": SHM_BYTES,
            "Ulimits": [
                {"Name": "nofile", "Soft": MAX_OPEN_FILES, "Hard": MAX_OPEN_FILES},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            # Only what the first process says of itself; a task's output does not come here.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "100k", "max-file": "1"}},
            **_limits(launch),
            "DeviceRequests": _devices(launch.gpus),
        },
    }


def _environment(launch: Launch, directory: TaskDir) -> dict[str, str]:
    # Inside, the devices that it was given are counted from 0. Who was given none shall find none, also
    # where the Engine's default is to give every container all of them.
    found = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(launch.gpus))))}
    if not launch.gpus:
        found["NVIDIA_VISIBLE_DEVICES"] = "void"
    return directory.environment(launch) | found


def _init_arguments(directory: TaskDir) -> tuple[str, str, str]:
    return str(directory.path), str(LOG_BYTES), str(directory.stop_file)


def _mounts(launch: Launch, directory: TaskDir) -> Sequence[dict[str, Any]]:
    here = Path(__file__).parent
    return [
        # Under the names that they have outside: what a program says of a file is true for everyone.
        *(_mount(path, str(path)) for path in (launch.project_dir, directory.journal, directory.log)),
        _mount(directory.given, str(directory.given), read_only=True),
        *(_mount(here / name, f"{_INIT_DIR}/{name}", read_only=True) for name in _INIT_FILES),
    ]


def _mount(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    # A mount, not a bind: a source that is missing is an error, not a new directory that root owns.
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _limits(launch: Launch) -> dict[str, int]:
    limits = launch.limits
    found: dict[str, int] = {}
    if limits.memory_bytes is not None:
        found |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    if limits.processes is not None:
        found["PidsLimit"] = limits.processes
    if limits.cpus is not None:
        found["NanoCpus"] = round(limits.cpus * 1e9)
    return found


def _devices(gpus: Sequence[int]) -> list[dict[str, Any]]:
    if not gpus:
        return []
    return [{"Driver": "", "DeviceIDs": [str(index) for index in gpus], "Capabilities": [["gpu"]]}]
