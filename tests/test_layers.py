"""Imports go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

# What each part may import of this package, besides itself and what is below.
BASE = {"_version", "texts", "catalogue", "errors", "settings", "models", "people", "task"}
TOOLS = {"worker", "background"}
ALLOWED = {
    "texts": set(),
    "catalogue": {"texts"},
    "errors": {"texts", "catalogue"},
    "task": set(),
    "models": {"texts", "catalogue", "task"},
    "people": {"models"},
    "settings": {"texts", "task", "people"},
    "worker": set(),
    "background": {"errors"},
    "closing": BASE,
    "logs": {"settings", "texts"},
    "envelope": BASE,
    "stores": BASE | TOOLS,
    "failpoints": set(),
    "images": {"_version", "frameworks"},
    "image_context": {"_version"},
    "image_engine": {"docker_connection", "errors", "texts"},
    "pip_settings": set(),
    "docker_connection": {"texts"},
    "runtimes": BASE | TOOLS | {"docker_connection", "failpoints"},
    "monitor": BASE | TOOLS | {"runtimes"},
    "access": BASE | {"stores"},
    "control": BASE | {"access", "runtimes"},
    "platform": BASE | {"access", "control", "envelope", "monitor"},
    "deferred": BASE | TOOLS | {"access", "stores"},
    "projects": BASE,
    "report": {"explain"},
    "explain": {"texts", "catalogue"},
    "frameworks": {"texts", "errors", "report", "explain"},
    "tasks": BASE
    | TOOLS
    | {"closing", "explain", "failpoints", "frameworks", "images", "projects", "runtimes", "stores"},
    "capacity": BASE | {"monitor", "tasks"},
    "placement": BASE | {"frameworks", "images", "runtimes"},
    "framework": BASE | {"access", "envelope", "frameworks", "placement", "projects", "runtimes", "tasks"},
    "api": BASE
    | TOOLS
    | {
        "access",
        "closing",
        "deferred",
        "envelope",
        "framework",
        "monitor",
        "platform",
        "projects",
        "stores",
        "tasks",
    },
    "client": {"texts", "catalogue", "models", "people", "task"},
}
CLIENT_SIDE = (
    *(
        "k12ai.client",
        "k12ai.cli.main",
        "k12ai.cli.stats",
        "k12ai.cli.images",
        "k12ai.cli.access",
        "k12ai.cli.people",
        "k12ai.cli.rosters",
    ),
    "k12libs.utils.nb_easy",
)
SERVER_ONLY = (
    "litestar",
    "uvicorn",
    "sqlalchemy",
    "alembic",
    "aiodocker",
    "psutil",
    "structlog",
    "prometheus_client",
)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("k12ai.")}


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_a_part_imports_only_what_is_below_it(part: str) -> None:
    package = SOURCE / "k12ai" / part
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    assert files
    for path in files:
        parts = {name.split(".")[1] for name in imports(path)} - {part}
        assert parts <= ALLOWED[part], f"{path.name} imports {sorted(parts - ALLOWED[part])}"


@pytest.mark.parametrize("module", CLIENT_SIDE)
def test_the_client_needs_nothing_of_the_server(module: str) -> None:
    """Run in a fresh interpreter in which the server's libraries cannot be imported."""
    block = "; ".join(f"sys.modules[{name!r}] = None" for name in SERVER_ONLY)
    program = f"import sys; {block}; import {module}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_the_server_extra_serve_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['litestar'] = None; sys.argv = ['k12ai', 'serve']; "
        "from k12ai.cli.main import run; run()"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert told.returncode == 2
    assert "pip install 'k12ai[server]'" in told.stderr
