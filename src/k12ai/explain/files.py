"""Files, and what the system refuses: places, permissions, space, encodings, a keyboard."""

import errno
import os
import re
from collections.abc import Mapping

from k12ai.explain.model import UNKNOWN, Case, Finder, Finding
from k12ai.explain.words import READ_TRACEBACK, closest, did_you_mean, listed, own_words, shown
from k12ai.texts import Text


def files_in(directory: str) -> list[str]:
    """Return the names in a directory, in order; none where it cannot be read."""
    try:
        return sorted(os.listdir(directory or "."))
    except OSError:
        return []


def _no_file(case: Case) -> Finding:
    filename = getattr(case.error, "filename", None)
    if not isinstance(filename, (str, bytes)) or not filename:
        return Finding(100919, own_words(case))
    path = os.fsdecode(filename)
    text = Text(f"There is no file {path!r}.", f"找不到文件 {path!r}。")
    directory, name = os.path.split(path)
    files = files_in(directory)
    near = closest(name, files)
    if near:
        return Finding(100919, text, did_you_mean(repr(os.path.join(directory, near))))
    if re.match(r"[A-Za-z]:[\\/]", path):
        step = Text(
            "This is a path of your own computer. Upload the file to the project and write only its name.",
            "这是你自己电脑上的路径。请把文件上传到项目，只写文件名。",
        )
    elif files:
        step = Text(
            f"Upload it to the project, or use one that is there: {listed(files)}.",
            f"请把它上传到项目，或使用已有的文件：{listed(files)}。",
        )
    else:
        step = Text(
            f"Upload {name!r} to the project; the folder {directory or '.'!r} is empty or missing.",
            f"请把 {name!r} 上传到项目；文件夹 {directory or '.'!r} 是空的或不存在。",
        )
    return Finding(100919, text, step)


def _folder(case: Case) -> Finding:
    path = shown(getattr(case.error, "filename", None) or case.words)
    return Finding(
        100919,
        Text(
            f"A file was expected at {path}, and a folder was found, or the other way round.",
            f"{path} 应为文件却是文件夹，或反之。",
        ),
        Text("Write the whole path, with the name of the file at its end.", "请写完整路径，并以文件名结尾。"),
    )


def _permission(case: Case) -> Finding:
    path = getattr(case.error, "filename", None)
    place = (f" {path!r}", f" {path!r} ") if path else (f": {case.words}", f"：{case.words}")
    return Finding(
        100920,
        Text(f"The program may not use{place[0]}.", f"程序无权访问{place[1]}。"),
        Text(
            "Use a path inside of the project, such as 'model.pkl', without / at the beginning.",
            "请使用项目内的路径，例如 'model.pkl'，开头不要写 /。",
        ),
    )


def _system(case: Case) -> Finding:
    number = getattr(case.error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Finding(100928, Text(f"The disk is full: {case.words}.", f"磁盘已满，无法写入：{case.words}。"))
    if number == errno.EROFS:
        return _permission(case)
    return Finding(UNKNOWN, own_words(case), READ_TRACEBACK)


def _exists(case: Case) -> Finding:
    path = shown(getattr(case.error, "filename", None) or case.words)
    return Finding(
        UNKNOWN,
        Text(f"{path} exists already.", f"{path} 已经存在。"),
        Text("Write os.makedirs(path, exist_ok=True).", "请写 os.makedirs(path, exist_ok=True)。"),
    )


def _encoding(case: Case) -> Finding:
    error = case.error
    if not isinstance(error, UnicodeDecodeError):
        return Finding(
            100923,
            Text(f"A character cannot be written: {case.words}.", f"有字符无法写出：{case.words}。"),
            Text("Open the file with encoding='utf-8'.", "打开文件时加上 encoding='utf-8'。"),
        )
    meant = _encoding_of(error.object[: 1 << 16])
    byte, place = f"0x{error.object[error.start]:02x}", error.start
    return Finding(
        100923,
        Text(
            f"The text is not {error.encoding}: it has the byte {byte} at position {place}.",
            f"这段文字不是 {error.encoding} 编码：位置 {place} 处的字节是 {byte}。",
        ),
        Text(
            f"Open it with encoding='{meant}', such as pd.read_csv(name, encoding='{meant}').",
            f"打开时加上 encoding='{meant}'，例如 pd.read_csv(name, encoding='{meant}')。",
        ),
    )


def _encoding_of(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return "gbk"
    return "utf-8"


def _no_input(case: Case) -> Finding:
    if "reading a line" in case.words:
        return Finding(
            100929,
            Text(
                "The program waits for input(), and a task has no keyboard.",
                "程序在等待 input()，但任务没有键盘。",
            ),
        )
    return Finding(
        UNKNOWN,
        Text(f"A file is empty or ends too early: {case.words}.", f"文件是空的或不完整：{case.words}。"),
        Text("Make or upload the file again.", "请重新生成或上传该文件。"),
    )


BY_TYPE: Mapping[type, Finder] = {
    FileNotFoundError: _no_file,
    IsADirectoryError: _folder,
    NotADirectoryError: _folder,
    FileExistsError: _exists,
    PermissionError: _permission,
    OSError: _system,
    UnicodeError: _encoding,
    EOFError: _no_input,
}
