"""A program that tries what no task may do, and reports what it could do: nothing, one hopes.

It runs inside of a task, not in a test: its first argument is a JSON object that says where the
things are which it would like to have. Nothing that it does, where it can, does any harm: it opens and
looks, it signals with 0, it takes back what it has changed.

Each probe names the walls of which any one alone must hold it off. In a container all of them stand.
Where none of a probe's walls stands, as of processes without bubblewrap, what it can do is reported all
the same: the operator has to know.
"""

import ctypes
import json  # noqa: TID251 - the image of a task need not have more
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from k12ai import report

# bubblewrap; one that limits memory; an account for each student; cgroups; and an account that is not root's,
# be it the server's own.
SANDBOX, TMP_LIMIT, ACCOUNT, LIMITS, NOT_ROOT = "sandbox", "limit of /tmp", "account", "limits", "not root"
CONTAINER = "container"  # which holds off all of them
# What has to fail wherever a task runs.
ANYWHERE = (SANDBOX, TMP_LIMIT, ACCOUNT, LIMITS, NOT_ROOT, CONTAINER)

libc = ctypes.CDLL(None, use_errno=True)

PTRACE_ATTACH, PTRACE_DETACH, WALL = 16, 17, 0x40000000
MS_REMOUNT, MS_BIND, MNT_DETACH = 32, 4096, 2
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x00020000, 0x40000000
SYS_ADD_KEY, SYS_PERF_EVENT_OPEN, SYS_BPF = 248, 298, 321  # of x86_64
SYSLOG_READ_ALL, ADJ_FREQUENCY = 3, 2

WHERE = json.loads(sys.argv[1])
JOURNAL, PARAMS, PROJECT = os.environ["K12AI_JOURNAL"], os.environ["K12AI_PARAMS"], os.getcwd()
HERE = os.path.dirname(JOURNAL)
# It was told them backwards: what it was told is the first thing that it searches.
SECRETS = [secret[::-1].encode() for secret in WHERE["terces"]]

Probe = Callable[[], bool]
probes: list[tuple[Probe, tuple[str, ...]]] = []


def probe(*walls: str) -> Callable[[Probe], Probe]:
    def added(function: Probe) -> Probe:
        probes.append((function, (*walls, CONTAINER) if CONTAINER not in walls else walls))
        return function

    return added


def can(action: Callable[..., object], *arguments: Any) -> bool:
    try:
        action(*arguments)
    except OSError:
        return False
    return True


def can_open(path: str, flags: int = os.O_RDONLY) -> bool:
    """Say whether a file can be opened, and leave none behind that was not there before."""
    is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError:
        return False
    if is_new:
        can(os.unlink, path)
    return True


def can_connect(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as knock:
        knock.settimeout(1)
        return can(knock.connect, address)


def content(path: str) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def has_secret(path: str) -> bool:
    found = content(path)
    return any(secret in found for secret in SECRETS)


def in_a_child(action: Callable[[], bool]) -> bool:
    """Say whether something can be done that would change this process for good."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def targets() -> Iterator[int]:
    """Yield the processes of others; where their numbers are other processes' in here, not those."""
    for number, start in WHERE["processes"].items():
        fields = content(f"/proc/{number}/stat").rpartition(b")")[2].split()
        if not fields or int(fields[19]) == start:
            yield int(number)


# --- processes of the machine, before there are any of its own ------------------------------------


@probe(SANDBOX)
def processes_of_the_machine() -> bool:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} != {1, os.getpid()}


@probe(*ANYWHERE)
def files_that_were_left_open_for_it() -> bool:
    """The listing itself, its standard streams, its program and its journal; nothing else."""
    own = (JOURNAL, PROJECT, f"/proc/{os.getpid()}/fd", os.devnull)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the listing's own
            continue
        if not target.startswith((*own, "pipe:")):
            return True
    return False


