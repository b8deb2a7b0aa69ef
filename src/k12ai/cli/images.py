"""``k12ai images``: the container images that tasks run in, seen and made from the terminal."""

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from k12ai._version import __version__
from k12ai.cli.exits import EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, CommandFailed
from k12ai.cli.words import language, size
from k12ai.errors import EngineUnavailable
from k12ai.frameworks.base import Framework
from k12ai.frameworks.installed import installed
from k12ai.image_context import PACKAGE, Context
from k12ai.images import LABEL_CONTENT, LABEL_FRAMEWORK, LABEL_VERSION, image_of
from k12ai.pip_settings import PipSettings
from k12ai.texts import Text, printable

if TYPE_CHECKING:
    from k12ai.image_engine import Image, ImageEngine

State = Literal["ready", "outdated", "missing"]

# The stage of the Dockerfile that sees what pip is told.
_STAGE = "k12ai.stage=libraries"
# The classic builder colours what programs say on standard error.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_WORDS = 200
_COLUMNS = (
    Text("framework", "框架"),
    Text("image", "镜像"),
    Text("state", "状态"),
    Text("size", "大小"),
    Text("created", "创建时间"),
)
_STATES = {
    "ready": (Text("ready", "可用"), "green"),
    "outdated": (Text("outdated", "已过时"), "yellow"),
    "missing": (Text("missing", "未构建"), "dim"),
}
_PULLING = Text("pulling {base}", "正在拉取 {base}")
_BUILDING = Text("building {image}", "正在构建 {image}")
_BUILT = Text("{image} is ready: {size}, {seconds} s", "{image} 已就绪：{size}，用时 {seconds} 秒")
_NO_AIODOCKER = Text(
    "images need aiodocker, which is not installed: pip install 'k12ai[docker]'",
    "镜像命令需要 aiodocker，但尚未安装：pip install 'k12ai[docker]'",
)
_START_DOCKER = Text(
    "Start Docker (systemctl start docker), or name its address with --docker-host.",
    "请启动 Docker（systemctl start docker），或用 --docker-host 指定其地址。",
)
_FOREIGN = Text(
    "{name} belongs to another package, which has to make {image} itself; see docs/frameworks.md",
    "{name} 属于其他软件包，须由该软件包自行制作 {image}；见 docs/frameworks.md",
)
_READ_ABOVE = Text(
    "The lines above say what the build was doing. The base has to have Python 3.11 or newer with venv, and "
    "pip has to reach what it downloads; --base names another base.",
    "上面的输出说明了构建进行到哪一步。基础镜像须有 Python 3.11 或更新版本（带 venv），pip 须能访问下载源；"
    "--base 可指定其他基础镜像。",
)
_OTHER_BASE = Text(
    "--base names another image with Python 3.11 or newer; docker/debian-base in a checkout makes one without "
    "any registry: k12ai images build --base k12ai/base:debian",
    "可用 --base 指定另一个带 Python 3.11 或更新版本的镜像；源码中的 docker/debian-base "
    "无需镜像仓库即可生成一个：k12ai images build --base k12ai/base:debian",
)


class Known(Struct, frozen=True):
    """A framework that is installed here; ``ours`` says that this package can build its image."""

    framework: Framework
    ours: bool


class Row(Struct, frozen=True):
    """A line of ``k12ai images list``."""

    framework: str
    image: str
    state: State
    size_bytes: int | None = None
    created_at: datetime | None = None


def show(address: str, *, as_json: bool) -> None:
    """Print the image of every framework, and whether it is there and made from what is installed here."""
    rows = asyncio.run(_rows(address))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    table = Table(box=box.SIMPLE, header_style="dim")
    for column in _COLUMNS:
        table.add_column(column.pick(language()))
    for row in rows:
        state, style = _STATES[row.state]
        table.add_row(
            Styled(printable(row.framework)),
            Styled(printable(row.image), style="cyan"),
            Styled(state.pick(language()), style=style),
            size(row.size_bytes) if row.size_bytes is not None else "",
            f"{row.created_at.astimezone():%Y-%m-%d %H:%M}" if row.created_at else "",
        )
    Console().print(table)


def build(names: Sequence[str], base: str, address: str) -> None:
    """Build the images of the named frameworks, or of all that can be; say what the Engine says meanwhile."""
    asyncio.run(_build_all(_chosen(names), base, address))


