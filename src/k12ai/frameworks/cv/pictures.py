"""Pictures as students have them: folders and zips by class, from cameras, scanners and drawing programs."""

import base64
import binascii
import errno
import hashlib
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from k12ai import report
from k12ai.frameworks import csvfile
from k12ai.frameworks.cv.schema import DIGITS
from k12ai.frameworks.problems import NO_FILE, VALUE, DataProblem, Notes, refuse

MAX_PICTURES = 500_000
MAX_FILE_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 16 << 30
MAX_RATIO = 200
"""How much smaller than itself a zip may make a file; pictures can hardly be compressed."""
MAX_PIXELS = 64_000_000
LEAST_PIXELS = 4

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"))

# Others start programs, or are read by ours that nobody has looked at.
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_GREY = frozenset(("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"))
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError, IndexError)
_UNPACKING = (*_BROKEN, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError)
_SHOWN = 5

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class Broken(NamedTuple):
    """What is wrong with one picture."""

    en: str
    zh: str


@dataclass
class Pictures:
    """Where pictures are, and the class of each; they themselves are read when they are needed."""

    names: list[str]
    read: Callable[[int], bytes]
    classes: list[str]
    labels: list[int]
    what: str
    sha256: str = ""
    is_grey: bool = True

    def open(self, place: int) -> Image.Image:
        """Return a picture. Raises `DataProblem` where it cannot be read."""
        found = decoded(self.read(place))
        if isinstance(found, Broken):
            raise _unreadable([(self.names[place], found)], 1)
        return found

    def checked(self, notes: Notes) -> "Pictures":
        """Read all of them once: what is broken is named before anything is trained on the rest."""
        digest, broken, moving, count = hashlib.sha256(), [], 0, len(self.names)
        for place, name in enumerate(self.names):
            content = self.read(place)
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            found = decoded(content)
            if isinstance(found, Broken):
                broken.append((name, found))
            else:
                self.is_grey = self.is_grey and found.info["k12ai_grey"]
                moving += found.info["k12ai_frames"] > 1
            if place % max(50, count // 200) == 0 or place == count - 1:
                report.progress(place + 1, count, "checking")
        if broken:
            raise _unreadable(broken, count)
        if moving:
            notes.add(
                f"{moving} pictures are animated; their first frame is used.",
                f"{moving} 张图片是动图，只使用第一帧。",
            )
        self.sha256 = digest.hexdigest()
        return self


def _unreadable(broken: Sequence[tuple[str, Broken]], count: int) -> DataProblem:
    en = ", ".join(f"{name[:100]!r} ({why.en})" for name, why in broken[:_SHOWN])
    zh = "、".join(f"{name[:100]!r}（{why.zh}）" for name, why in broken[:_SHOWN])
    more = ", …" if len(broken) > _SHOWN else ""
    return DataProblem(
        f"{len(broken)} of {count} pictures cannot be used: {en}{more}.",
        f"{count} 张图片中有 {len(broken)} 张无法使用：{zh}{more}。",
        code=VALUE,
        step=("Remove them, or save them anew as PNG or JPEG.", "请删除它们，或重新保存为 PNG 或 JPEG。"),
    )


# --- one picture -----------------------------------------------------------------------------------


def decoded(content: bytes) -> Image.Image | Broken:
    """Return a picture in 8 bits, grey or in colour, upright and opaque; or what is wrong with it."""
    if not content:
        return Broken("empty or damaged", "空文件或已损坏")
    if len(content) > MAX_FILE_BYTES:
        return Broken(f"more than {MAX_FILE_BYTES >> 20} MiB", f"超过 {MAX_FILE_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            if min(width, height) < LEAST_PIXELS:
                return Broken(f"{width} by {height} pixels are too few", f"只有 {width}×{height} 像素，太小")
            if width * height > MAX_PIXELS:
                return Broken(f"{width} by {height} pixels are too many", f"有 {width}×{height} 像素，太大")
            frames = getattr(image, "n_frames", 1)
            is_grey = image.mode in _GREY
            image.load()
            plain = _opaque(_in_8_bits(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        return Broken(
            "no picture in PNG, JPEG, GIF, BMP, WebP or TIFF", "不是 PNG、JPEG、GIF、BMP、WebP 或 TIFF 图片"
        )
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EIO):
            raise
        return Broken("damaged or cut off", "已损坏或不完整")
    plain.info = {"k12ai_grey": is_grey, "k12ai_frames": frames}
    return plain


def _in_8_bits(image: Image.Image) -> Image.Image:
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    most = float(values.max())
    scale = 1.0 if most <= 255 else 255 / max(most, 65535.0)
    return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("L" if image.mode in _GREY else "RGB")


# --- many of them ----------------------------------------------------------------------------------


def load(data: Mapping[str, Any], notes: Notes) -> Pictures:
    """Return the pictures that the parameters name, checked, each in a class."""
    if data["dataset"] == DIGITS:
        return _digits()
    path = data["path"]
    names, read = _found(path, notes)
    classed = [(name, parts[0]) for name in names if len(parts := PurePosixPath(name).parts) > 1]
    if lost := len(names) - len(classed):
        notes.add(
            f"{lost} pictures lie beside the folders of the classes and are left out.",
            f"{lost} 张图片不在任何类别文件夹中，已略去。",
        )
    if not classed:
        refuse(
            f"There are no folders with pictures in {path!r}.",
            f"{path!r} 中没有存放图片的文件夹。",
            code=VALUE,
            step=(
                "Make a folder for each class, with its pictures in it.",
                "请为每个类别建一个文件夹，把图片放进去。",
            ),
        )
    classes = sorted({label for _, label in classed})
    number = {label: place for place, label in enumerate(classes)}
    kept = [name for name, _ in classed]
    return Pictures(
        kept, lambda place: read(kept[place]), classes, [number[label] for _, label in classed], repr(path)
    ).checked(notes)


def to_predict(paths: Sequence[str], notes: Notes) -> Pictures:
    """Return pictures, and those in folders and zips, of whatever class. Raises `DataProblem`."""
    names: list[str] = []
    reads: list[Callable[[], bytes]] = []
    for path in paths:
        where = _there(path)
        if where.is_file() and not zipfile.is_zipfile(where):
            names.append(path)
            reads.append(lambda where=where: _content(where))  # type: ignore[misc]
            continue
        inner, read = _found(path, notes)
        names += [f"{path}/{name}" for name in inner]
        reads += [lambda name=name, read=read: read(name) for name in inner]  # type: ignore[misc]
    if not names:
        refuse("There are no pictures in what files names.", "files 所指的位置没有图片。", code=VALUE)
    return Pictures(names, lambda place: reads[place](), [], [0] * len(names), "files")


def of_base64(images: Sequence[str]) -> Pictures:
    """Return pictures that were sent as text. Raises `DataProblem` where one is no base64."""
    contents = []
    for place, text in enumerate(images):
        body = text.partition(",")[2] if text.startswith("data:") else text
        try:
            contents.append(base64.b64decode("".join(body.split()), validate=True))
        except (binascii.Error, ValueError):
            refuse(f"images[{place}] is no base64.", f"images[{place}] 不是有效的 base64。", code=VALUE)
    names = [f"images[{place}]" for place in range(len(contents))]
    return Pictures(names, contents.__getitem__, [], [0] * len(contents), "images")


def _digits() -> Pictures:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    values = np.round(bunch.images * (255 / 16)).astype(np.uint8)

    def read(place: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(values[place]).save(file, "BMP")
        return file.getvalue()

    labels = [int(each) for each in bunch.target]
    return Pictures(
        [f"digit {place}" for place in range(len(labels))], read, [str(n) for n in range(10)], labels, DIGITS
    )


def _there(path: str) -> Path:
    where = csvfile.inside(path)
    if not where.exists():
        refuse(
            f"There is nothing at {path!r} in the project.",
            f"项目中没有 {path!r}。",
            code=NO_FILE,
            step=(
                "Upload a zip or a folder of pictures, and write its name.",
                "请上传图片的 zip 或文件夹，并填写它的名称。",
            ),
        )
    return where


def _found(path: str, notes: Notes) -> tuple[list[str], Callable[[str], bytes]]:
    """Return the names of pictures in a folder or a zip, and what reads one."""
    where = _there(path)
    if where.is_dir():
        names = list(_walked(where, notes))
        read: Callable[[str], bytes] = lambda name: _content(where / name)  # noqa: E731
    else:
        archive = _Zip(path, where)
        names, read = archive.names, archive.read
    pictures = [name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if others := len(names) - len(pictures):
        notes.add(
            f"{others} files in {path!r} are no pictures by their names and are left out.",
            f"{path!r} 中有 {others} 个文件从名称看不是图片，已略去。",
        )
    if len(pictures) > MAX_PICTURES:
        refuse(
            f"{path!r} has {len(pictures)} pictures; {MAX_PICTURES} is the most.",
            f"{path!r} 有 {len(pictures)} 张图片，最多 {MAX_PICTURES} 张。",
            code=VALUE,
        )
    return sorted(pictures), read


def _walked(root: Path, notes: Notes) -> Iterator[str]:
    links = 0
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if path.is_symlink():
                links += 1
            else:
                yield path.relative_to(root).as_posix()
    if links:
        notes.add(f"{links} links are left out.", f"{links} 个链接已略去。")


def _content(path: Path) -> bytes:
    """Read a file, without following a link and without more of it than a picture may have."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return b""
    with open(descriptor, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


class _Zip:
    """Pictures in a zip, which is never unpacked."""

    def __init__(self, path: str, where: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(where)
            members = self._archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
            refuse(
                f"{path!r} is neither a folder nor a zip that can be read.",
                f"{path!r} 既不是文件夹，也不是可以读取的 zip。",
                code=VALUE,
                step=("Make the zip anew and upload it again.", "请重新制作 zip 并上传。"),
            )
        self._members = {_name(each): each for each in members if not each.is_dir() and not _is_litter(each)}
        for name, each in self._members.items():
            self._check(name, each)
        if sum(each.file_size for each in members) > MAX_UNPACKED_BYTES:
            self._refuse("it unpacks to too much", "解压后过大")
        self.names = list(self._members)
        tops = {PurePosixPath(name).parts[0] for name in self.names}
        if len(tops) == 1 and any(len(PurePosixPath(name).parts) > 2 for name in self.names):
            top = f"{tops.pop()}/"  # the folder of which the zip was made
            self._members = {name.removeprefix(top): each for name, each in self._members.items()}
            self.names = list(self._members)

    def _check(self, name: str, member: zipfile.ZipInfo) -> None:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name.split("/")[0] or "\0" in name:
            self._refuse(f"{name[:100]!r} leads out of it", f"{name[:100]!r} 指向其外部")
        if stat.S_ISLNK(member.external_attr >> 16):
            self._refuse(f"{name[:100]!r} is a link", f"{name[:100]!r} 是链接")
        if member.flag_bits & 1:
            self._refuse("it has a password", "设有密码")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1) and member.file_size > 1 << 20:
            self._refuse(f"{name[:100]!r} is a bomb", f"{name[:100]!r} 解压后异常大")

    def _refuse(self, why: str, why_zh: str) -> None:
        refuse(
            f"The zip {self._path!r} was not opened: {why}.",
            f"没有打开压缩包 {self._path!r}：{why_zh}。",
            code=VALUE,
            step=(
                "Make a zip of plain folders with pictures, without a password.",
                "请用普通的图片文件夹制作 zip，不要设置密码。",
            ),
        )

    def read(self, name: str) -> bytes:
        try:
            with self._archive.open(self._members[name]) as file:
                return file.read(MAX_FILE_BYTES + 1)
        except _UNPACKING:
            return b""  # which is told as damaged


def _name(member: zipfile.ZipInfo) -> str:
    """Return a member's name; older Chinese Windows writes GBK, which zipfile takes for the IBM PC's."""
    if member.flag_bits & 0x800:
        return member.filename
    raw = member.filename.encode("cp437", "replace")
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return member.filename


def _is_litter(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return "__MACOSX" in parts or bool(parts and parts[-1].startswith("."))