@probe(SANDBOX, ACCOUNT)
def environments_of_others() -> bool:
    return any(content(f"/proc/{number}/environ") for number in targets())


@probe(SANDBOX, ACCOUNT)
def files_and_directories_that_others_have_open() -> bool:
    return any(names(f"/proc/{number}/{each}") for number in targets() for each in ("fd", "cwd", "root"))


@probe(SANDBOX, ACCOUNT)
def memory_of_others() -> bool:
    return any(can_open(f"/proc/{number}/mem", os.O_RDWR) for number in targets())


@probe(SANDBOX, ACCOUNT)
def trace_others() -> bool:
    return any(map(can_trace, targets()))


@probe(SANDBOX, ACCOUNT)
def signals_to_others() -> bool:
    return any(can(os.kill, number, 0) for number in targets())


@probe(SANDBOX, ACCOUNT)
def signals_to_what_stands_over_it() -> bool:
    # In a container it is init: of the same account, but deaf to what it has no handler for.
    return os.getppid() != 1 and can(os.kill, os.getppid(), 0)


def can_trace(number: int) -> bool:
    if libc.ptrace(PTRACE_ATTACH, number, None, None) != 0:
        return False
    os.waitpid(number, WALL)
    libc.ptrace(PTRACE_DETACH, number, None, None)
    return True


@probe(ACCOUNT)
def the_memory_of_the_first_process() -> bool:
    return can_open("/proc/1/mem", os.O_RDWR)


@probe(ACCOUNT)
def trace_the_first_process() -> bool:
    return can_trace(1)


# --- secrets ----------------------------------------------------------------------------------


@probe(*ANYWHERE)
def secrets_among_what_it_was_given() -> bool:
    given = os.path.dirname(PARAMS)
    files = {PARAMS, *(os.path.join(given, name) for name in names(given))}
    return any(map(has_secret, ("/proc/self/environ", "/proc/self/cmdline", *files)))


@probe(SANDBOX, ACCOUNT)
def secrets_of_all_processes_that_it_sees() -> bool:
    seen = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return any(has_secret(f"/proc/{name}/{each}") for name in seen for each in ("environ", "cmdline"))


@probe(NOT_ROOT)
def hashes_of_passwords() -> bool:
    return can_open("/etc/shadow")


# --- the machine ------------------------------------------------------------------------------


@probe(SANDBOX, ACCOUNT)
def the_engines_socket() -> bool:
    paths = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
    return any(can_connect(socket.AF_UNIX, path) for path in paths)


@probe(NOT_ROOT)
def mount_something() -> bool:
    os.makedirs("mount", exist_ok=True)
    if libc.mount(b"none", b"mount", b"tmpfs", 0, None) != 0:
        return False
    libc.umount2(b"mount", MNT_DETACH)
    return True


def can_make_writable(path: str) -> bool:
    is_read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return bool(is_read_only and libc.mount(None, path.encode(), None, MS_REMOUNT | MS_BIND, None) == 0)


@probe(NOT_ROOT)
def make_the_system_writable() -> bool:
    return any(map(can_make_writable, ("/", "/usr", "/etc")))


@probe(NOT_ROOT)
def unmount_the_parameters() -> bool:
    return bool(libc.umount2(PARAMS.encode(), MNT_DETACH) == 0)


@probe(NOT_ROOT)
def namespaces_of_the_machines_own() -> bool:
    return in_a_child(lambda: libc.unshare(CLONE_NEWNS) == 0) or in_a_child(
        lambda: libc.unshare(CLONE_NEWNET) == 0
    )


@probe(CONTAINER)
def a_user_namespace() -> bool:
    return in_a_child(lambda: libc.unshare(CLONE_NEWUSER) == 0)


@probe(SANDBOX, ACCOUNT)
def what_is_hidden_from_it_in_a_namespace_of_its_own() -> bool:
    return in_a_child(uncovered)


