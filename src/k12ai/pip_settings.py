"""Where pip downloads from on this machine, for the pip inside of an image's build.

A school's mirror or its proxy is set up once, in pip's files or in the environment, and a build goes the
same way. The build cannot see this machine's disk: wheels in directories there are taken along, indexes are
left out.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec import Struct

_DEADLINE_S = 60
# pip's options, and the variable that each is handed on by.
_PLACES = {
    "index-url": "PIP_INDEX_URL",
    "extra-index-url": "PIP_EXTRA_INDEX_URL",
    "find-links": "PIP_FIND_LINKS",
}
_WAYS = {"no-index": "PIP_NO_INDEX", "trusted-host": "PIP_TRUSTED_HOST", "proxy": "PIP_PROXY"}
_PATIENCE = {"timeout": "PIP_TIMEOUT", "default-timeout": "PIP_TIMEOUT", "retries": "PIP_RETRIES"}
# The Engine knows these, and keeps them out of what it records of a build.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# As pip looks for them, and then what it is built upon.
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# Which of pip's sections wins: what is said for installing, and then the environment.
_SECTIONS = ("global", "install", ":env:")


class PipSettings(Struct, frozen=True):
    """What a build is told: arguments by name, certificates (PEM) to trust, and wheels to look among."""

    arguments: Mapping[str, str]
    certificates: bytes = b""
    wheels: Sequence[Path] = ()

    @property
    def private(self) -> bool:
        """Whether an argument names a place or a way there, which may have a password in it."""
        return not {*_PLACES.values(), *_WAYS.values()}.isdisjoint(self.arguments)

    @classmethod
    def found(cls, environ: Mapping[str, str]) -> "PipSettings":
        """Ask the pip that belongs to this Python; without one, the environment alone counts."""
        said = said_by_pip(environ) or _said_by(environ)
        proxies = [name for each in _PROXIES for name in (each, each.upper())]
        arguments = {name: environ[name] for name in proxies if environ.get(name)}
        for option, name in (_PLACES | _WAYS | _PATIENCE).items():
            value = _reachable(said[option]) if option in _PLACES and option in said else said.get(option)
            if value:
                arguments[name] = value
        return cls(arguments, _certificates(said, environ), list(_wheels(said.get("find-links", ""))))


def said_by_pip(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options from its files and the environment; empty where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        answer = subprocess.run(  # noqa: S603 - nothing in it is anybody's choice
            command, env=dict(environ), capture_output=True, text=True, timeout=_DEADLINE_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return parsed(answer)


def parsed(listing: str) -> dict[str, str]:
    """Read what ``pip config list`` prints: lines like ``global.index-url='https://…'``."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listing.splitlines()]
    for section in _SECTIONS:
        for key, _, value in lines:
            of, _, option = key.partition(".")
            if of == section:
                found[option] = _text(value)
    return found


def _text(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):
        return value


def _said_by(environ: Mapping[str, str]) -> dict[str, str]:
    named = {name: value for name, value in environ.items() if name.startswith("PIP_") and value}
    return {name.removeprefix("PIP_").lower().replace("_", "-"): value for name, value in named.items()}


def _reachable(places: str) -> str:
    return " ".join(each for each in places.split() if each.startswith(("http://", "https://")))


def _wheels(places: str) -> Iterator[Path]:
    """Yield the wheels in places that are directories of this machine, each name once."""
    seen: set[str] = set()
    for each in places.split():
        path = Path(unquote(urlsplit(each).path)) if each.startswith("file:") else Path(each)
        for wheel in sorted(path.glob("*.whl")) if path.is_dir() else ():
            if wheel.is_file() and wheel.name not in seen:
                seen.add(wheel.name)
                yield wheel


def _certificates(said: Mapping[str, str], environ: Mapping[str, str]) -> bytes:
    for path in (said.get("cert"), *map(environ.get, _CERTIFICATES)):
        if path:
            try:
                return Path(path).read_bytes()
            except OSError:
                continue
    return b""
