"""What libraries say, whatever exception they say it with."""

import errno
import re

from k12ai.explain.model import Finding, make_rule
from k12ai.explain.words import MAX_MESSAGE, shortened
from k12ai.texts import Text

_SHRINK_BATCH = Text(
    "Halve the batch size and start again; if that is not enough, use a smaller model or smaller pictures.",
    "把批大小（batch size）减半后重新开始；如果还不够，换更小的模型或更小的图片。",
)
LESS_DATA = Text(
    "Work with a part of the data first, or use a smaller type such as float32.",
    "先只处理一部分数据，或使用 float32 等更小的类型。",
)
_CLEAN_DATA = Text(
    "Look for the gaps with df.isna().sum(), then fill them with df.fillna(0) or remove them with df.dropna().",
    "用 df.isna().sum() 找出缺失值，再用 df.fillna(0) 填充或用 df.dropna() 删除。",
)
CALM_DOWN = Text(
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
    make_rule(
        100906,
        r"CUDA out of memory.*?Tried to allocate (?P<size>[\d.]+ \w+)",
        "The GPU has no room for {size} more: its memory is full.",
        "GPU 显存已满，无法再分配 {size}。",
        _SHRINK_BATCH,
    ),
    make_rule(
        100906,
        r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|OOM when allocating tensor",
        "The GPU's memory is full.",
        "GPU 显存已满。",
        _SHRINK_BATCH,
    ),
    make_rule(
        100901,
        r"DefaultCPUAllocator: .*?(?P<size>\d+) bytes",
        "The program asked for {size} bytes of memory at once, which is more than it may use.",
        "程序一次申请了 {size} 字节内存，超过了允许的上限。",
        LESS_DATA,
    ),
    make_rule(
        100907,
        r"(?i)\bloss\b.{0,20}\b(?P<what>nan|inf(?:inite|inity)?)\b",
        "The loss has become {what}: the training has run away.",
        "损失变成了 {what}：训练已经发散。",
        CALM_DOWN,
    ),
    make_rule(
        100907,
        r"Function '(?P<name>\w+)' returned nan",
        "A gradient has become NaN in {name}.",
        "在 {name} 中，梯度变成了 NaN。",
        CALM_DOWN,
    ),
    make_rule(
        100907,
        r"(?:Input (?P<name>\w+ )?)?contains (?:NaN|infinity|inf\b)|cannot convert (?:float NaN|non-finite)"
        r"|Cannot convert non-finite",
        "The data has gaps (NaN) or infinite values, which cannot be calculated with.",
        "数据中有缺失值（NaN）或无穷大，无法参与计算。",
        _CLEAN_DATA,
    ),
    make_rule(
        100921,
        r"operands could not be broadcast together with (?:remapped )?shapes"
        r" (?P<a>\([\d,]*\)) (?P<b>\([\d,]*\))",
        "Arrays of the shapes {a} and {b} do not fit together.",
        "形状为 {a} 和 {b} 的数组不匹配。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"shapes (?P<a>\([\d,]*\)) and (?P<b>\([\d,]*\)) not aligned",
        "Arrays of the shapes {a} and {b} cannot be multiplied: the inner sizes differ.",
        "形状为 {a} 和 {b} 的数组不能相乘：内侧的大小不同。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"mismatch in its core dimension.*\(size (?P<a>\d+) is different from (?P<b>\d+)\)",
        "The arrays cannot be multiplied: the inner sizes {b} and {a} differ.",
        "数组不能相乘：内侧的大小 {b} 和 {a} 不同。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"cannot reshape array of size (?P<n>\d+) into shape (?P<shape>\([\d,]*\))",
        "{n} values do not fill the shape {shape}.",
        "{n} 个值不能排成形状 {shape}。",
        Text(
            "Choose a shape whose sizes multiply to {n}; -1 stands for the one that Python may work out.",
            "请选择各维相乘等于 {n} 的形状；可用 -1 让程序自动计算其中一维。",
        ),
    ),
    make_rule(
        100921,
        r"could not broadcast input array from shape (?P<a>\([\d,]*\)) into shape (?P<b>\([\d,]*\))",
        "An array of shape {a} does not fit into a place of shape {b}.",
        "形状为 {a} 的数组放不进形状为 {b} 的位置。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"mat1 and mat2 shapes cannot be multiplied \((?P<a>\w+) and (?P<b>\w+)\)",
        "A layer gets data of size {a}, but its weights are of size {b}: the inner numbers must be equal.",
        "某一层收到大小为 {a} 的数据，但其权重大小为 {b}：中间两个数必须相等。",
        Text(
            "Set the layer's in_features to the last number of the data's size {a}.",
            "把该层的 in_features 设为数据大小 {a} 的最后一个数。",
        ),
    ),
    make_rule(
        100921,
        r"size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)",
        "Tensors of the sizes {a} and {b} do not fit together.",
        "大小为 {a} 和 {b} 的张量不匹配。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"shape '(?P<shape>[^']*)' is invalid for input of size (?P<n>\d+)",
        "{n} values do not fill the shape {shape}.",
        "{n} 个值不能排成形状 {shape}。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"Expected input batch_size \((?P<a>\d+)\) to match target batch_size \((?P<b>\d+)\)",
        "The model answers for {a} examples, but there are labels for {b}.",
        "模型给出了 {a} 个样本的结果，但标签有 {b} 个。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100921,
        r"expected input(?P<shape>\[[\d, ]*\]) to have (?P<a>\d+) channels, but got (?P<b>\d+)",
        "The layer expects pictures with {a} channels, and these have {b}.",
        "该层需要 {a} 个通道的图片，而这里是 {b} 个。",
        Text(
            "Load the pictures in the same mode (grey has 1 channel, RGB has 3), or set in_channels to {b}.",
            "用相同的模式读取图片（灰度 1 个通道，RGB 3 个），或把 in_channels 设为 {b}。",
        ),
    ),
    make_rule(
        100921,
        r"inconsistent numbers of samples: (?P<n>\[[^\]]*\])",
        "The data and the labels have different lengths: {n}.",
        "数据和标签的数量不一致：{n}。",
        _SAME_ROWS,
    ),
    make_rule(
        100921,
        r"X has (?P<a>\d+) features?, but (?P<model>\w+) is expecting (?P<b>\d+) features?",
        "{model} was trained with {b} columns, and is now given {a}.",
        "{model} 训练时使用了 {b} 列特征，现在给了 {a} 列。",
        Text(
            "Give the model the same columns, in the same order, as in training.",
            "请给模型与训练时相同、顺序也相同的列。",
        ),
    ),
    make_rule(
        100921,
        r"Expected 2D array, got (?P<a>\w+) array instead",
        "The model needs a table (2D), and was given a {a} array.",
        "模型需要二维表格（2D），而这里是 {a} 数组。",
        Text(
            "Use x.reshape(-1, 1) for one column, or x.reshape(1, -1) for one example.",
            "只有一列时用 x.reshape(-1, 1)，只有一个样本时用 x.reshape(1, -1)。",
        ),
    ),
    make_rule(
        100921,
        r"Length of values \((?P<a>\d+)\) does not match length of index \((?P<b>\d+)\)",
        "The new column has {a} values, but the table has {b} rows.",
        "新的一列有 {a} 个值，但表格有 {b} 行。",
        _SAME_ROWS,
    ),
    make_rule(
        100921,
        r"(?:[Aa]ll (?:the )?(?:input )?array(?:s| dimensions)|inhomogeneous shape|Sizes of tensors must match"
        r"|stack expects each tensor to be equal size|size mismatch|Shapes? .{1,80} (?:are|is) incompatible)",
        "Arrays of different sizes were put together.",
        "把大小不同的数组放在了一起。",
        _PRINT_SHAPES,
    ),
    make_rule(
        100917,
        r"Expected all tensors to be on the same device.*?(?P<a>cuda:\d+|cpu).*?(?P<b>cuda:\d+|cpu)",
        "One tensor is on {a} and another on {b}.",
        "一个张量在 {a} 上，另一个在 {b} 上。",
        _SAME_DEVICE,
    ),
    make_rule(
        100917,
        r"can't convert (?P<a>cuda:\d+) device type tensor to numpy",
        "A tensor on the GPU ({a}) cannot become a NumPy array directly.",
        "GPU（{a}）上的张量不能直接变成 NumPy 数组。",
        Text("Write x.detach().cpu().numpy().", "请写 x.detach().cpu().numpy()。"),
    ),
    make_rule(
        100917,
        r"expected scalar type (?P<a>\w+) but found (?P<b>\w+)|expected m1 and m2 to have the same dtype",
        "The tensors hold numbers of different types.",
        "张量中的数字类型不一致。",
        Text("Convert both with .float() (labels with .long()).", "都用 .float() 转换（标签用 .long()）。"),
    ),
    make_rule(
        100911,
        r"device-side assert triggered|Target (?P<n>-?\d+) is out of bounds",
        "A label is outside of the classes that the model has.",
        "有标签超出了模型的类别范围。",
        Text(
            "With n classes the labels are 0 to n-1; print labels.min() and labels.max().",
            "有 n 个类别时，标签应为 0 到 n-1；请打印 labels.min() 和 labels.max()。",
        ),
    ),
    make_rule(
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
    make_rule(
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


def by_text(error: BaseException, message: str) -> Finding | None:
    """Recognise what libraries say, whatever exception they say it with."""
    if isinstance(error, (SyntaxError, KeyError, NameError, ImportError)):
        return None  # their texts hold words of the program
    if _is_network(error, message):
        return _network(message)
    if type(error).__name__ == "OutOfMemoryError" and not _RULES[0].search(message):
        return Finding(100906, _RULES[1].text, _SHRINK_BATCH)
    for rule in _RULES:
        if found := rule.search(message[:MAX_MESSAGE]):
            words = found.groupdict()
            step = rule.next_step
            return Finding(rule.code, rule.text.format(**words), step.format(**words) if step else None)
    return None


def _is_network(error: BaseException, message: str) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, BrokenPipeError):
        return False
    return bool({"ConnectionError", "ConnectError", "gaierror", "MaxRetryError"} & names) or (
        isinstance(error, OSError)
        and (error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) or _NETWORK.search(message) is not None)
    )


def _network(message: str) -> Finding:
    found = _HOST.search(message)
    host = next((name for name in found.groups() if name), "") if found else ""
    en, zh = (f" ({host})", f"（{host}）") if host else ("", "")
    return Finding(
        100924,
        Text(
            f"The program wants to reach the network{en}, and tasks have none: {shortened(message, 120)}",
            f"程序要访问网络{zh}，但任务中没有网络：{shortened(message, 120)}",
        ),
        Text(
            "Download the file on your own computer, upload it to the project, and open it from there.",
            "先在自己的电脑上下载文件，上传到项目中，再从项目里打开。",
        ),
    )
