"""The pictures of students, and what can be wrong with them."""

import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL", reason="the extra cv is not installed")
pytest.importorskip("numpy", reason="the extra cv is not installed")

import numpy as np
from PIL import Image

from k12ai.frameworks.cv import pictures
from k12ai.frameworks.cv.pictures import Broken, Pictures, decoded
from k12ai.frameworks.problems import DataProblem, Notes

Load = Callable[..., tuple[Pictures, Notes]]


@pytest.fixture(name="load")
def _load(project: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(project)
    monkeypatch.setenv("K12AI_JOURNAL", os.devnull)

    def load(path: str = "a.zip") -> tuple[Pictures, Notes]:
        notes = Notes()
        return pictures.load({"dataset": "files", "path": path}, notes), notes

    return load


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def plain(size: int = 8, colour: str = "red") -> bytes:
    return encoded(Image.new("RGB", (size, size), colour))


def zipped(members: dict[str, bytes], path: str = "a.zip") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(load: Load, path: str = "a.zip") -> DataProblem:
    with pytest.raises(DataProblem) as caught:
        load(path)
    assert caught.value.text.en
    assert any("\u4e00" <= character <= "\u9fff" for character in caught.value.text.zh)
    return caught.value


# --- one picture -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (encoded(Image.new("CMYK", (8, 8)), "JPEG"), "RGB"),
        (encoded(Image.new("I;16", (8, 8), 40_000)), "L"),
        (encoded(Image.new("P", (8, 8))), "RGB"),
        (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "RGB"),
        (encoded(Image.new("1", (8, 8))), "L"),
        (encoded(Image.new("F", (8, 8), 0.5), "TIFF"), "L"),
    ],
    ids=["CMYK", "16 bits", "palette", "transparent", "1 bit", "float"],
)
def test_pictures_in_whatever_mode_come_in_8_bits_of_grey_or_colour(content: bytes, mode: str) -> None:
    found = decoded(content)
    assert isinstance(found, Image.Image)
    assert found.mode == mode


def test_16_bits_are_scaled_and_not_cut_off() -> None:
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    found = decoded(encoded(Image.fromarray(values)))
    assert isinstance(found, Image.Image)
    assert len(set(found.tobytes())) > 60


def test_what_is_transparent_is_white() -> None:
    found = decoded(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))))
    assert isinstance(found, Image.Image)
    assert found.getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decoded(encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif))
    assert isinstance(found, Image.Image)
    assert found.size == (8, 16)


def huge() -> bytes:
    """A PNG that says it has more pixels than anybody's memory."""
    content = bytearray(plain())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"no picture", plain()[:40], plain(1), huge(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["empty", "text", "cut off", "1 by 1", "a bomb", "a program"],
)
def test_what_cannot_be_used_is_said_in_both_languages(content: bytes) -> None:
    found = decoded(content)
    assert isinstance(found, Broken)
    assert found.en
    assert any("\u4e00" <= character <= "\u9fff" for character in found.zh)


# --- many of them ----------------------------------------------------------------------------------


def test_a_zip_and_its_folder_have_the_same_pictures(load: Load) -> None:
    members = {f"{name}/{place}.png": plain(8, name) for name in ("red", "blue") for place in range(3)}
    zipped(members)
    for name, content in members.items():
        Path("a", name).parent.mkdir(parents=True, exist_ok=True)
        Path("a", name).write_bytes(content)
    of_zip, of_folder = load("a.zip")[0], load("a")[0]
    assert of_zip.classes == of_folder.classes == ["blue", "red"]
    assert of_zip.names == of_folder.names
    assert of_zip.sha256 == of_folder.sha256


def test_the_folder_that_a_zip_was_made_of_is_no_class(load: Load) -> None:
    zipped({f"pets/{name}/{place}.png": plain() for name in ("cat", "dog") for place in range(3)})
    assert load()[0].classes == ["cat", "dog"]


def test_the_names_of_an_older_chinese_windows_are_read(load: Load) -> None:
    zipped({f"{name}/1.png": plain() for name in ("AAAA", "BBBB")})
    content = Path("a.zip").read_bytes()
    for name, chinese in ((b"AAAA", "苹果"), (b"BBBB", "香蕉")):
        content = content.replace(name, chinese.encode("gbk"))
    Path("a.zip").write_bytes(content)
    assert load()[0].classes == ["苹果", "香蕉"]


