"""Fixtures: what a test needs is started for it, and taken away after it."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from k12ai import app
from k12ai.api.application import Routes, Walls, application
from k12ai.api.wire import HttpApp
from k12ai.closing import Closing
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.frameworks.nlp.framework import NlpFramework
from k12ai.frameworks.py.framework import PyFramework
from k12ai.images import image_of
from k12ai.settings import Settings
from tests.support.containers import Outsider
from tests.support.engine import DOCKER_HOST, EngineClient, OwnDockerd
from tests.support.nvml import COMPILERS, StandinNvml, compile_standin
from tests.support.school import School
from tests.support.server import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=["compiler", "consul", "docker", "english", "faketime", "images", "torch-images"],
        help="fail, not skip, where this is absent",
    )


def pytest_configure() -> None:
    """Let the programs of the tests hear Ctrl-C, which is ignored by what a shell runs in the background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the long runs did, one line each, before the runner's own summary."""
    rows = [
        (report.nodeid.split("::")[-1], ", ".join(f"{name}: {value}" for name, value in report.user_properties))
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        if report.when == "call" and report.user_properties
    ]
    if rows:
        terminalreporter.section("what the long runs did")
    for name, did in rows:
        terminalreporter.line(f"{name}: {did}")


@pytest.fixture(name="clean_environ", autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own settings, server and proxy out of the tests."""
    for name in list(os.environ):
        if name.startswith("K12AI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))


def _absent(request: pytest.FixtureRequest, what: str, reason: str) -> NoReturn:
    if what in request.config.getoption("--require"):
        pytest.fail(f"{what} is required: {reason}")
    pytest.skip(f"no {what}: {reason}")


@pytest.fixture(name="absent")
def _absent_fixture(request: pytest.FixtureRequest) -> Callable[[str, str], NoReturn]:
    """Skip the test because something is absent, or fail it where that was required."""
    return lambda what, reason: _absent(request, what, reason)


@pytest.fixture(name="docker_host", scope="session")
def _docker_host(request: pytest.FixtureRequest) -> str:
    """The address of an Engine that answers and has the test image."""
    if not DOCKER_HOST.startswith("unix://"):
        _absent(request, "docker", f"the tests use an Engine on a socket, not {DOCKER_HOST}")
    if shutil.which("busybox") is None:
        _absent(request, "docker", "the test image is made of busybox-static, which is not installed")
    client = EngineClient(DOCKER_HOST)
    try:
        if not client.answers():
            _absent(request, "docker", f"no Engine answers at {DOCKER_HOST}")
        client.import_image()
    finally:
        client.close()
    return DOCKER_HOST


@pytest.fixture(name="engine")
def _engine(docker_host: str) -> Iterator[EngineClient]:
    """A client of the Engine; the containers it starts are removed after the test."""
    client = EngineClient(docker_host)
    yield client
    client.remove_all()
    client.close()


@pytest.fixture(name="task_images", scope="session")
def _task_images(request: pytest.FixtureRequest, docker_host: str) -> dict[str, str]:
    """The images of this version that the Engine has, by their framework; ``k12py`` is one of them."""
    client = EngineClient(docker_host)
    frameworks = (PyFramework(), MlFramework(), CvFramework(), NlpFramework())
    wanted = {each.name: image_of(each) for each in frameworks}
    found = {name: image for name, image in wanted.items() if client.has_image(image)}
    client.close()
    required = request.config.getoption("--require")
    for option, names in (
        ("images", (MlFramework.name, PyFramework.name)),
        ("torch-images", (CvFramework.name, NlpFramework.name)),
    ):
        needed = [name for name in names if option in required or name == PyFramework.name]
        if missing := [name for name in needed if name not in found]:
            wants = f"no {wanted[missing[0]]}; make it with: k12ai images build {' '.join(missing)}"
            _absent(request, option, wants)
    return found


@pytest.fixture(name="own_dockerd")
def _own_dockerd(request: pytest.FixtureRequest, docker_host: str) -> Iterator[Callable[..., OwnDockerd]]:
    """Start Engines of the test's own, which it may kill."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        _absent(request, "docker", "an Engine to kill needs dockerd and root")
    started: list[OwnDockerd] = []

    def start(*, live_restore: bool) -> OwnDockerd:
        # The path of containerd's socket below it may have 108 bytes; a test's own directory is longer.
        dockerd = OwnDockerd(Path(tempfile.mkdtemp(prefix="k12ai-")), live_restore=live_restore)
        started.append(dockerd)
        dockerd.start()
        client = EngineClient(dockerd.address)
        client.import_image()
        client.close()
        return dockerd

    yield start
    for dockerd in started:
        dockerd.stop()


@pytest.fixture(name="nvml_library", scope="session")
def _nvml_library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for the NVIDIA driver's library, compiled."""
    library = compile_standin(tmp_path_factory.mktemp("nvml"))
    if library is None:
        _absent(request, "compiler", f"the stand-in for the NVIDIA driver needs one of {', '.join(COMPILERS)}")
    return library


@pytest.fixture(name="nvml")
def _nvml(nvml_library: Path, tmp_path: Path) -> StandinNvml:
    """A stand-in for the NVIDIA driver with a scenario of the test's own."""
    return StandinNvml(nvml_library, tmp_path / "nvml.scenario")


@pytest.fixture(name="start_server")
def _start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers; each is stopped after the test. The same ``name`` finds the same data again."""
    started: list[Server] = []

    def start(*options: str, name: str = "data", **more: Any) -> Server:
        server = Server(tmp_path / name, *options, **more).__enter__()
        started.append(server)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture(name="server", scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for every test that neither stops it nor changes its settings."""
    with Server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture(name="school", scope="session")
def _school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    """One server with tokens, for every test that neither stops it nor changes who is in which class."""
    # Many tests are one person in one moment.
    limits = ("--token-requests-per-s", "1000", "--max-tasks", "4")
    with Server(tmp_path_factory.mktemp("school") / "data", *limits) as server:
        yield School(server)


@pytest.fixture(name="outsider")
def _outsider(docker_host: str, task_images: object) -> Iterator[Outsider]:
    """Somebody with the socket of the Engine that has the images; what they start goes with the test."""
    outsider = Outsider(docker_host)
    yield outsider
    outsider.remove_all()
    outsider.close()


@pytest.fixture(name="data_dir")
def _data_dir(tmp_path: Path, outsider: Outsider) -> Iterator[Path]:
    """The directory of an installation, none of whose containers outlives the test."""
    data_dir = tmp_path / "data"
    yield data_dir
    outsider.remove_instance(data_dir)


@pytest.fixture(name="serve")
def _serve(data_dir: Path, docker_host: str, start_server: Callable[..., Server]) -> Callable[..., Server]:
    """Start the server whose tasks are containers; the next one finds what the last one left."""

    def serve(*options: str, **more: Any) -> Server:
        return start_server("--runtime", "docker", "--docker-host", docker_host, *options, name="data", **more)

    return serve


@pytest.fixture(name="routes")
async def _routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Routes:
    """What a server serves, as the composition root has it."""
    found: list[Routes] = []

    def listen_in(walls: Walls, routes: Routes) -> HttpApp:
        found.append(routes)
        return application(walls, routes)

    monkeypatch.setattr(app, "application", listen_in)
    settings = Settings(data_dir=str(tmp_path / "data"), docker_host="unix:///nonexistent/docker.sock")
    async with app.opened(settings, Closing()):
        pass
    return found[0]


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Any]:
    """Ask again until the answer is true, and return it; fail after the deadline."""

    def ask(question: Callable[[], Any], *, within_s: float = 10.0) -> Any:
        deadline = time.monotonic() + within_s
        while not (answer := question()):
            assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
            time.sleep(0.05)
        return answer

    return ask
