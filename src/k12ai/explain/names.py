"""Modules, names, keys, attributes and positions that are not there."""

import ast
import builtins
import re
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from k12ai.explain.files import files_in
from k12ai.explain.model import Case, Finder, Finding
from k12ai.explain.positions import is_own, value_of
from k12ai.explain.words import closest, did_you_mean, listed, own_words, shown
from k12ai.texts import Text

_PACKAGES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "bs4": "beautifulsoup4",
    "skimage": "scikit-image",
    "Crypto": "pycryptodome",
    "serial": "pyserial",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "fitz": "PyMuPDF",
    "torch": "torch",
    "torchvision": "torchvision",
    "tensorflow": "tensorflow",
    "keras": "keras",
    "numpy": "numpy",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "requests": "requests",
    "transformers": "transformers",
    "jieba": "jieba",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "tqdm": "tqdm",
    "openpyxl": "openpyxl",
    "pygame": "pygame",
    "gym": "gymnasium",
}


def _import(case: Case) -> Finding:
    if shadowed := _shadowed(case):
        return shadowed
    error = case.error
    name = (error.name if isinstance(error, ImportError) else None) or ""
    if isinstance(error, ModuleNotFoundError) and name:
        return _no_module(name)
    found = re.search(r"cannot import name '(?P<what>[^']+)' from '(?P<module>[^']+)'", case.words)
    if found is None:
        return Finding(
            100910,
            Text(f"A module cannot be loaded: {case.words}", f"模块无法加载：{case.words}"),
            Text("Ask your teacher to look at this package.", "请让老师检查这个包。"),
        )
    what, module = found.groups()
    near = closest(what, dir(sys.modules.get(module)))
    return Finding(
        100910,
        Text(f"The module {module} has nothing called {what}.", f"模块 {module} 中没有 {what}。"),
        did_you_mean(near)
        or Text(
            f"Check the spelling of {what}, and the version of {module}.",
            f"检查 {what} 的拼写和 {module} 的版本。",
        ),
    )


def _no_module(name: str) -> Finding:
    root = name.partition(".")[0]
    text = Text(
        f"The program imports {name}, and there is no such module here.",
        f"程序导入了 {name}，但这里没有这个模块。",
    )
    package = _PACKAGES.get(root, "")
    files = [each.removesuffix(".py") for each in files_in(".") if each.endswith(".py")]
    near = "" if package else closest(root, [*files, *_PACKAGES, *sys.stdlib_module_names])
    if root in sys.modules and root != name:
        text = Text(
            f"The module {root} is there, but has no part {name}.", f"模块 {root} 存在，但没有 {name}。"
        )
        step = Text("Check the spelling after the dot.", "检查点号后面的拼写。")
    elif package:
        step = Text(
            f"The package is called {package}: ask your teacher to install it (pip install {package}).",
            f"对应的包叫 {package}：请让老师安装（pip install {package}）。",
        )
    elif near and near != root:
        step = Text(f"Did you mean import {near}? Correct the name.", f"是不是想写 import {near}？请改正名称。")
    else:
        step = Text(
            f"Check the spelling of {root}; if it is a file of yours, upload {root}.py to the project; "
            "if it is a package, ask your teacher to install it.",
            f"检查 {root} 的拼写；如果是自己的文件，请把 {root}.py 上传到项目；如果是第三方包，请让老师安装。",
        )
    return Finding(100910, text, step)


def _shadowed(case: Case) -> Finding | None:
    """Recognise a file of the student's that hides the library of the same name, a classic."""
    # The second is what Python 3.13 and later say.
    found = re.search(r"partially initialized module '(\w+)'|consider renaming '(?:.*/)?(\w+)\.py'", case.words)
    name = (found.group(1) or found.group(2)) if found else ""
    if not name or not is_own(getattr(sys.modules.get(name), "__file__", None) or f"{name}.py"):
        return None
    return Finding(
        100910,
        Text(
            f"{name} is not complete yet: your file {name}.py hides the library {name}, or imports itself.",
            f"{name} 尚未加载完成：你的文件 {name}.py 遮住了同名的库 {name}，或导入了自己。",
        ),
        Text(f"Give your file {name}.py another name.", f"请给文件 {name}.py 换一个名字。"),
    )


def _index(case: Case) -> Finding:
    found = re.search(
        r"index (-?\d+) is out of bounds for (?:axis|dimension) (\d+) with size (\d+)", case.words
    )
    name = "the array", "数组"
    if found:
        wanted, size = int(found.group(1)), int(found.group(3))
    elif isinstance(case.node, ast.Subscript):
        items, index = value_of(case.node.value, case.frame), value_of(case.node.slice, case.frame)
        if not isinstance(items, (list, tuple, str, range)) or not isinstance(index, int):
            return Finding(100911, own_words(case))
        wanted, size = index, len(items)
        name = (ast.unparse(case.node.value),) * 2
    else:
        return Finding(100911, own_words(case))
    if size == 0:
        text = Text(
            f"{name[0]} is empty, so it has no position {wanted}.",
            f"{name[1]} 是空的，没有第 {wanted} 个位置。",
        )
    else:
        text = Text(
            f"Position {wanted} was asked for, but {name[0]} has {size} items: positions 0 to {size - 1}.",
            f"要取位置 {wanted}，但 {name[1]} 只有 {size} 个元素：位置是 0 到 {size - 1}。",
        )
    step = Text(
        "Counting begins at 0. Check the number, or the end of the loop, with len().",
        "下标从 0 开始。用 len() 检查这个数，或检查循环的终点。",
    )
    return Finding(100911, text, step)