def uncovered() -> bool:
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return False
    above = WHERE["data_dir"]
    while above != "/":
        libc.umount2(above.encode(), MNT_DETACH)
        above = os.path.dirname(above)
    wanted = (WHERE["files"][0], f"{WHERE['victim_project']}/homework")
    can_write = can_make_writable("/usr") and can_open("/usr/x", os.O_WRONLY | os.O_CREAT)
    return can_write or any(has_secret(os.path.join(WHERE["data_dir"], name)) for name in wanted)


@probe(NOT_ROOT)
def change_the_root() -> bool:
    return in_a_child(lambda: libc.chroot(PROJECT.encode()) == 0)


@probe(NOT_ROOT)
def devices_of_its_own_making() -> bool:
    def made(path: str) -> bool:
        if not can(os.mknod, path, 0o600 | stat.S_IFCHR, os.makedev(1, 1)):
            return False
        os.unlink(path)
        return True

    return any(map(made, ("/tmp/mem", "mem", "/dev/shm/mem")))


@probe(SANDBOX, NOT_ROOT)
def disks_and_memory_of_the_machine() -> bool:
    prefixes = ("sd", "vd", "nvme", "dm-", "mapper", "mem", "kmem", "port", "loop", "kvm", "fuse")
    # Of these, everybody is given some; what counts is what is there.
    theirs = [name for name in names("/dev") if name.startswith(prefixes) and name not in ("kvm", "fuse")]
    return any(can_open(f"/dev/{name}") for name in theirs)


@probe(CONTAINER)
def messages_of_the_kernel() -> bool:
    text = ctypes.create_string_buffer(1 << 16)
    return libc.klogctl(SYSLOG_READ_ALL, text, len(text)) > 0 or can_open("/dev/kmsg")


@probe(SANDBOX, NOT_ROOT)
def words_in_the_kernels_messages() -> bool:
    return can_open("/dev/kmsg", os.O_WRONLY)


@probe(SANDBOX, NOT_ROOT)
def settings_of_the_kernel() -> bool:
    paths = (
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
    )
    return any(can_open(path, os.O_WRONLY) for path in paths)


@probe(SANDBOX, NOT_ROOT)
def control_groups() -> bool:
    # Not every file: of version 1, everybody may open some for writing.
    wanted = {"cgroup.procs", "tasks", "release_agent", "notify_on_release", "memory.max", "pids.max"}
    return any(
        can_open(os.path.join(root, name), os.O_WRONLY)
        for root, _, files in os.walk("/sys/fs/cgroup")
        for name in wanted.intersection(files)
    )


@probe(NOT_ROOT)
def the_name_and_the_clock_of_the_machine() -> bool:
    name, clock = socket.gethostname().encode(), ctypes.create_string_buffer(256)
    libc.adjtimex(clock)  # asks; then the same is set again
    ctypes.c_uint.from_buffer(clock).value = ADJ_FREQUENCY
    return bool(libc.sethostname(name, len(name)) == 0 or libc.adjtimex(clock) >= 0)


@probe(NOT_ROOT)
def restart_the_machine() -> bool:
    # Of all that this call can do, the harmless thing: what the three keys do.
    return bool(libc.reboot(0) == 0)


@probe(CONTAINER)
def rare_calls_of_the_kernel() -> bool:
    attributes = ctypes.create_string_buffer(128)
    return any(
        libc.syscall(*call) >= 0
        for call in (
            (SYS_ADD_KEY, b"user", b"k", b"v", 1, -3),
            (SYS_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0),
            (SYS_BPF, 0, attributes, 128),
        )
    )


# --- more rights ------------------------------------------------------------------------------


@probe(NOT_ROOT)
def another_account() -> bool:
    return any(
        in_a_child(lambda change=change: can(change, 0)) for change in (os.setuid, os.setgid, os.seteuid)
    )


