"""Where settings come from, and which are refused."""

from pathlib import Path

import pytest

from k12ai.settings import Settings, SettingsError


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    path = tmp_path / "k12ai.toml"
    path.write_text('port = 1001\nlog_level = "debug"\nallowed_hosts = ["a.test"]\n')
    return path


def test_command_line_then_environment_then_file_then_default(file: Path) -> None:
    environ = {"K12AI_PORT": "1002"}
    assert Settings.load({"port": 1003}, environ, file).port == 1003
    assert Settings.load({"port": None}, environ, file).port == 1002
    assert Settings.load({}, {}, file).port == 1001
    assert Settings.load({}, {"K12AI_CONFIG": str(file)}).port == 1001
    assert Settings.load({}, {}, file).log_level == "debug"
    assert Settings.load({}, {}).port == 8119


def test_lists_are_separated_by_commas_in_the_environment() -> None:
    assert Settings.load({}, {"K12AI_ALLOWED_HOSTS": "a.test, b.test"}).allowed_hosts == ("a.test", "b.test")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.load({}, {"K12AI_PORT": ""}).port == 8119


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "x"),
        ("port", "-1"),
        ("runtime", "kubernetes"),
        ("sample_interval_s", "0"),
        ("log_level", "LOUD"),
        ("result_retention_s", "0"),
        ("result_retention_s", "99999999999"),
        ("docker_host", "foo"),
        ("docker_host", "ssh://somewhere"),
        ("allowed_hosts", "lab.example:8119"),
        ("allowed_origins", "lab.example"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_in_both_languages(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load({}, {f"K12AI_{name.upper()}": value})
    for text in refused.value.detail:
        assert text.startswith(name)
        assert repr(value) in text


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "k12ai.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(SettingsError, match="unknown setting 'prot'"):
        Settings.load({}, {}, file)


@pytest.mark.parametrize("content", [b"port =", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "k12ai.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"k12ai\.toml"):
        Settings.load({}, {}, file)
    with pytest.raises(SettingsError, match="no such file"):
        Settings.load({}, {}, tmp_path / "none.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_addresses_are_fine(host: str) -> None:
    assert Settings.load({"host": host}, {}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org", "127.0.0.1.evil.test"])
def test_every_other_address_is_refused_wherever_it_is_set(host: str) -> None:
    with pytest.raises(SettingsError, match="refusing to listen"):
        Settings.load({"host": host}, {})
    if host:
        with pytest.raises(SettingsError, match="refusing to listen"):
            Settings.load({}, {"K12AI_HOST": host})
