"""What an error means, in words for a student of fifteen: what happened, where, and what to do next.

An explanation names the values of the very error it explains, in English and in Chinese, and has a code
of the catalogue. Errors of NumPy, PyTorch, pandas, scikit-learn and others are recognised by their names
and texts: nothing is imported but the standard library. The texts are those of the libraries' sources.
"""

import ast
import builtins
import difflib
import errno
import linecache
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from k12ai.catalogue import CATALOGUE
from k12ai.texts import Text

UNKNOWN = 999999

_MAX_WORDS = 300
_MAX_MESSAGE = 2000
_MAX_NAMES = 10
_NO_VALUE = object()


class Position(NamedTuple):
    """A line of the student's own program; ``file`` is relative to the project where it is inside of it."""

    file: str
    line: int
    source: str


class Explanation(NamedTuple):
    """What went wrong, and what to do about it; ``exception`` and ``message`` are Python's own words."""

    code: int
    text: Text
    next_step: Text
    exception: str = ""
    message: str = ""
    position: Position | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the body of an ``error`` message; what is not known is left out."""
        body: dict[str, Any] = {"code": self.code, "en": self.text.en, "zh": self.text.zh}
        body |= {"next_step_en": self.next_step.en, "next_step_zh": self.next_step.zh}
        if self.exception:
            body |= {"exception": self.exception, "message": self.message}
        return body | (self.position._asdict() if self.position is not None else {})


class _Told(NamedTuple):
    """A code, what happened and, where there is something better than the catalogue's, the next step."""

    code: int
    text: Text
    next_step: Text | None = None


class _Case(NamedTuple):
    """An exception, and the expression of the student's program that it comes from, as far as known."""

    error: BaseException
    words: str
    frame: FrameType | None
    node: ast.expr | None


def explain(exception: BaseException) -> Explanation:
    """Explain an exception. Code 999999, with the exception's own words, where it is none we know."""
    inner = getattr(exception, "exceptions", None)
    if isinstance(exception, BaseExceptionGroup) and inner:
        return explain(inner[0])
    trace = _own_trace(exception.__traceback__)
    message = _message(exception)
    case = _Case(exception, _short(message), trace.tb_frame if trace else None, _expression(trace))
    found = _by_text(exception, message) or _by_type(case)
    return Explanation(
        found.code,
        found.text,
        found.next_step or CATALOGUE[found.code].next_step,
        type(exception).__name__,
        message[:_MAX_MESSAGE],
        _position(exception, trace),
    )


def explain_end(reason: str, exit_code: int | None, signal: int | None, *, oom: bool) -> Explanation:
    """Explain how a task ended whose program said nothing itself; ``reason`` is a word of `k12ai.task.Reason`.

    ``oom`` says that the kernel killed for memory, which explains an end by SIGKILL and nothing else.
    """
    killed = signal == _SIGKILL or exit_code == 128 + _SIGKILL
    if reason == "oom" or (oom and killed):
        found = _KILLED_FOR_MEMORY
    elif reason in _ENDS:
        found = _ENDS[reason]
    elif signal is not None:
        found = _ended_by(signal)
    elif exit_code is not None and exit_code - 128 in _SIGNALS:  # as shells and sandboxes tell a signal
        found = _ended_by(exit_code - 128)
    elif exit_code is not None and exit_code != 0:
        found = _Told(
            UNKNOWN,
            Text(
                f"The program ended with exit code {exit_code} and reported no error.",
                f"程序以退出码 {exit_code} 结束，没有上报错误。",
            ),
            Text("Read the end of its output.", "请查看输出的最后部分。"),
        )
    else:
        found = _Told(UNKNOWN, CATALOGUE[UNKNOWN].cause)
    return Explanation(found.code, found.text, found.next_step or CATALOGUE[found.code].next_step)


def told(code: int, en: str, zh: str = "", next_step: str = "", next_step_zh: str = "") -> Explanation:
    """Return what a program says of itself; the catalogue fills in what it leaves out."""
    row = CATALOGUE.get(code, CATALOGUE[UNKNOWN])
    step = row.next_step
    if next_step or next_step_zh:
        step = Text(next_step or next_step_zh, next_step_zh or next_step)
    return Explanation(code, Text(en, zh or f"{row.text.zh}：{en}"), step)


# --- where -----------------------------------------------------------------------------------------

_LIBRARIES = tuple(os.path.dirname(path) + os.sep for path in (os.__file__, __file__))


def _started_in() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is gone
        return os.curdir


_PROJECT = _started_in()  # before the program changes its directory


def _is_own(filename: str) -> bool:
    """Return whether a file belongs to the student, not to Python, to a library or to this package."""
    path = os.path.abspath(filename)
    installed = {"site-packages", "dist-packages"} & set(path.split(os.sep))
    return not (filename.startswith("<") or installed or path.startswith(_LIBRARIES))


def _own_trace(trace: TracebackType | None) -> TracebackType | None:
    """Return the innermost part of a traceback that is in the student's own files."""
    found = None
    while trace is not None:
        if _is_own(trace.tb_frame.f_code.co_filename):
            found = trace
        trace = trace.tb_next
    return found


def _position(error: BaseException, trace: TracebackType | None) -> Position | None:
    if isinstance(error, SyntaxError) and error.filename and error.lineno and _is_own(error.filename):
        return Position(
            _relative(error.filename), error.lineno, _source(error.filename, error.lineno, error.text)
        )
    if trace is None:
        return None
    filename = trace.tb_frame.f_code.co_filename
    return Position(_relative(filename), trace.tb_lineno, _source(filename, trace.tb_lineno))


def _relative(filename: str) -> str:
    try:
        path = os.path.relpath(filename, _PROJECT)
    except (OSError, ValueError):  # the directory is gone; another drive of Windows
        return filename
    return filename if path.startswith(os.pardir) else path


def _source(filename: str, line: int, otherwise: str | None = None) -> str:
    return (linecache.getline(filename, line) or otherwise or "").strip()[:_MAX_WORDS]


