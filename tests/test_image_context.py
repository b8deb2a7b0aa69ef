"""What a task image is built from."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import IO

import pytest

from k12ai._version import __version__
from k12ai.image_context import Context, dockerfile, package_files, requirements

ROOT = Path(__file__).parents[1]


def files_of(archive: IO[bytes]) -> dict[str, bytes]:
    with archive, tarfile.open(fileobj=archive) as tar:
        return {
            entry.name: tar.extractfile(entry).read()  # type: ignore[union-attr]
            for entry in tar.getmembers()
            if entry.isfile()
        }


def test_the_archive_has_the_package_and_the_dockerfile() -> None:
    files = files_of(Context("ml").archive())
    assert files["Dockerfile"] == (ROOT / "docker" / "task.Dockerfile").read_bytes()
    for name in ("report.py", "frameworks/py/runner.py", "frameworks/ml/ops.py", "explain/__init__.py"):
        assert files[f"packages/k12ai/{name}"] == (ROOT / "src" / "k12ai" / name).read_bytes()
    assert f"packages/k12ai-{__version__}.dist-info/METADATA" in files


def test_the_archive_has_nothing_that_does_not_belong_in_an_image() -> None:
    names = list(files_of(Context("ml").archive()))
    top = {name.split("/")[0] for name in names}
    assert top == {"Dockerfile", "requirements.txt", "certificates.pem", "packages"}
    for name in names:
        assert "__pycache__" not in name
        assert not name.endswith(".pyc")
        assert "tests" not in name.split("/")
        assert "k12ai/docker/" not in name


def test_the_same_package_makes_the_same_bytes() -> None:
    with Context("ml").archive() as first, Context("ml").archive() as again:
        assert first.read() == again.read()
    with Context("ml").archive() as archive, tarfile.open(fileobj=archive) as tar:
        for entry in tar.getmembers():
            assert (entry.mtime, entry.uid, entry.gid, entry.uname) == (0, 0, 0, "")
            assert entry.mode == (0o755 if entry.isdir() else 0o644)


def test_the_digest_tells_contents_apart_and_not_certificates() -> None:
    assert Context("ml").digest != Context("").digest
    context = Context("ml")
    before = context.digest
    assert files_of(context.archive(b"PEM"))["certificates.pem"] == b"PEM"
    assert context.digest == before


def test_wheels_of_this_machine_go_along_by_their_names_alone(tmp_path: Path) -> None:
    (tmp_path / "torch-2-py3-none-any.whl").write_bytes(b"PK")
    context = Context("cv")
    before = context.digest
    assert files_of(context.archive(wheels=tmp_path.iterdir()))["wheels/torch-2-py3-none-any.whl"] == b"PK"
    assert context.digest == before


def test_files_that_editors_and_python_leave_behind_are_not_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "k12ai"
    for name in ("a.py", "b/c.py", "__pycache__/a.pyc", "b/.c.py.swp", ".cache/x", "docker/task.Dockerfile"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(b"")
    monkeypatch.setattr("k12ai.image_context._package", lambda: package)
    assert [name.as_posix() for name, _content in package_files()] == ["k12ai/a.py", "k12ai/b/c.py"]


@pytest.mark.parametrize("extra", ["ml", "cv", "nlp"])
def test_requirements_are_those_of_the_extra(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split("[<>=]", each)[0] for each in project["optional-dependencies"][extra]}
    assert {re.split("[<>=]", each)[0] for each in requirements(extra)} == wanted


def test_requirements_of_nothing_are_none() -> None:
    assert requirements("") == []
    assert requirements("unknown") == []


def test_a_condition_besides_the_extra_is_left_to_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        "httpx>=1",
        "one>=1; extra == 'x'",
        "two; (sys_platform != 'win32' and implementation_name == 'cpython') and extra == 'x'",
        'three<2,>=1 ; python_version < "3.12" and extra == "x"',
        "four; extra == 'xx'",
    ]
    monkeypatch.setattr("k12ai.image_context.requires", lambda _package: rows)
    assert requirements("x") == [
        "one>=1",
        "two; (sys_platform != 'win32' and implementation_name == 'cpython')",
        'three<2,>=1; python_version < "3.12"',
    ]


def test_what_k12py_needs_is_the_package_alone() -> None:
    assert files_of(Context("").archive())["requirements.txt"] == b""


@pytest.mark.slow
def test_an_installed_wheel_makes_the_same_archive_as_the_checkout(tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(pip, check=True, timeout=300)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r}); from k12ai import image_context as c; "
        "print(c.dockerfile(), c.Context('ml').digest)"
    )
    printed = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert printed.split() == [str(site / "k12ai" / "docker" / "task.Dockerfile"), Context("ml").digest]
    assert dockerfile().parents[1] == ROOT
