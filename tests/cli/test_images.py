"""``k12ai images``: what it prints, what it asks the Engine for, and what the images can do."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest

from k12ai._version import __version__
from k12ai.cli import images as view
from k12ai.cli.exits import CommandFailed
from k12ai.frameworks import installed
from k12ai.frameworks.base import RUNCODE, TRAIN
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.frameworks.nlp.framework import NlpFramework
from k12ai.frameworks.py.framework import PyFramework
from k12ai.image_context import Context
from k12ai.image_engine import ImageEngine, ImageFailed
from k12ai.images import DEFAULT_BASE, LABEL_CONTENT, image_of
from k12ai.tasks.registry import Registry
from tests.support.engine import IMAGE, EngineClient
from tests.support.image_engine import FakeImageEngine

PY, ML = image_of(PyFramework()), image_of(MlFramework())
CV, NLP = image_of(CvFramework()), image_of(NlpFramework())
BASE = "k12ai/base:debian"
NOWHERE = "unix:///nonexistent/docker.sock"


def k12ai(
    *arguments: str, address: str, lang: str = "C.UTF-8", environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    machine = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    own = {"LANG": lang, "COLUMNS": "100", "K12AI_DOCKER_HOST": address, "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "k12ai", "images", *arguments]
    return subprocess.run(
        command, env={**machine, **own, **(environ or {})}, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(name="fake")
def _fake() -> Iterator[FakeImageEngine]:
    with FakeImageEngine(DEFAULT_BASE) as fake:
        yield fake


# --- list ------------------------------------------------------------------------------------------


def test_list_says_which_images_are_there_and_which_are_made_from_something_else(fake: FakeImageEngine) -> None:
    fake.images[PY] = {LABEL_CONTENT: Context("").digest}
    shown = k12ai("list", address=fake.address)
    assert shown.returncode == 0, shown.stderr
    rows = {line.split()[0]: line for line in shown.stdout.splitlines() if line.strip()}
    assert PY in rows["k12py"]
    assert "ready" in rows["k12py"]
    assert "3.0 MiB" in rows["k12py"]
    assert "2025-11-24" in rows["k12py"]
    assert "missing" in rows["k12ml"]
    fake.images[PY] = {LABEL_CONTENT: "of yesterday"}
    assert "outdated" in k12ai("list", address=fake.address).stdout


def test_list_speaks_chinese_and_json(fake: FakeImageEngine) -> None:
    assert "未构建" in k12ai("list", address=fake.address, lang="zh_CN.UTF-8").stdout
    rows = msgspec.json.decode(k12ai("list", "--json", address=fake.address).stdout)
    missing = {"state": "missing", "size_bytes": None, "created_at": None}
    assert {"framework": "k12py", "image": PY, **missing} in rows


@pytest.mark.parametrize("command", ["list", "build"])
def test_no_engine_is_3_and_says_what_to_do_in_the_terminals_language(command: str) -> None:
    english = k12ai(command, address=NOWHERE)
    assert (english.returncode, english.stdout) == (3, "")
    assert "no Docker Engine answers at unix:///nonexistent/docker.sock" in english.stderr
    assert "--docker-host" in english.stderr
    assert "Traceback" not in english.stderr
    chinese = k12ai(command, address=NOWHERE, lang="zh_CN.UTF-8")
    assert "没有 Docker Engine 应答" in chinese.stderr


def test_an_address_that_cannot_be_one_is_wrong_usage() -> None:
    shown = k12ai("list", "--docker-host", "docker.sock", address=NOWHERE)
    assert shown.returncode == 2
    assert "docker_host" in shown.stderr


def test_without_aiodocker_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['aiodocker'] = None; sys.argv = ['k12ai', 'images', 'list']; "
        "from k12ai.cli.main import run; run()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert told.returncode == 2
    assert "pip install 'k12ai[docker]'" in told.stderr


# --- build -----------------------------------------------------------------------------------------


def test_build_builds_everything_and_says_what_the_engine_says(fake: FakeImageEngine) -> None:
    shown = k12ai("build", address=fake.address)
    assert shown.returncode == 0, shown.stderr
    assert [build["t"] for build in fake.builds] == [CV, ML, NLP, PY]
    for build, archive in zip(fake.builds, fake.archives, strict=True):
        assert msgspec.json.decode(build["buildargs"]) == {"BASE": DEFAULT_BASE}
        labels = msgspec.json.decode(build["labels"])
        assert labels["org.opencontainers.image.version"] == __version__
        extra = {"k12cv": "cv", "k12ml": "ml", "k12nlp": "nlp", "k12py": ""}[labels["k12ai.framework"]]
        assert labels[LABEL_CONTENT] == Context(extra).digest
        assert b"packages/k12ai/report.py" in archive
    assert "Step 1/1 : FROM ${BASE}" in shown.stdout
    assert f"{PY} is ready: 3.0 MiB" in shown.stdout
    assert "ready" in k12ai("list", address=fake.address).stdout


def test_build_takes_frameworks_and_a_base(fake: FakeImageEngine) -> None:
    fake.images["school/base"] = {}
    assert k12ai("build", "k12py", "k12py", "--base", "school/base", address=fake.address).returncode == 0
    (build,) = fake.builds
    assert (build["t"], msgspec.json.decode(build["buildargs"])) == (PY, {"BASE": "school/base"})


def test_what_a_build_replaces_is_removed(fake: FakeImageEngine) -> None:
    assert k12ai("build", "k12py", address=fake.address).returncode == 0
    assert fake.pruned == ["k12ai.framework=k12py"]


def test_a_mirror_is_handed_to_the_build_and_the_stage_that_knew_it_is_removed(fake: FakeImageEngine) -> None:
    secret = "https://me:pa55word@mirror.example/simple"
    shown = k12ai("build", "k12py", address=fake.address, environ={"PIP_INDEX_URL": secret})
    assert shown.returncode == 0, shown.stderr
    assert msgspec.json.decode(fake.builds[0]["buildargs"])["PIP_INDEX_URL"] == secret
    assert b"pa55word" not in fake.archives[0]
    assert "k12ai.stage=libraries" in fake.pruned
    assert "pa55word" not in shown.stdout + shown.stderr


def test_the_stage_that_knew_the_mirror_is_removed_also_when_the_build_fails(fake: FakeImageEngine) -> None:
    fake.answer = [{"error": "no"}]
    environ = {"PIP_INDEX_URL": "https://mirror.example/simple"}
    assert k12ai("build", "k12py", address=fake.address, environ=environ).returncode == 1
    assert fake.pruned == ["k12ai.stage=libraries"]


def test_a_build_that_fails_is_1_with_the_engines_words_and_what_to_do(fake: FakeImageEngine) -> None:
    refused = "The command '/bin/sh -c pip' returned a non-zero code: 1"
    said = [{"stream": "\x1b[91mERROR: no matching distribution\x1b[0m\x1b[2J\n"}]
    fake.answer = [*said, {"errorDetail": {"code": 1, "message": refused}, "error": refused}]
    shown = k12ai("build", address=fake.address)
    assert shown.returncode == 1
    assert "\nERROR: no matching distribution" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert refused in shown.stderr
    assert "--base" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert len(fake.builds) == 1
    assert "--base 可指定其他基础镜像" in k12ai("build", address=fake.address, lang="zh_CN.UTF-8").stderr


def test_a_base_that_cannot_be_had_is_1_and_base_is_named_as_the_way_out(fake: FakeImageEngine) -> None:
    shown = k12ai("build", "--base", "school/missing", address=fake.address)
    assert shown.returncode == 1
    assert "pull access denied for school/missing" in shown.stderr
    assert "--base names another image" in shown.stderr
    assert "docker/debian-base" in shown.stderr
    assert fake.builds == []


def test_an_unknown_framework_is_wrong_usage_and_names_those_there_are(fake: FakeImageEngine) -> None:
    shown = k12ai("build", "k12xy", address=fake.address)
    assert shown.returncode == 2
    assert "k12xy: one of k12cv, k12ml, k12nlp, k12py" in shown.stderr
    assert fake.builds == []


class _Entry:
    """An entry point of another package."""

    name = "myschool"
    dist = None

    def load(self) -> type[PyFramework]:
        return type("Other", (PyFramework,), {"name": "myschool", "image": "myschool/lab:3"})


class _Broken(_Entry):
    name = "broken"

    def load(self) -> type[PyFramework]:
        raise ImportError("no such library")


def test_the_image_of_another_packages_framework_is_its_own_affair(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "entry_points", lambda group: [_Entry(), _Broken()])
    with pytest.raises(CommandFailed, match="has to make myschool/lab:3 itself") as failed:
        view.build(["myschool"], DEFAULT_BASE, NOWHERE)
    assert failed.value.exit_code == 2
    assert "no such library" in capsys.readouterr().err


# --- the images ------------------------------------------------------------------------------------


class Task:
    """A project's directory with what a task finds in its environment."""

    def __init__(self, directory: Path, framework: str, op: str, params: dict[str, Any]) -> None:
        self.directory = directory / "project"
        self.directory.mkdir()
        self.user = 200_001 if os.geteuid() == 0 else os.geteuid()
        self._journal = self.directory / ".journal"
        self._journal.touch()
        checked = Registry([PyFramework(), MlFramework()]).check(framework, op, params)
        (self.directory / ".params").write_bytes(msgspec.json.encode(checked))
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.iterdir()):
                os.chown(path, self.user, self.user)
        self.environ = {
            "K12AI_PARAMS": str(self.directory / ".params"),
            "K12AI_JOURNAL": str(self._journal),
            "K12AI_OP": op,
            "K12AI_USER": "alice",
            "K12AI_UUID": "demo",
            "K12AI_TASK_ID": "123456789012",
        }

    def run(self, engine: EngineClient, image: str, *command: str) -> tuple[int, str]:
        return engine.run_confined(
            image, "python3", *command, directory=self.directory, user=self.user, environ=self.environ
        )

    @property
    def result(self) -> dict[str, Any]:
        *_, last = (msgspec.json.decode(line) for line in self._journal.read_bytes().splitlines())
        assert last["type"] == "result", last
        found: dict[str, Any] = last["data"]
        return found