_USUAL_IMPORTS = {
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "nn": "from torch import nn",
    "F": "import torch.nn.functional as F",
    "tf": "import tensorflow as tf",
    "sns": "import seaborn as sns",
    "Path": "from pathlib import Path",
}


def _name(case: Case) -> Finding:
    found = re.search(r"variable '(\w+)'", case.words)  # local or free: then the exception has no name
    name = found.group(1) if found else str(getattr(case.error, "name", None) or "")
    if not name:
        return Finding(100912, own_words(case))
    if isinstance(case.error, UnboundLocalError):
        return Finding(
            100912,
            Text(
                f"{name} is used in the function before it has a value there.",
                f"函数中的 {name} 在赋值之前就被使用了。",
            ),
            Text(
                f"Give {name} a value first, or pass it to the function as an argument.",
                f"请先给 {name} 赋值，或把它作为参数传入函数。",
            ),
        )
    known = dir(builtins)
    if case.frame is not None:
        known += [*case.frame.f_locals, *case.frame.f_globals]
    statement = _USUAL_IMPORTS.get(name) or (f"import {name}" if _is_module(name) else "")
    if statement:
        step = Text(f"Write {statement} at the top of the program.", f"在程序开头加上 {statement}。")
    else:
        step = did_you_mean(closest(name, known)) or Text(
            f"Give {name} a value before this line; if it is meant as text, put it in quotes: '{name}'.",
            f"在这一行之前给 {name} 赋值；如果它是文字，请加引号：'{name}'。",
        )
    return Finding(100912, Text(f"The name {name} is not defined.", f"名称 {name} 没有定义。"), step)


def _is_module(name: str) -> bool:
    return name in sys.stdlib_module_names or name in _PACKAGES


def _key(case: Case) -> Finding:
    key: object = case.error.args[0] if case.error.args else ""
    columns = _columns(case.error.__traceback__)
    if columns is not None:
        text = Text(f"The table has no column {shown(key)}.", f"表格中没有列 {shown(key)}。")
        known, what = columns, Text("Its columns are", "现有的列是")
    else:
        text = Text(f"There is no key {shown(key)}.", f"不存在键 {shown(key)}。")
        table = value_of(case.node.value, case.frame) if isinstance(case.node, ast.Subscript) else None
        known, what = list(table) if isinstance(table, dict) else [], Text("The keys are", "现有的键是")
    near = closest(key, known)
    hint = Text(f" Did you mean {near!r}?", f"是不是想写 {near!r}？") if near else Text("", "")
    if known:
        step = Text(f"{what.en}: {listed(known)}.{hint.en}", f"{what.zh}：{listed(known)}。{hint.zh}")
    else:
        step = Text(
            "Print the keys (or df.columns) to see the right spelling; d.get(key) gives None instead.",
            "打印所有键（或 df.columns）查看正确写法；用 d.get(key) 可在没有时得到 None。",
        )
    return Finding(100913, text, step)


def _columns(trace: TracebackType | None) -> list[object] | None:
    """Return the columns of the pandas table that a look-up failed in."""
    while trace is not None:
        table: Any = trace.tb_frame.f_locals.get("self")
        if type(table).__name__ == "DataFrame" and type(table).__module__.startswith("pandas"):
            return list(table.columns)
        trace = trace.tb_next
    return None


def _attribute(case: Case) -> Finding:
    if shadowed := _shadowed(case):
        return shadowed
    name, owner = str(getattr(case.error, "name", None) or ""), getattr(case.error, "obj", None)
    if not name:
        return Finding(100914, own_words(case))
    if owner is None:
        return Finding(
            100914,
            Text(f".{name} was used on None, that is, on nothing.", f"对 None（空值）使用了 .{name}。"),
            Text(
                "Find out why it is None: a function without return gives None, and so do sort() and append().",
                "检查这个值为什么是 None：没有 return 的函数会得到 None，sort() 和 append() 也是。",
            ),
        )
    kind = f"module {owner.__name__}" if isinstance(owner, type(sys)) else type(owner).__name__
    try:
        near = closest(name, dir(owner))
    except Exception:  # noqa: BLE001 - anybody's method
        near = ""
    return Finding(
        100914,
        Text(f"{kind} has nothing called {name}.", f"{kind} 没有 {name}。"),
        did_you_mean(near)
        or Text(
            f"Print type() of the value before the dot: it may be something else than you think, here {kind}.",
            f"打印点号前的值的 type()：它可能不是你以为的类型，这里是 {kind}。",
        ),
    )


BY_TYPE: Mapping[type, Finder] = {
    ImportError: _import,
    IndexError: _index,
    NameError: _name,
    KeyError: _key,
    AttributeError: _attribute,
}