def test_what_macs_put_into_zips_is_left_out_silently(load: Load) -> None:
    litter = {"__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x"}
    zipped({"cat/1.png": plain(), "dog/1.png": plain(), **litter})
    found, notes = load()
    assert (len(found.names), notes) == (2, [])


def test_other_files_and_pictures_without_a_class_are_left_out_and_noted(load: Load) -> None:
    zipped({"cat/1.png": plain(), "dog/1.png": plain(), "cat/readme.txt": b"x", "1.png": plain()})
    found, notes = load()
    assert len(found.names) == 2
    assert len(notes) == 2


def test_of_animated_pictures_the_first_frame_is_used_and_that_is_noted(load: Load) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    zipped({"cat/1.gif": moving, "dog/1.png": plain()})
    assert "animated" in load()[1][0].en


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"../../cat/1.png": plain(), "dog/1.png": plain()}, "../../cat/1.png"),
        ({"/etc/1.png": plain()}, "/etc/1.png"),
        ({"cat\\..\\..\\1.png": plain()}, "1.png"),
        ({"1.png": plain()}, "folders"),
        ({}, "folders"),
        ({"cat/1.png": b"broken", "dog/1.png": plain()}, "cat/1.png"),
        ({"cat/1.png": plain(1), "dog/1.png": plain()}, "1 by 1"),
        ({"cat/1.png": plain()[:50], "dog/1.png": plain()}, "damaged"),
    ],
    ids=["upwards", "absolute", "windows", "no classes", "empty", "broken", "1 by 1", "cut off"],
)
def test_a_zip_that_cannot_be_used_is_refused(load: Load, members: dict[str, bytes], word: str) -> None:
    zipped(members)
    assert word in refused(load).text.en


def test_a_zip_bomb_is_refused_before_it_is_unpacked(load: Load) -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(50 << 20))
    tracemalloc.start()
    try:
        assert "bomb" in refused(load).text.en
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_zip_with_a_link_is_refused(load: Load) -> None:
    link = zipfile.ZipInfo("cat/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "link" in refused(load).text.en


def test_a_zip_with_a_password_is_refused(load: Load) -> None:
    zipped({"cat/1.png": plain()})
    content = Path("a.zip").read_bytes()
    at = content.index(b"PK\x01\x02")
    Path("a.zip").write_bytes(content[: at + 8] + b"\x01" + content[at + 9 :])
    assert "password" in refused(load).text.en


@pytest.mark.parametrize("content", [b"no zip", b"PK\x03\x04" + bytes(30)], ids=["text", "cut off"])
def test_a_file_that_is_no_zip_is_refused(load: Load, content: bytes) -> None:
    Path("a.zip").write_bytes(content)
    assert "zip" in refused(load).text.en


def test_nothing_there_has_the_code_of_a_missing_file(load: Load) -> None:
    assert refused(load, "none").code == 100919


def test_links_in_a_folder_are_not_followed(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(plain())
    for name in ("cat", "dog"):
        Path("a", name).mkdir(parents=True)
        Path("a", name, "1.png").write_bytes(plain())
    Path("a", "cat", "2.png").symlink_to(tmp_path / "secret.png")
    Path("a", "bird").symlink_to(tmp_path)
    found, _ = load("a")
    assert found.names == ["cat/1.png", "dog/1.png"]


def test_a_folder_outside_of_the_project_is_refused(load: Load) -> None:
    Path("a").symlink_to("/tmp")
    assert "not inside of the project" in refused(load, "a").text.en


def test_memory_does_not_grow_with_the_folder(load: Load) -> None:
    chance = random.Random(0)

    def peak(count: int) -> int:
        noise = encoded(Image.frombytes("RGB", (64, 64), chance.randbytes(64 * 64 * 3)))
        for name in ("cat", "dog"):
            Path(f"a{count}", name).mkdir(parents=True)
            for place in range(count):
                Path(f"a{count}", name, f"{place}.png").write_bytes(noise)
        tracemalloc.start()
        try:
            found, _ = load(f"a{count}")
            for place in range(len(found.names)):
                found.open(place)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)
    # Names may be kept, and none of the 12 KiB of each picture.
    assert peak(200) - peak(50) < 300 * 1024


def test_text_that_is_no_base64_is_refused_with_its_place() -> None:
    with pytest.raises(DataProblem, match=r"images\[1\]"):
        pictures.of_base64(["AAAA", "§"])


def test_base64_of_a_web_page_is_read() -> None:
    import base64

    text = "data:image/png;base64," + base64.b64encode(plain()).decode()
    assert pictures.of_base64([text]).open(0).size == (8, 8)