# Every module that it has loaded was compiled beforehand; where it may write, and what it can reach.
INSPECTION = """
import os, sys
from k12ai import report
import k12ai.frameworks.py, asyncio, decimal, sqlite3
modules = [each for each in list(sys.modules.values()) if getattr(each, "__cached__", None) and each.__file__]
uncompiled = [each.__name__ for each in modules if not os.path.exists(each.__cached__)]
def writable(path):
    try: open(path, "w").close()
    except OSError: return False
    return True
report.result(
    uncompiled=[name for name in uncompiled if name != "__main__"],
    executable=sys.executable,
    writable=[path for path in ("/x", "/opt/k12ai/x", "/tmp/x", "x") if writable(path)],
    user=os.getuid(),
)
"""


def assert_runs_tasks(engine: EngineClient, image: str, directory: Path) -> None:
    task = Task(directory, "k12py", RUNCODE, {"code": INSPECTION})
    assert task.run(engine, image, "-I", "-S", "-c", "1") == (0, "")
    code, printed = task.run(engine, image, *PyFramework().command(RUNCODE))
    assert (code, printed) == (0, "")
    assert task.result == {
        "uncompiled": [],
        "executable": "/opt/k12ai/bin/python3",
        "writable": ["/tmp/x", "x"],
        "user": task.user,
    }


