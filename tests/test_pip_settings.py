"""What the pip inside of a build is told."""

import os
import sys
from pathlib import Path

import pytest

from k12ai.pip_settings import PipSettings, parsed, said_by_pip

MIRROR = "https://mirror.example/simple"


@pytest.fixture(name="environ")
def _environ() -> dict[str, str]:
    """An environment in which pip reads no file, whatever this machine has."""
    return {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}


def test_the_environment_wins_over_files_and_installing_over_everything_else() -> None:
    listing = (
        ":env:.index-url='https://third.example'\n"
        "global.index-url='https://first.example'\n"
        "global.retries='9'\n"
        "install.index-url='https://second.example'\n"
        "install.retries='7'\n"
    )
    assert parsed(listing) == {"index-url": "https://third.example", "retries": "7"}


def test_a_mirror_in_pips_file_is_the_builds_too(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {MIRROR}\ntimeout = 90\n")
    given = {**environ, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    assert said_by_pip(given)["index-url"] == MIRROR
    settings = PipSettings.found(given)
    assert {"PIP_INDEX_URL": MIRROR, "PIP_TIMEOUT": "90"}.items() <= settings.arguments.items()
    assert settings.private


def test_where_there_is_no_pip_the_environment_alone_counts(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python3")
    settings = PipSettings.found({**environ, "PIP_INDEX_URL": MIRROR})
    assert settings.arguments == {"PIP_INDEX_URL": MIRROR}


def test_indexes_on_this_machines_disk_are_left_out(environ: dict[str, str]) -> None:
    given = {
        **environ,
        "PIP_EXTRA_INDEX_URL": f"file:///srv/simple {MIRROR}",
        "PIP_FIND_LINKS": "/srv/wheels",
    }
    assert PipSettings.found(given).arguments == {"PIP_EXTRA_INDEX_URL": MIRROR}


def test_wheels_in_directories_of_this_machine_go_along(environ: dict[str, str], tmp_path: Path) -> None:
    wheel = "a-1-py3-none-any.whl"
    for place, name in (("one", wheel), ("two ü", wheel), ("one", "b.tar.gz")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / name).touch()
    places = f"{tmp_path}/one {(tmp_path / 'two ü').as_uri()} {tmp_path}/none {MIRROR}"
    settings = PipSettings.found({**environ, "PIP_FIND_LINKS": places})
    assert settings.wheels == [tmp_path / "one" / wheel]
    assert settings.arguments == {"PIP_FIND_LINKS": MIRROR}
    alone = PipSettings.found({**environ, "PIP_FIND_LINKS": (tmp_path / "two ü").as_uri()})
    assert [each.parent.name for each in alone.wheels] == ["two ü"]


def test_patience_and_proxies_are_handed_on_and_leave_nothing_to_hide(environ: dict[str, str]) -> None:
    given = {**environ, "PIP_DEFAULT_TIMEOUT": "180", "https_proxy": "http://proxy.example:3128"}
    settings = PipSettings.found(given)
    assert settings.arguments == {"PIP_TIMEOUT": "180", "https_proxy": "http://proxy.example:3128"}
    assert not settings.private


@pytest.mark.parametrize("name", ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_certificates_that_are_trusted_here_are_trusted_in_the_build(
    environ: dict[str, str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "school.pem").write_bytes(b"PEM")
    assert PipSettings.found({**environ, name: str(tmp_path / "school.pem")}).certificates == b"PEM"


def test_certificates_that_cannot_be_read_are_none(environ: dict[str, str]) -> None:
    assert PipSettings.found({**environ, "SSL_CERT_FILE": "/nonexistent.pem"}).certificates == b""