def known() -> dict[str, Known]:
    """Return what is installed here by its name; a framework that cannot be loaded is left out."""
    return {
        framework.name: Known(framework, entry.dist is not None and entry.dist.name == PACKAGE)
        for entry, framework in installed(lambda entry, error: sys.stderr.write(f"{entry.name}: {error!r}\n"))
    }


def _chosen(names: Sequence[str]) -> list[Framework]:
    all_known = known()
    buildable = {name: each.framework for name, each in all_known.items() if each.ours}
    for name in names:
        if name in buildable:
            continue
        if name in all_known:
            image = image_of(all_known[name].framework)
            raise CommandFailed(EXIT_USAGE, _FOREIGN.format(name=name, image=image))
        words = ", ".join(buildable)
        raise CommandFailed(EXIT_USAGE, Text(f"{name}: one of {words}", f"{name}：只能是以下之一：{words}"))
    return [buildable[name] for name in dict.fromkeys(names)] or list(buildable.values())


async def _rows(address: str) -> list[Row]:
    async with _engine(address) as engine:
        return [_row(each, await engine.find(image_of(each.framework))) for each in known().values()]


def _row(each: Known, image: "Image | None") -> Row:
    name, wanted = each.framework.name, image_of(each.framework)
    if image is None:
        return Row(name, wanted, "missing")
    outdated = each.ours and image.labels.get(LABEL_CONTENT) != Context(each.framework.extra).digest
    return Row(name, wanted, "outdated" if outdated else "ready", image.size_bytes, image.created_at)


async def _build_all(frameworks: Sequence[Framework], base: str, address: str) -> None:
    settings = await asyncio.to_thread(PipSettings.found, os.environ)
    async with _engine(address) as engine:
        if await engine.find(base) is None:
            await _say(_PULLING.format(base=base), engine.pull(base))
        try:
            for framework in frameworks:
                await _build(framework, base, settings, engine)
        finally:
            if settings.private:
                await engine.forget_unnamed(_STAGE)


async def _build(framework: Framework, base: str, settings: PipSettings, engine: "ImageEngine") -> None:
    started, image, context = time.monotonic(), image_of(framework), Context(framework.extra)
    labels = {
        LABEL_FRAMEWORK: framework.name,
        LABEL_VERSION: __version__,
        LABEL_CONTENT: context.digest,
    }
    wheels = settings.wheels if framework.extra else ()
    with context.archive(settings.certificates, wheels) as archive:
        arguments = {"BASE": base, **settings.arguments}
        await _say(_BUILDING.format(image=image), engine.build(image, archive, arguments, labels))
    # What this one replaces has lost its name; a container that still uses it keeps it.
    await engine.forget_unnamed(f"{LABEL_FRAMEWORK}={framework.name}")
    built = await engine.find(image)
    seconds = round(time.monotonic() - started)
    taken = size(built.size_bytes) if built is not None else "?"
    done = _BUILT.format(image=image, size=taken, seconds=seconds)
    Console(soft_wrap=True).print(Styled(done.pick(language()), style="green"))


async def _say(title: Text, lines: AsyncIterator[str]) -> None:
    """Print what the Engine says, as it comes."""
    console = Console(soft_wrap=True)
    console.print(Styled(title.pick(language()), style="bold"))
    async for line in lines:
        for each in _COLOUR.sub("", line).splitlines():
            console.print(Styled(printable(each), style="dim"))


@contextlib.asynccontextmanager
async def _engine(address: str) -> AsyncIterator["ImageEngine"]:
    """Open the Engine, and turn what it raises into the end of the command."""
    try:
        from k12ai.image_engine import BaseMissing, ImageEngine, ImageFailed
    except ModuleNotFoundError:
        raise CommandFailed(EXIT_USAGE, _NO_AIODOCKER) from None
    try:
        async with ImageEngine(address) as engine:
            yield engine
    except EngineUnavailable as error:
        raise CommandFailed(EXIT_UNREACHABLE, error.detail, _START_DOCKER) from None
    except BaseMissing as error:
        raise CommandFailed(EXIT_REFUSED, _words_of(error), _OTHER_BASE) from None
    except ImageFailed as error:
        raise CommandFailed(EXIT_REFUSED, _words_of(error), _READ_ABOVE) from None


def _words_of(error: Exception) -> Text:
    words = printable(" ".join(str(error).split()))
    if len(words) > _MAX_WORDS:  # a whole step of the Dockerfile, which was printed before
        words = f"{words[: _MAX_WORDS // 2]} … {words[-_MAX_WORDS // 2 :]}"
    return Text(words, words)