@pytest.mark.docker
def test_a_program_runs_in_its_image_as_tasks_are_run(
    engine: EngineClient, task_images: dict[str, str], tmp_path: Path
) -> None:
    assert_runs_tasks(engine, task_images["k12py"], tmp_path)


@pytest.mark.docker
def test_a_model_is_trained_in_its_image_as_tasks_are_run(
    engine: EngineClient,
    task_images: dict[str, str],
    tmp_path: Path,
    absent: Callable[[str, str], NoReturn],
) -> None:
    if "k12ml" not in task_images:
        absent("images", f"no {ML}; make it with: k12ai images build k12ml")
    task = Task(tmp_path, "k12ml", TRAIN, {"data": {"dataset": "iris"}})
    code, printed = task.run(engine, task_images["k12ml"], *MlFramework().command(TRAIN))
    assert code == 0, printed
    assert task.result["accuracy"] > 0.8
    assert list((task.directory / "models").iterdir())


@pytest.mark.docker
def test_the_images_say_what_they_are_and_nothing_of_where_they_came_from(
    engine: EngineClient, task_images: dict[str, str]
) -> None:
    for name, image in task_images.items():
        config = engine.inspect_image(image)["Config"]
        assert config["Labels"]["k12ai.framework"] == name
        assert config["Labels"]["org.opencontainers.image.version"] == __version__
        assert not config.get("Entrypoint")
        names = [each.partition("=")[0] for each in config["Env"]]
        assert not [each for each in names if each.startswith("PIP_") or each.lower().endswith("_proxy")]
        history = engine.history(image)
        assert "PIP_" not in history
        assert "certificates" not in history


@pytest.fixture(name="base")
def _base(engine: EngineClient, absent: Callable[[str, str], NoReturn]) -> str:
    """An image to build on that is there already, so that a build asks nobody."""
    if not engine.has_image(BASE):
        absent("images", f"no {BASE}; make it with: docker/debian-base")
    return BASE


@pytest.fixture(name="own_image")
def _own_image(engine: EngineClient) -> Iterator[str]:
    """The name of an image of the test's own."""
    name = f"k12ai-test/py:{uuid.uuid4().hex[:12]}"
    yield name
    engine.remove_all()  # what runs in it keeps it
    engine.remove_image(name)


@pytest.mark.docker
async def test_what_is_built_runs_tasks(
    engine: EngineClient, base: str, own_image: str, docker_host: str, tmp_path: Path
) -> None:
    context = Context("")
    async with ImageEngine(docker_host) as images:
        with context.archive() as archive:
            said = [line async for line in images.build(own_image, archive, {"BASE": base}, {"a": "b"})]
        assert any("COPY packages" in line for line in said)
        built = await images.find(own_image)
        assert built is not None
        assert built.labels == {"a": "b"}
        assert await images.find("k12ai-test/nobody") is None
    assert_runs_tasks(engine, own_image, tmp_path)


@pytest.mark.docker
async def test_a_base_without_python_fails_the_build(engine: EngineClient, docker_host: str) -> None:
    async with ImageEngine(docker_host) as images:
        with Context("").archive() as archive, pytest.raises(ImageFailed, match="non-zero code"):
            async for _line in images.build("k12ai-test/py:never", archive, {"BASE": IMAGE}, {}):
                pass
    assert not engine.has_image("k12ai-test/py:never")