def _expression(trace: TracebackType | None) -> ast.expr | None:
    """Return the expression that failed, which Python keeps the place of (PEP 657)."""
    if trace is None:
        return None
    places = list(trace.tb_frame.f_code.co_positions())
    if not 0 <= trace.tb_lasti // 2 < len(places):
        return None
    line, end_line, begin, end = places[trace.tb_lasti // 2]
    if line is None or line != end_line or begin is None or end is None:
        return None
    source = linecache.getline(trace.tb_frame.f_code.co_filename, line).encode()[begin:end]
    try:
        return ast.parse(b"(" + source + b")", mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _value(node: ast.expr | None, frame: FrameType | None) -> Any:
    """Return the value of a name, a constant or a negative one; nothing of the program is run for it."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if frame is not None:
            return frame.f_locals.get(name, frame.f_globals.get(name, _NO_VALUE))
    return _NO_VALUE


# --- words -----------------------------------------------------------------------------------------


def _message(error: BaseException) -> str:
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - anybody's method
        return ""
    if "Traceback (most recent call last)" in words:  # an error that came from another process
        words = words.rstrip().rpartition("\n")[2]
    return words


def _short(words: object, limit: int = _MAX_WORDS) -> str:
    text = " ".join(str(words).split())
    return text if len(text) <= limit else text[:limit] + "…"


def _shown(value: object) -> str:
    try:
        return _short(repr(value), 80)
    except Exception:  # noqa: BLE001 - anybody's method
        return type(value).__name__


def _listed(names: Iterable[object]) -> str:
    shown = [_shown(name) for name in names]
    return ", ".join(shown[:_MAX_NAMES]) + (", …" if len(shown) > _MAX_NAMES else "")


def _closest(name: object, names: Iterable[object]) -> str:
    """Return the name that was probably meant, "" where none is near."""
    known = {each.lower(): each for each in names if isinstance(each, str) and not each.startswith("__")}
    found = difflib.get_close_matches(str(name).lower(), list(known), 1, 0.7)
    return known[found[0]] if found else ""


def _did_you_mean(name: str) -> Text | None:
    return Text(f"Did you mean {name}? Correct the name.", f"是不是想写 {name}？请改正名称。") if name else None


# --- by text ---------------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """A text that a library's exceptions have, and what to say; ``{names}`` come from the pattern's groups."""

    code: int
    pattern: re.Pattern[str]
    text: Text
    next_step: Text | None = None


def _rule(code: int, pattern: str, en: str, zh: str, step: Text | None = None) -> _Rule:
    return _Rule(code, re.compile(pattern, re.DOTALL), Text(en, zh), step)


_SHRINK_BATCH = Text(
    "Halve the batch size and start again; if that is not enough, use a smaller model or smaller pictures.",
    "把批大小（batch size）减半后重新开始；如果还不够，换更小的模型或更小的图片。",
)
_LESS_DATA = Text(
    "Work with a part of the data first, or use a smaller type such as float32.",
    "先只处理一部分数据，或使用 float32 等更小的类型。",
)
_CLEAN_DATA = Text(
    "Look for the gaps with df.isna().sum(), then fill them with df.fillna(0) or remove them with df.dropna().",
    "用 df.isna().sum() 找出缺失值，再用 df.fillna(0) 填充或用 df.dropna() 删除。",
)
_CALM_DOWN = Text(
    "Use a learning rate ten times smaller, and scale the data to values near 0 to 1.",
    "把学习率减小到十分之一，并把数据缩放到 0 到 1 附近。",
)
_PRINT_SHAPES = Text(
    "Print the .shape of both just before this line, and make them fit (for example with reshape).",
    "在这一行之前打印两者的 .shape，并让它们匹配（例如用 reshape）。",
)
_SAME_ROWS = Text(
    "Print len() of each: every example needs exactly one label. Cut or reload the longer one.",
    "打印每个的 len()：每个样本都要正好对应一个标签。截短较长的，或重新读取数据。",
)
_SAME_DEVICE = Text(
    "Move the model and the data to the same place: model.to(device) and x.to(device).",
    "把模型和数据放到同一设备上：model.to(device) 和 x.to(device)。",
)

_RULES = (
    _rule(
        100906,
        r"CUDA out of memory.*?Tried to allocate (?P<size>[\d.]+ \w+)",
        "The GPU has no room for {size} more: its memory is full.",
        "GPU 显存已满，无法再分配 {size}。",
        _SHRINK_BATCH,
    ),
    _rule(
        100906,
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|OOM when allocating tensor",
        "The GPU's memory is full.",
        "GPU 显存已满。",
        _SHRINK_BATCH,
    ),
    _rule(
        100901,
        r"DefaultCPUAllocator: .*?(?P<size>\d+) bytes",
        "The program asked for {size} bytes of memory at once, which is more than it may use.",
        "程序一次申请了 {size} 字节内存，超过了允许的上限。",
        _LESS_DATA,
    ),
    _rule(
        100907,
        r"(?i)\bloss\b.{0,20}\b(?P<what>nan|inf(?:inite|inity)?)\b",
        "The loss has become {what}: the training has run away.",
        "损失变成了 {what}：训练已经发散。",
        _CALM_DOWN,
    ),
    _rule(
        100907,
        r"Function '(?P<name>\w+)' returned nan",
        "A gradient has become NaN in {name}.",
        "在 {name} 中，梯度变成了 NaN。",
        _CALM_DOWN,
    ),
    _rule(
        100907,
        r"(?:Input (?P<name>\w+ )?)?contains (?:NaN|infinity|inf\b)|cannot convert (?:float NaN|non-finite)"
        r"|Cannot convert non-finite",
        "The data has gaps (NaN) or infinite values, which cannot be calculated with.",
        "数据中有缺失值（NaN）或无穷大，无法参与计算。",
        _CLEAN_DATA,
    ),
    _rule(
        100921,
        r"operands could not be broadcast together with (?:remapped )?shapes"
        r" (?P<a>\([\d,]*\)) (?P<b>\([\d,]*\))",
        "Arrays of the shapes {a} and {b} do not fit together.",
        "形状为 {a} 和 {b} 的数组不匹配。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"shapes (?P<a>\([\d,]*\)) and (?P<b>\([\d,]*\)) not aligned",
        "Arrays of the shapes {a} and {b} cannot be multiplied: the inner sizes differ.",
        "形状为 {a} 和 {b} 的数组不能相乘：内侧的大小不同。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"mismatch in its core dimension.*\(size (?P<a>\d+) is different from (?P<b>\d+)\)",
        "The arrays cannot be multiplied: the inner sizes {b} and {a} differ.",
        "数组不能相乘：内侧的大小 {b} 和 {a} 不同。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"cannot reshape array of size (?P<n>\d+) into shape (?P<shape>\([\d,]*\))",
        "{n} values do not fill the shape {shape}.",
        "{n} 个值不能排成形状 {shape}。",
        Text(
            "Choose a shape whose sizes multiply to {n}; -1 stands for the one that Python may work out.",
            "请选择各维相乘等于 {n} 的形状；可用 -1 让程序自动计算其中一维。",
        ),
    ),
    _rule(
        100921,
        r"could not broadcast input array from shape (?P<a>\([\d,]*\)) into shape (?P<b>\([\d,]*\))",
        "An array of shape {a} does not fit into a place of shape {b}.",
        "形状为 {a} 的数组放不进形状为 {b} 的位置。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"mat1 and mat2 shapes cannot be multiplied \((?P<a>\w+) and (?P<b>\w+)\)",
        "A layer gets data of size {a}, but its weights are of size {b}: the inner numbers must be equal.",
        "某一层收到大小为 {a} 的数据，但其权重大小为 {b}：中间两个数必须相等。",
        Text(
            "Set the layer's in_features to the last number of the data's size {a}.",
            "把该层的 in_features 设为数据大小 {a} 的最后一个数。",
        ),
    ),
    _rule(
        100921,
        r"size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)",
        "Tensors of the sizes {a} and {b} do not fit together.",
        "大小为 {a} 和 {b} 的张量不匹配。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"shape '(?P<shape>[^']*)' is invalid for input of size (?P<n>\d+)",
        "{n} values do not fill the shape {shape}.",
        "{n} 个值不能排成形状 {shape}。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"Expected input batch_size \((?P<a>\d+)\) to match target batch_size \((?P<b>\d+)\)",
        "The model answers for {a} examples, but there are labels for {b}.",
        "模型给出了 {a} 个样本的结果，但标签有 {b} 个。",
        _PRINT_SHAPES,
    ),
    _rule(
        100921,
        r"expected input(?P<shape>\[[\d, ]*\]) to have (?P<a>\d+) channels, but got (?P<b>\d+)",
        "The layer expects pictures with {a} channels, and these have {b}.",
        "该层需要 {a} 个通道的图片，而这里是 {b} 个。",
        Text(
            "Load the pictures in the same mode (grey has 1 channel, RGB has 3), or set in_channels to {b}.",
            "用相同的模式读取图片（灰度 1 个通道，RGB 3 个），或把 in_channels 设为 {b}。",
        ),
    ),
    _rule(
        100921,
        r"inconsistent numbers of samples: (?P<n>\[[^\]]*\])",
        "The data and the labels have different lengths: {n}.",
        "数据和标签的数量不一致：{n}。",
        _SAME_ROWS,
    ),
    _rule(
        100921,
        r"X has (?P<a>\d+) features?, but (?P<model>\w+) is expecting (?P<b>\d+) features?",
        "{model} was trained with {b} columns, and is now given {a}.",
        "{model} 训练时使用了 {b} 列特征，现在给了 {a} 列。",
        Text(
            "Give the model the same columns, in the same order, as in training.",
            "请给模型与训练时相同、顺序也相同的列。",
        ),
    ),
    _rule(
        100921,
        r"Expected 2D array, got (?P<a>\w+) array instead",
        "The model needs a table (2D), and was given a {a} array.",
        "模型需要二维表格（2D），而这里是 {a} 数组。",
        Text(
            "Use x.reshape(-1, 1) for one column, or x.reshape(1, -1) for one example.",
            "只有一列时用 x.reshape(-1, 1)，只有一个样本时用 x.reshape(1, -1)。",
        ),
    ),
    _rule(
        100921,
        r"Length of values \((?P<a>\d+)\) does not match length of index \((?P<b>\d+)\)",
        "The new column has {a} values, but the table has {b} rows.",
        "新的一列有 {a} 个值，但表格有 {b} 行。",
        _SAME_ROWS,
    ),
    _rule(
        100921,
        r"(?:[Aa]ll (?:the )?(?:input )?array(?:s| dimensions)|inhomogeneous shape|Sizes of tensors must match"
        r"|stack expects each tensor to be equal size|size mismatch|Shapes? .{1,80} (?:are|is) incompatible)",
        "Arrays of different sizes were put together.",
        "把大小不同的数组放在了一起。",
        _PRINT_SHAPES,
    ),
    _rule(
        100917,
        r"Expected all tensors to be on the same device.*?(?P<a>cuda:\d+|cpu).*?(?P<b>cuda:\d+|cpu)",
        "One tensor is on {a} and another on {b}.",
        "一个张量在 {a} 上，另一个在 {b} 上。",
        _SAME_DEVICE,
    ),
    _rule(
        100917,
        r"can't convert (?P<a>cuda:\d+) device type tensor to numpy",
        "A tensor on the GPU ({a}) cannot become a NumPy array directly.",
        "GPU（{a}）上的张量不能直接变成 NumPy 数组。",
        Text("Write x.detach().cpu().numpy().", "请写 x.detach().cpu().numpy()。"),
    ),
    _rule(
        100917,
        r"expected scalar type (?P<a>\w+) but found (?P<b>\w+)|expected m1 and m2 to have the same dtype",
        "The tensors hold numbers of different types.",
        "张量中的数字类型不一致。",
        Text("Convert both with .float() (labels with .long()).", "都用 .float() 转换（标签用 .long()）。"),
    ),
    _rule(
        100911,
        r"device-side assert triggered|Target (?P<n>-?\d+) is out of bounds",
        "A label is outside of the classes that the model has.",
        "有标签超出了模型的类别范围。",
        Text(
            "With n classes the labels are 0 to n-1; print labels.min() and labels.max().",
            "有 n 个类别时，标签应为 0 到 n-1；请打印 labels.min() 和 labels.max()。",
        ),
    ),
    _rule(
        100931,
        r"No CUDA GPUs are available|not compiled with CUDA|Found no NVIDIA driver"
        r"|CUDA driver version is insufficient|deserialize object on a CUDA device",
        "The program asks for a GPU, and this task has none.",
        "程序要使用 GPU，但此任务没有 GPU。",
        Text(
            "Write device = 'cuda' if torch.cuda.is_available() else 'cpu' and use .to(device); "
            "load models with map_location='cpu'.",
            "写 device = 'cuda' if torch.cuda.is_available() else 'cpu' 并使用 .to(device)；"
            "读取模型时加 map_location='cpu'。",
        ),
    ),
    _rule(
        100926,
        r"DataLoader worker \(pid\(?s?\)? ?(?P<n>[\d, ]+)\).*?(?:killed|exited unexpectedly)",
        "A process that loads data (pid {n}) was ended, mostly for lack of memory.",
        "读取数据的进程（pid {n}）被终止，多半是内存不足。",
        Text("Use num_workers=0 and a smaller batch size.", "使用 num_workers=0，并减小批大小。"),
    ),
)
_NETWORK = re.compile(
    r"Network is unreachable|Temporary failure in name resolution|Name or service not known"
    r"|No address associated|Connection refused|Failed to establish a new connection|couldn't connect to"
    r"|Failed to resolve|nodename nor servname"
)
_HOST = re.compile(r"https?://(?P<url>[\w.-]+)|host='(?P<host>[\w.-]+)'")


def _by_text(error: BaseException, message: str) -> _Told | None:
    """Recognise what libraries say, whatever exception they say it with."""
    if isinstance(error, (SyntaxError, KeyError, NameError, ImportError)):
        return None  # their texts hold words of the program
    if _is_network(error, message):
        return _network(message)
    if type(error).__name__ == "OutOfMemoryError" and not _RULES[0].pattern.search(message):
        return _Told(100906, _RULES[1].text, _SHRINK_BATCH)
    for rule in _RULES:
        if found := rule.pattern.search(message[:_MAX_MESSAGE]):
            words = found.groupdict()
            step = rule.next_step
            return _Told(rule.code, rule.text.format(**words), step.format(**words) if step else None)
    return None


def _is_network(error: BaseException, message: str) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, BrokenPipeError):
        return False
    return bool({"ConnectionError", "ConnectError", "gaierror", "MaxRetryError"} & names) or (
        isinstance(error, OSError)
        and (error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) or _NETWORK.search(message) is not None)
    )


def _network(message: str) -> _Told:
    found = _HOST.search(message)
    host = next((name for name in found.groups() if name), "") if found else ""
    en, zh = (f" ({host})", f"（{host}）") if host else ("", "")
    return _Told(
        100924,
        Text(
            f"The program wants to reach the network{en}, and tasks have none: {_short(message, 120)}",
            f"程序要访问网络{zh}，但任务中没有网络：{_short(message, 120)}",
        ),
        Text(
            "Download the file on your own computer, upload it to the project, and open it from there.",
            "先在自己的电脑上下载文件，上传到项目中，再从项目里打开。",
        ),
    )


# --- by type ---------------------------------------------------------------------------------------


def _memory(case: _Case) -> _Told:
    found = re.search(
        r"Unable to allocate (?P<size>[\d.]+ \w+) for an array with shape (\([\d, ]*\))", case.words
    )
    if found is None:
        return _Told(
            100901, Text("The program needs more memory than it may use.", "程序所需内存超过了允许的上限。")
        )
    size, shape = found.groups()
    return _Told(
        100901,
        Text(
            f"There is no room for an array of shape {shape}, which needs {size}.",
            f"内存不足：形状为 {shape} 的数组需要 {size}。",
        ),
        _LESS_DATA,
    )


def _floating_point(case: _Case) -> _Told:
    return _Told(
        100907,
        Text(
            f"A calculation left the range of numbers: {case.words}.", f"计算结果超出了数值范围：{case.words}。"
        ),
        _CALM_DOWN,
    )


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


def _import(case: _Case) -> _Told:
    if shadowed := _shadowed(case):
        return shadowed
    error = case.error
    name = (error.name if isinstance(error, ImportError) else None) or ""
    if isinstance(error, ModuleNotFoundError) and name:
        return _no_module(name)
    found = re.search(r"cannot import name '(?P<what>[^']+)' from '(?P<module>[^']+)'", case.words)
    if found is None:
        return _Told(
            100910,
            Text(f"A module cannot be loaded: {case.words}", f"模块无法加载：{case.words}"),
            Text("Ask your teacher to look at this package.", "请让老师检查这个包。"),
        )
    what, module = found.groups()
    near = _closest(what, dir(sys.modules.get(module)))
    return _Told(
        100910,
        Text(f"The module {module} has nothing called {what}.", f"模块 {module} 中没有 {what}。"),
        _did_you_mean(near)
        or Text(
            f"Check the spelling of {what}, and the version of {module}.",
            f"检查 {what} 的拼写和 {module} 的版本。",
        ),
    )


def _no_module(name: str) -> _Told:
    root = name.partition(".")[0]
    text = Text(
        f"The program imports {name}, and there is no such module here.",
        f"程序导入了 {name}，但这里没有这个模块。",
    )
    package = _PACKAGES.get(root, "")
    files = [each.removesuffix(".py") for each in _files(".") if each.endswith(".py")]
    near = "" if package else _closest(root, [*files, *_PACKAGES, *sys.stdlib_module_names])
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
    return _Told(100910, text, step)


def _shadowed(case: _Case) -> _Told | None:
    """Recognise a file of the student's that hides the library of the same name, a classic."""
    # The second is what Python 3.13 and later say.
    found = re.search(r"partially initialized module '(\w+)'|consider renaming '(?:.*/)?(\w+)\.py'", case.words)
    name = (found.group(1) or found.group(2)) if found else ""
    if not name or not _is_own(getattr(sys.modules.get(name), "__file__", None) or f"{name}.py"):
        return None
    return _Told(
        100910,
        Text(
            f"{name} is not complete yet: your file {name}.py hides the library {name}, or imports itself.",
            f"{name} 尚未加载完成：你的文件 {name}.py 遮住了同名的库 {name}，或导入了自己。",
        ),
        Text(f"Give your file {name}.py another name.", f"请给文件 {name}.py 换一个名字。"),
    )


def _index(case: _Case) -> _Told:
    found = re.search(
        r"index (-?\d+) is out of bounds for (?:axis|dimension) (\d+) with size (\d+)", case.words
    )
    name = "the array", "数组"
    if found:
        wanted, size = int(found.group(1)), int(found.group(3))
    elif isinstance(case.node, ast.Subscript):
        items, index = _value(case.node.value, case.frame), _value(case.node.slice, case.frame)
        if not isinstance(items, (list, tuple, str, range)) or not isinstance(index, int):
            return _Told(100911, _own_words(case))
        wanted, size = index, len(items)
        name = (ast.unparse(case.node.value),) * 2
    else:
        return _Told(100911, _own_words(case))
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
    return _Told(100911, text, step)


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


def _name(case: _Case) -> _Told:
    found = re.search(r"variable '(\w+)'", case.words)  # local or free: then the exception has no name
    name = found.group(1) if found else str(getattr(case.error, "name", None) or "")
    if not name:
        return _Told(100912, _own_words(case))
    if isinstance(case.error, UnboundLocalError):
        return _Told(
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
        step = _did_you_mean(_closest(name, known)) or Text(
            f"Give {name} a value before this line; if it is meant as text, put it in quotes: '{name}'.",
            f"在这一行之前给 {name} 赋值；如果它是文字，请加引号：'{name}'。",
        )
    return _Told(100912, Text(f"The name {name} is not defined.", f"名称 {name} 没有定义。"), step)


def _is_module(name: str) -> bool:
    return name in sys.stdlib_module_names or name in _PACKAGES


def _key(case: _Case) -> _Told:
    key: object = case.error.args[0] if case.error.args else ""
    columns = _columns(case.error.__traceback__)
    if columns is not None:
        text = Text(f"The table has no column {_shown(key)}.", f"表格中没有列 {_shown(key)}。")
        known, what = columns, Text("Its columns are", "现有的列是")
    else:
        text = Text(f"There is no key {_shown(key)}.", f"不存在键 {_shown(key)}。")
        table = _value(case.node.value, case.frame) if isinstance(case.node, ast.Subscript) else None
        known, what = list(table) if isinstance(table, dict) else [], Text("The keys are", "现有的键是")
    near = _closest(key, known)
    hint = Text(f" Did you mean {near!r}?", f"是不是想写 {near!r}？") if near else Text("", "")
    if known:
        step = Text(f"{what.en}: {_listed(known)}.{hint.en}", f"{what.zh}：{_listed(known)}。{hint.zh}")
    else:
        step = Text(
            "Print the keys (or df.columns) to see the right spelling; d.get(key) gives None instead.",
            "打印所有键（或 df.columns）查看正确写法；用 d.get(key) 可在没有时得到 None。",
        )
    return _Told(100913, text, step)


def _columns(trace: TracebackType | None) -> list[object] | None:
    """Return the columns of the pandas table that a look-up failed in."""
    while trace is not None:
        table: Any = trace.tb_frame.f_locals.get("self")
        if type(table).__name__ == "DataFrame" and type(table).__module__.startswith("pandas"):
            return list(table.columns)
        trace = trace.tb_next
    return None


def _attribute(case: _Case) -> _Told:
    if shadowed := _shadowed(case):
        return shadowed
    name, owner = str(getattr(case.error, "name", None) or ""), getattr(case.error, "obj", None)
    if not name:
        return _Told(100914, _own_words(case))
    if owner is None:
        return _Told(
            100914,
            Text(f".{name} was used on None, that is, on nothing.", f"对 None（空值）使用了 .{name}。"),
            Text(
                "Find out why it is None: a function without return gives None, and so do sort() and append().",
                "检查这个值为什么是 None：没有 return 的函数会得到 None，sort() 和 append() 也是。",
            ),
        )
    kind = f"module {owner.__name__}" if isinstance(owner, type(sys)) else type(owner).__name__
    try:
        near = _closest(name, dir(owner))
    except Exception:  # noqa: BLE001 - anybody's method
        near = ""
    return _Told(
        100914,
        Text(f"{kind} has nothing called {name}.", f"{kind} 没有 {name}。"),
        _did_you_mean(near)
        or Text(
            f"Print type() of the value before the dot: it may be something else than you think, here {kind}.",
            f"打印点号前的值的 type()：它可能不是你以为的类型，这里是 {kind}。",
        ),
    )


_SYNTAX = (
    (r"invalid (?:non-printable )?character '?(?P<a>.)?'?.*\((?P<u>U\+\w+)\)", None),
    (
        r"Missing parentheses in call to '(\w+)'",
        Text("Put brackets: print(...).", "请加括号：print(...)。"),
    ),
    (
        r"'(.)' was never closed|unexpected EOF",
        Text("Add the closing bracket.", "请补上右括号。"),
    ),
    (
        r"unmatched '(.)'|closing parenthesis",
        Text("Count the brackets: each opening one needs its closing one.", "数一数括号：左右括号必须成对。"),
    ),
    (
        r"unterminated .*string",
        Text("Add the missing quotation mark at the end of the text.", "请在文字末尾补上引号。"),
    ),
    (
        r"expected ':'",
        Text("Put a colon : at the end of this line.", "请在这一行末尾加上英文冒号 :。"),
    ),
    (
        r"'==' (?:or ':=' )?instead of '='",
        Text("To compare, write == instead of =.", "比较时请写 == 而不是 =。"),
    ),
    (
        r"forgot a comma",
        Text("Put the missing comma between the values.", "请在各个值之间补上逗号。"),
    ),
    (
        r"codec can't decode|Non-UTF-8 code|null bytes",
        Text("Save the program as UTF-8 and upload it again.", "请把程序另存为 UTF-8 编码后重新上传。"),
    ),
)


def _syntax(case: _Case) -> _Told:
    words = _short(getattr(case.error, "msg", None) or case.words)
    for pattern, step in _SYNTAX:
        found = re.search(pattern, words)
        if found and step is None:
            return _wrong_character(found.group("a") or "", found.group("u"))
        if found:
            return _Told(
                100915,
                Text(f"Python cannot read this line: {words}.", f"Python 无法解析这一行：{words}。"),
                step,
            )
    return _Told(
        100915,
        Text(f"Python cannot read this line: {words}.", f"Python 无法解析这一行：{words}。"),
        Text(
            "Look closely at the line: a bracket or a quotation mark may be missing in the line before.",
            "仔细检查这一行；也可能是上一行缺少括号或引号。",
        ),
    )


def _wrong_character(character: str, point: str) -> _Told:
    shown = f"{character} ({point})" if character.strip() else point
    return _Told(
        100915,
        Text(
            f"The character {shown} is not allowed in a program outside of texts.",
            f"程序中（文字之外）不能使用字符 {shown}。",
        ),
        Text(
            "Type it again with the English keyboard: , ; : ( ) ' \" instead of the Chinese signs.",
            "请切换到英文输入法重新输入：使用 , ; : ( ) ' \" 而不是中文标点。",
        ),
    )


def _indentation(case: _Case) -> _Told:
    words = _short(getattr(case.error, "msg", None) or case.words)
    if isinstance(case.error, TabError):
        zh, step = (
            "缩进中混用了制表符和空格",
            Text("Use 4 spaces for each level, and no tabs.", "每一级缩进用 4 个空格，不要用制表符。"),
        )
    elif words.startswith("expected"):
        zh, step = (
            "这里缺少缩进的代码块",
            Text("Move the line 4 spaces to the right.", "请把这一行向右缩进 4 个空格。"),
        )
    elif words.startswith("unindent"):
        zh, step = (
            "这一行的缩进与前面的都不对齐",
            Text("Put the line exactly below the block that it belongs to.", "请让这一行与所属的代码块对齐。"),
        )
    else:
        zh, step = (
            "这里不应该有缩进",
            Text("Remove the spaces at the start of the line.", "请删除行首多余的空格。"),
        )
    return _Told(
        100916, Text(f"The spaces at the start of the line do not fit: {words}.", f"{zh}（{words}）。"), step
    )


_TYPES = (
    _rule(
        100917,
        r"can only concatenate (?P<a>\w+) \(not \"(?P<b>\w+)\"\)",
        "{a} and {b} cannot be joined with +.",
        "{a} 和 {b} 不能用 + 连接。",
        Text(
            "Convert one of them: str(x) makes text of a number, int(x) or float(x) makes a number of text.",
            "请转换其中一个：str(x) 把数字变成文字，int(x) 或 float(x) 把文字变成数字。",
        ),
    ),
    _rule(
        100917,
        r"unsupported operand type\(s\) for (?P<op>.+?): '(?P<a>.+?)' and '(?P<b>.+?)'",
        "{op} does not work between {a} and {b}.",
        "{a} 和 {b} 之间不能进行 {op} 运算。",
        Text(
            "Print type() of both; convert text with int(x) or float(x). NoneType: a return is missing.",
            "打印两者的 type()；文字可用 int(x) 或 float(x) 转换。NoneType 表示函数缺少 return。",
        ),
    ),
    _rule(
        100917,
        r"'(?P<op>\S+)' not supported between instances of '(?P<a>\w+)' and '(?P<b>\w+)'",
        "{a} and {b} cannot be compared with {op}.",
        "{a} 和 {b} 不能用 {op} 比较。",
        Text("Convert text with int(x) or float(x) first.", "请先用 int(x) 或 float(x) 转换文字。"),
    ),
    _rule(
        100917,
        r"'(?P<a>\w+)' object is not callable",
        "Something of type {a} was called like a function, with brackets ().",
        "把 {a} 类型的值当作函数加括号 () 调用了。",
        Text(
            "Use [ ] to take an item; and give no variable the name of a function, such as list, sum or max.",
            "取元素请用 [ ]；也不要用 list、sum、max 等函数名作变量名。",
        ),
    ),
    _rule(
        100917,
        r"'(?P<a>\w+)' object is not (?P<what>subscriptable|iterable)|cannot unpack non-iterable (?P<b>\w+)",
        "A single value was used as if it were a list: {a}{b}.",
        "把单个值当成列表使用了：{a}{b}。",
        Text(
            "Print the value: a number or None has no items. For counting, write for i in range(n).",
            "打印这个值：数字或 None 没有元素。计数循环请写 for i in range(n)。",
        ),
    ),
    _rule(
        100917,
        r"(?P<f>\S+\(\)) missing \d+ required .*?arguments?: (?P<what>.+)",
        "{f} was called without {what}.",
        "调用 {f} 时缺少参数 {what}。",
        Text("Give it between the brackets of the call.", "请在调用的括号中补上。"),
    ),
    _rule(
        100917,
        r"(?P<f>\S+\(\)) takes (?P<a>.+?) positional arguments? but (?P<b>\d+)",
        "{f} takes {a} arguments, and was given {b}.",
        "{f} 需要 {a} 个参数，却给了 {b} 个。",
        Text(
            "Compare the call with the function's def line; a method's first parameter is self.",
            "把调用与函数的 def 行比较；方法的第一个参数是 self。",
        ),
    ),
    _rule(
        100917,
        r"(?P<f>\S+\(\)) got an unexpected keyword argument '(?P<what>\w+)'",
        "{f} has no parameter called {what}.",
        "{f} 没有名为 {what} 的参数。",
        Text("Check its spelling with help().", "用 help() 查看参数的正确写法。"),
    ),
)
_VALUES = (
    _rule(
        100918,
        r"invalid literal for int\(\) with base \d+: (?P<a>.+)|could not convert string to float: (?P<b>.+)",
        "The text {a}{b} is not a number.",
        "文字 {a}{b} 不是数字。",
        Text(
            "Look for headings, spaces or empty cells in the data and skip them; turn words into numbers.",
            "检查数据中的表头、空格或空单元格并跳过；文字类别要先转换成数字。",
        ),
    ),
    _rule(
        100918,
        r"not enough values to unpack \(expected (?:at least )?(?P<a>\d+), got (?P<b>\d+)\)",
        "{a} values were expected on the right of =, but there are {b}.",
        "等号右边应有 {a} 个值，实际有 {b} 个。",
        Text("Print the right side before this line.", "请在这一行之前打印等号右边的内容。"),
    ),
    _rule(
        100918,
        r"too many values to unpack \(expected (?P<a>\d+)",
        "There are more values on the right of = than the {a} names on the left.",
        "等号右边的值多于左边的 {a} 个名称。",
        Text("Print the right side before this line.", "请在这一行之前打印等号右边的内容。"),
    ),
    _rule(
        100918,
        r"(?P<model>\w+) instance is not fitted yet",
        "{model} was asked before it was trained.",
        "{model} 还没有训练就被使用了。",
        Text("Call model.fit(X, y) first.", "请先调用 model.fit(X, y)。"),
    ),
    _rule(
        100918,
        r"truth value of an? .* is ambiguous",
        "A whole array was used where one True or False is needed.",
        "在需要一个 True 或 False 的地方使用了整个数组。",
        Text(
            "Use .any() or .all(), and & and | instead of and and or.",
            "请使用 .any() 或 .all()，并用 & 和 | 代替 and 和 or。",
        ),
    ),
)


def _by_rules(code: int, rules: Iterable[_Rule]) -> Callable[[_Case], _Told]:
    def told_by(case: _Case) -> _Told:
        for rule in rules:
            if found := rule.pattern.search(case.words):
                words = {name: value or "" for name, value in found.groupdict().items()}
                return _Told(rule.code, rule.text.format(**words), rule.next_step)
        return _Told(code, _own_words(case))

    return told_by


def _division(case: _Case) -> _Told:
    divisor = ast.unparse(case.node.right) if isinstance(case.node, ast.BinOp) else ""
    if not divisor:
        return _Told(100930, Text("Something was divided by zero.", "程序中出现了除以零。"))
    return _Told(
        100930,
        Text(f"Something was divided by {divisor}, which is 0.", f"除数 {divisor} 等于 0。"),
        Text(
            f"Find out why {divisor} is 0, or ask before dividing: if {divisor} != 0.",
            f"检查 {divisor} 为什么是 0，或在除之前判断：if {divisor} != 0。",
        ),
    )


def _files(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory or "."))
    except OSError:
        return []


def _no_file(case: _Case) -> _Told:
    filename = getattr(case.error, "filename", None)
    if not isinstance(filename, (str, bytes)) or not filename:
        return _Told(100919, _own_words(case))
    path = os.fsdecode(filename)
    text = Text(f"There is no file {path!r}.", f"找不到文件 {path!r}。")
    directory, name = os.path.split(path)
    files = _files(directory)
    near = _closest(name, files)
    if near:
        return _Told(100919, text, _did_you_mean(repr(os.path.join(directory, near))))
    if re.match(r"[A-Za-z]:[\\/]", path):
        step = Text(
            "This is a path of your own computer. Upload the file to the project and write only its name.",
            "这是你自己电脑上的路径。请把文件上传到项目，只写文件名。",
        )
    elif files:
        step = Text(
            f"Upload it to the project, or use one that is there: {_listed(files)}.",
            f"请把它上传到项目，或使用已有的文件：{_listed(files)}。",
        )
    else:
        step = Text(
            f"Upload {name!r} to the project; the folder {directory or '.'!r} is empty or missing.",
            f"请把 {name!r} 上传到项目；文件夹 {directory or '.'!r} 是空的或不存在。",
        )
    return _Told(100919, text, step)


def _folder(case: _Case) -> _Told:
    path = _shown(getattr(case.error, "filename", None) or case.words)
    return _Told(
        100919,
        Text(
            f"A file was expected at {path}, and a folder was found, or the other way round.",
            f"{path} 应为文件却是文件夹，或反之。",
        ),
        Text("Write the whole path, with the name of the file at its end.", "请写完整路径，并以文件名结尾。"),
    )


def _permission(case: _Case) -> _Told:
    path = getattr(case.error, "filename", None)
    place = (f" {path!r}", f" {path!r} ") if path else (f": {case.words}", f"：{case.words}")
    return _Told(
        100920,
        Text(f"The program may not use{place[0]}.", f"程序无权访问{place[1]}。"),
        Text(
            "Use a path inside of the project, such as 'model.pkl', without / at the beginning.",
            "请使用项目内的路径，例如 'model.pkl'，开头不要写 /。",
        ),
    )


def _system(case: _Case) -> _Told:
    number = getattr(case.error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _Told(100928, Text(f"The disk is full: {case.words}.", f"磁盘已满，无法写入：{case.words}。"))
    if number == errno.EROFS:
        return _permission(case)
    return _Told(UNKNOWN, _own_words(case), _READ_TRACEBACK)


def _exists(case: _Case) -> _Told:
    path = _shown(getattr(case.error, "filename", None) or case.words)
    return _Told(
        UNKNOWN,
        Text(f"{path} exists already.", f"{path} 已经存在。"),
        Text("Write os.makedirs(path, exist_ok=True).", "请写 os.makedirs(path, exist_ok=True)。"),
    )


def _encoding(case: _Case) -> _Told:
    error = case.error
    if not isinstance(error, UnicodeDecodeError):
        return _Told(
            100923,
            Text(f"A character cannot be written: {case.words}.", f"有字符无法写出：{case.words}。"),
            Text("Open the file with encoding='utf-8'.", "打开文件时加上 encoding='utf-8'。"),
        )
    meant = _encoding_of(error.object[: 1 << 16])
    byte, place = f"0x{error.object[error.start]:02x}", error.start
    return _Told(
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


def _recursion(case: _Case) -> _Told:
    name = case.frame.f_code.co_name if case.frame is not None else ""
    if not name or name == "<module>":
        return _Told(100925, Text("A function calls itself without end.", "函数无休止地调用自己。"))
    return _Told(
        100925,
        Text(
            f"The function {name} calls itself again and again, more than {sys.getrecursionlimit()} deep.",
            f"函数 {name} 不断调用自己，深度超过了 {sys.getrecursionlimit()}。",
        ),
        Text(
            f"Give {name} a case in which it returns without calling itself, such as if n <= 1: return 1.",
            f"为 {name} 加上不再调用自己就返回的情况，例如 if n <= 1: return 1。",
        ),
    )


def _assertion(case: _Case) -> _Told:
    words = case.words or (ast.unparse(case.node) if case.node is not None else "assert")
    return _Told(100927, Text(f"A condition does not hold: {words}.", f"条件不成立：{words}。"))


def _no_input(case: _Case) -> _Told:
    if "reading a line" in case.words:
        return _Told(
            100929,
            Text(
                "The program waits for input(), and a task has no keyboard.",
                "程序在等待 input()，但任务没有键盘。",
            ),
        )
    return _Told(
        UNKNOWN,
        Text(f"A file is empty or ends too early: {case.words}.", f"文件是空的或不完整：{case.words}。"),
        Text("Make or upload the file again.", "请重新生成或上传该文件。"),
    )


def _interrupted(_case: _Case) -> _Told:
    return _Told(100004, Text("The program was interrupted.", "程序被中断。"))


_READ_TRACEBACK = Text(
    "Read the last lines of the output, and the named line of the program.",
    "查看输出的最后几行，以及指出的那一行程序。",
)


def _own_words(case: _Case) -> Text:
    kind = type(case.error).__name__
    words = f": {case.words}" if case.words else ""
    return Text(f"{kind}{words}", f"程序出错（{kind}）{words.replace(': ', '：', 1)}")


def _unknown(case: _Case) -> _Told:
    return _Told(UNKNOWN, _own_words(case), _READ_TRACEBACK)


_BY_TYPE: Mapping[type, Callable[[_Case], _Told]] = {
    MemoryError: _memory,
    FloatingPointError: _floating_point,
    ImportError: _import,
    IndexError: _index,
    NameError: _name,
    KeyError: _key,
    AttributeError: _attribute,
    SyntaxError: _syntax,
    IndentationError: _indentation,
    TypeError: _by_rules(100917, _TYPES),
    ValueError: _by_rules(100918, _VALUES),
    UnicodeError: _encoding,
    ZeroDivisionError: _division,
    FileNotFoundError: _no_file,
    IsADirectoryError: _folder,
    NotADirectoryError: _folder,
    FileExistsError: _exists,
    PermissionError: _permission,
    OSError: _system,
    RecursionError: _recursion,
    AssertionError: _assertion,
    EOFError: _no_input,
    KeyboardInterrupt: _interrupted,
    BaseException: _unknown,
}


def _by_type(case: _Case) -> _Told:
    return next(_BY_TYPE[kind] for kind in type(case.error).__mro__ if kind in _BY_TYPE)(case)


# --- ends without an exception ---------------------------------------------------------------------

_SIGKILL = 9
_SIGNALS = {
    4: ("SIGILL", Text("it ran an instruction that this processor does not have", "执行了处理器不支持的指令")),
    6: ("SIGABRT", Text("a library gave up", "某个库中止了程序")),
    7: (
        "SIGBUS",
        Text(
            "it used memory that is not there, often a full /dev/shm", "访问了不存在的内存，常因 /dev/shm 已满"
        ),
    ),
    8: ("SIGFPE", Text("it divided by zero in compiled code", "编译代码中出现除以零")),
    9: ("SIGKILL", Text("somebody, or the system, killed it", "被他人或系统强制结束")),
    11: ("SIGSEGV", Text("it used memory that is not its own", "访问了不属于它的内存")),
    15: ("SIGTERM", Text("somebody asked it to end", "有人要求它结束")),
}
_KILLED_FOR_MEMORY = _Told(
    100901,
    Text(
        "The task was killed because it needed more memory than it may use.",
        "任务所需内存超过了允许的上限，已被系统强制结束。",
    ),
)
_ENDS = {
    "timeout": _Told(
        100922, Text("The task was stopped because its time was over.", "任务运行时间超过了上限，已被停止。")
    ),
    "stopped": _Told(100004, Text("The task was stopped by hand.", "任务被手动停止。")),
    "stopped_by_user": _Told(100004, Text("The task was stopped by hand.", "任务被手动停止。")),
    "start_failed": _Told(
        100202,
        Text("The task's program could not be started.", "任务的程序无法启动。"),
        CATALOGUE[UNKNOWN].next_step,
    ),
    "lost": _Told(
        UNKNOWN,
        Text(
            "The task vanished without a trace, as when the machine goes down.",
            "任务消失了，例如机器意外关机。",
        ),
        Text("Start it again.", "请重新启动任务。"),
    ),
}


def _ended_by(signal: int) -> _Told:
    name, cause = _SIGNALS.get(signal, (f"signal {signal}", Text("nothing more is known", "没有更多信息")))
    return _Told(
        100926,
        Text(f"The program was ended by {name}: {cause.en}.", f"程序被 {name} 终止：{cause.zh}。"),
        Text(
            "Start it again; if that does not help, use less data and show your teacher the end of its output.",
            "请重新运行；如果再次出现，请减少数据后再试，并把输出的最后部分给老师看。",
        ),
    )