@probe(NOT_ROOT)
def programs_that_become_root() -> bool:
    # They say who they are; no password is needed by who is root already.
    for command in (["su", "-c", "id -u"], ["sudo", "-n", "id", "-u"], ["pkexec", "--version"]):
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
            )
        except OSError:
            continue
        if done.stdout.strip() == b"0":
            return True
    return False


def of_itself() -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in content("/proc/self/status").decode().splitlines())


@probe(NOT_ROOT)
def capabilities_or_new_privileges() -> bool:
    status = of_itself()
    return status["NoNewPrivs"] != "1" or any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapAmb"))


@probe(ACCOUNT)
def capabilities_that_it_could_be_given() -> bool:
    return int(of_itself()["CapBnd"], 16) != 0


@probe(CONTAINER)
def all_calls_of_the_kernel() -> bool:
    return of_itself()["Seccomp"] != "2"


@probe(NOT_ROOT)
def higher_limits() -> bool:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    except (OSError, ValueError):
        return False
    return True


@probe(NOT_ROOT)
def precedence_over_others() -> bool:
    if can(os.nice, -5):
        os.nice(5)
        return True
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-1000")
    except OSError:
        return False
    return True


# --- the network ------------------------------------------------------------------------------


@probe(SANDBOX)
def the_server_of_the_platform() -> bool:
    addresses = ["127.0.0.1", "172.17.0.1", *WHERE["addresses"]]
    return any(can_connect(socket.AF_INET, (each, WHERE["port"])) for each in addresses)


@probe(SANDBOX)
def the_clouds_own_address() -> bool:
    return can_connect(socket.AF_INET, ("169.254.169.254", 80))


@probe(SANDBOX)
def a_way_out_of_the_machine() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:  # it only looks for a route
        return can(unsent.connect, ("192.0.2.1", 9))


@probe(SANDBOX)
def names_of_the_network() -> bool:
    return can(socket.getaddrinfo, "example.com", 80)


@probe(NOT_ROOT)
def raw_sockets() -> bool:
    return any(
        can(lambda family=family: socket.socket(family, socket.SOCK_RAW).close())
        for family in (socket.AF_INET, socket.AF_PACKET)
    )


@probe(SANDBOX)
def a_socket_without_a_file() -> bool:
    return can_connect(socket.AF_UNIX, "\0" + WHERE["abstract"])


# --- files ------------------------------------------------------------------------------------


@probe(SANDBOX, NOT_ROOT)
def files_of_the_system() -> bool:
    paths = ("/x", "/etc/x", "/etc/passwd", "/usr/x", "/usr/bin/x", "/var/x", "/k12ai/shim.py", "/k12ai/x")
    return any(can_open(path, os.O_WRONLY | os.O_CREAT) for path in paths)


@probe(SANDBOX, ACCOUNT)
def the_interpreter_that_others_run_as_well() -> bool:
    package = os.path.dirname(report.__file__)
    paths = (report.__file__, f"{package}/x.py", sys.executable, f"{os.path.dirname(sys.executable)}/x")
    return any(can_open(path, os.O_WRONLY | os.O_CREAT) for path in paths)


@probe(SANDBOX)
def files_that_others_have_in_tmp() -> bool:
    return any(os.path.exists(f"{place}/{WHERE['shared_name']}") for place in ("/tmp", "/var/tmp", "/dev/shm"))


@probe(TMP_LIMIT)
def more_memory_in_tmp_than_it_may_have() -> bool:
    return any(map(can_fill, ("/tmp", "/dev/shm", "/var/tmp", "/run", "/home", "/")))


def can_fill(place: str) -> bool:
    """Say whether a file can have a page more than the limit; of a file system in memory it has to be full."""
    path = f"{place}/big"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError:
        return False
    try:
        return can(os.posix_fallocate, descriptor, 0, WHERE["tmp_bytes"] + 4096)
    finally:
        os.unlink(path)
        os.close(descriptor)


@probe(SANDBOX)
def its_own_parameters() -> bool:
    changes: tuple[Callable[[], None], ...] = (
        lambda: os.chmod(PARAMS, 0o600),
        lambda: os.rename(PARAMS, PARAMS + "x"),
        lambda: os.truncate(PARAMS, os.path.getsize(PARAMS)),
    )
    return any(map(can, changes))


@probe(SANDBOX, ACCOUNT)
def another_file_in_the_journals_place() -> bool:
    with open("mine", "w"):
        pass
    aside = JOURNAL + "x"
    if can(os.rename, JOURNAL, aside):
        os.rename(aside, JOURNAL)
        return True
    changes: tuple[tuple[Callable[..., None], str, str], ...] = (
        (os.rename, JOURNAL, f"{HERE}/log/journal"),
        (os.rename, "mine", JOURNAL),
        (os.symlink, f"{WHERE['victim']}/journal", JOURNAL),
    )
    return any(can(*change) for change in changes)


@probe(SANDBOX, ACCOUNT)
def more_files_beside_the_journal() -> bool:
    places = (HERE, f"{HERE}/given", os.path.dirname(HERE), WHERE["data_dir"])
    return any(can_open(f"{place}/x", os.O_WRONLY | os.O_CREAT) for place in places)


@probe(SANDBOX, ACCOUNT)
def the_data_of_the_platform() -> bool:
    files = [os.path.join(WHERE["data_dir"], name) for name in WHERE["files"]]
    # Of the directories above its own, it finds what was made for its mounts and nothing else.
    seen = {*names(WHERE["data_dir"]), *names(f"{WHERE['data_dir']}/tasks")}
    own = {"tasks", "projects", os.path.basename(HERE)}
    return any(can_open(path, flags) for path in files for flags in (os.O_RDONLY, os.O_RDWR)) or not seen <= own


@probe(SANDBOX, ACCOUNT)
def names_of_other_students_and_their_projects() -> bool:
    projects = f"{WHERE['data_dir']}/projects"
    above = os.path.dirname(WHERE["victim_project"])
    return bool(names(above)) or not set(names(projects)) <= {os.environ["K12AI_USER"]}


@probe(SANDBOX, ACCOUNT)
def projects_and_tasks_of_other_students() -> bool:
    victim, project = WHERE["victim"], WHERE["victim_project"]
    files = (f"{victim}/journal", f"{victim}/given/params.json", f"{project}/homework")
    listed = any(map(names, (victim, f"{victim}/log", f"{victim}/given", project)))
    changed = any(can_open(path, os.O_WRONLY | os.O_CREAT) for path in (*files, f"{project}/x"))
    return listed or changed or any(map(can_open, files))


@probe(SANDBOX, ACCOUNT)
def a_link_to_what_is_another_students() -> bool:
    """In the project it can plant any link; what it leads to is inside."""
    os.symlink(f"{WHERE['victim_project']}/homework", "link")
    return can_open("link")


@probe(SANDBOX, ACCOUNT)
def a_second_name_for_what_is_another_students() -> bool:
    return can(os.link, f"{WHERE['victim_project']}/homework", "second")


@probe(SANDBOX)
def a_second_name_for_a_file_of_the_system() -> bool:
    """Which kernels refuse as well, where they are told to (``fs.protected_hardlinks``)."""
    if not can(os.link, "/etc/passwd", "passwd"):
        return False
    os.unlink("passwd")
    return True


# --- the last: for a moment there are as many processes as can be ---------------------------------


@probe(LIMITS, ACCOUNT)
def more_processes_than_it_may_have() -> bool:
    children = []
    try:
        for _ in range(WHERE["limit"] + 1):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except OSError:
        return False
    else:
        return True
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


done = [each.__name__ for each, _ in probes if each()]
found = {"walls": {each.__name__: walls for each, walls in probes}, "succeeded": done}
print(json.dumps(found), flush=True)
report.result(found)
