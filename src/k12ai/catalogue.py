"""Every code a client can see, with its HTTP status, its text, its cause and the next step.

The numbers and the English texts are the published ones; the Chinese texts, causes and next steps
were added. ``docs/errors.md`` is printed from this table (``python -m k12ai.catalogue``).
"""

from collections.abc import Iterable
from typing import NamedTuple

from k12ai.texts import Text


class Code(NamedTuple):
    """One row of the catalogue. ``status`` is None for a code that reports a state, not an answer."""

    number: int
    status: int | None
    text: Text
    cause: Text
    next_step: Text


def _row(
    number: int, status: int | None, text: tuple[str, str], cause: tuple[str, str], step: tuple[str, str]
) -> Code:
    return Code(number, status, Text(*text), Text(*cause), Text(*step))


_NOTHING = ("Nothing to do.", "无需处理。")
_ASK_OPERATOR = (
    "Give the operator the request id of the answer; the server's log has the details.",
    "请把应答中的请求编号交给管理员，服务器日志中有详细信息。",
)
_TRY_LATER = (
    "Wait for the time in Retry-After, then send it again.",
    "按 Retry-After 给出的时间等待后重试。",
)
_READ_LINE = (
    "Read the named line of the program and correct it.",
    "查看提示中指出的那一行程序并改正。",
)

ROWS: tuple[Code, ...] = (
    _row(100000, 200, ("success", "成功"), ("The request was carried out.", "请求已完成。"), _NOTHING),
    _row(
        100001,
        None,
        ("task service starting", "任务正在启动"),
        ("The task is being set up.", "任务正在准备。"),
        _NOTHING,
    ),
    _row(
        100002,
        None,
        ("task service running", "任务正在运行"),
        ("The task's program runs.", "任务程序正在运行。"),
        _NOTHING,
    ),
    _row(
        100003,
        None,
        ("task service finished", "任务已完成"),
        ("The task's program ended.", "任务程序已结束。"),
        _NOTHING,
    ),
    _row(
        100004,
        None,
        ("task service stopped by hand", "任务被手动停止"),
        ("Somebody asked for the stop.", "有人请求停止该任务。"),
        ("Start it again if that was not meant.", "如非本意，可重新启动。"),
    ),
    _row(
        100005,
        None,
        ("task service paused", "任务已暂停"),
        ("The task was paused.", "任务被暂停。"),
        _NOTHING,
    ),
    _row(
        100006,
        None,
        ("task service preempted", "任务被抢占"),
        ("Its place was given to another task.", "运行位置让给了其他任务。"),
        ("It starts again when there is room.", "有空闲资源时会重新启动。"),
    ),
    _row(
        100009,
        None,
        ("task service warning", "任务警告"),
        ("The task reports a warning.", "任务报告了警告。"),
        ("Read its message.", "请阅读警告内容。"),
    ),
    _row(
        100101,
        400,
        ("api parameter key is not found", "缺少 API 参数"),
        ("A field that must be there is missing.", "请求缺少必需的字段。"),
        ("Add the field that the message names.", "补上提示中指出的字段。"),
    ),
    _row(
        100102,
        400,
        ("api parameter value is invalid", "API 参数的值无效"),
        ("A field has a value that is not allowed.", "某个字段的值不被允许。"),
        ("Use a value that the message allows.", "改用提示中允许的值。"),
    ),
    _row(
        100103,
        400,
        ("api parameter json format error", "API 参数的 JSON 格式错误"),
        (
            "The body is not strict JSON in UTF-8, or is not sent as application/json.",
            "请求体不是 UTF-8 编码的严格 JSON，或没有以 application/json 发送。",
        ),
        (
            "Send one JSON object with Content-Type: application/json.",
            "以 Content-Type: application/json 发送一个 JSON 对象。",
        ),
    ),
    _row(
        100199,
        500,
        ("api parameter unknown exception", "API 参数未知异常"),
        (
            "The server failed on this request; this is a fault of the server.",
            "服务器处理该请求时出错，这是服务器的缺陷。",
        ),
        _ASK_OPERATOR,
    ),
    _row(
        100201,
        404,
        ("task service is not found", "找不到该服务"),
        ("service_name names no service of this platform.", "service_name 不是本平台的服务。"),
        ("Use k12platform, or the name of a framework.", "请使用 k12platform 或某个框架的名字。"),
    ),
    _row(
        100202,
        404,
        ("task service start fails", "任务服务启动失败"),
        (
            "What the request acts on does not exist, or could not be started.",
            "请求的对象不存在，或无法启动。",
        ),
        ("Ask for the current list and use an id from it.", "查询当前列表，使用其中的 id。"),
    ),
    _row(
        100203,
        400,
        ("task service parameters is invalid", "任务服务参数无效"),
        ("The framework refuses a parameter.", "框架不接受某个参数。"),
        ("Compare it with the framework's schema.", "请对照框架的参数说明。"),
    ),
    _row(
        100204,
        409,
        ("task is running", "任务正在运行"),
        ("This project already runs this op.", "该项目已经在执行此操作。"),
        ("Wait for it, or stop it first.", "等待其结束，或先停止它。"),
    ),
    _row(
        100205,
        404,
        ("task is not found or not running", "任务不存在或未在运行"),
        ("No such task is running.", "没有正在运行的对应任务。"),
        ("Look at the list of tasks.", "查看任务列表。"),
    ),
    _row(
        100206,
        404,
        ("schema is not found", "找不到参数说明"),
        ("The framework has no schema for this op.", "框架没有此操作的参数说明。"),
        ("Ask for the list of frameworks.", "查询框架列表。"),
    ),
    _row(
        100207,
        500,
        ("schema generation fails", "参数说明生成失败"),
        ("The framework's schema could not be built.", "无法生成框架的参数说明。"),
        _ASK_OPERATOR,
    ),
    _row(
        100210,
        429,
        ("too many tasks", "任务太多"),
        ("As many tasks wait or run as the platform allows.", "等待或运行的任务已达平台上限。"),
        _TRY_LATER,
    ),
    _row(
        100299,
        500,
        ("task service unknown exception", "任务服务未知异常"),
        ("The service failed; this is a fault of the server.", "服务出错，这是服务器的缺陷。"),
        _ASK_OPERATOR,
    ),
    _row(
        100601,
        401,
        ("not authenticated", "未通过身份验证"),
        ("The request carries no valid token.", "请求没有携带有效的令牌。"),
        (
            "Set K12AI_TOKEN to your token (a program sends it as Authorization: Bearer); "
            "if you have none, or it has expired, ask your teacher.",
            "将 K12AI_TOKEN 设为你的令牌（程序以 Authorization: Bearer 发送）；"
            "没有令牌或令牌已过期时，请联系老师。",
        ),
    ),
    _row(
        100602,
        403,
        ("not allowed", "没有权限"),
        ("The token does not allow this.", "该令牌不允许此操作。"),
        ("Ask a teacher or the operator.", "请联系老师或管理员。"),
    ),
    _row(
        100603,
        429,
        ("rate limit exceeded", "请求过于频繁"),
        ("Too many requests in a short time.", "短时间内请求过多。"),
        _TRY_LATER,
    ),
    _row(
        100604,
        429,
        ("quota exceeded", "超出配额"),
        ("Your share is used up.", "你的配额已用完。"),
        ("Free something, or ask a teacher.", "释放一些资源，或联系老师。"),
    ),
    _row(
        100605,
        421,
        ("host or origin refused", "主机名或来源被拒绝"),
        (
            "The request names a host this server does not answer for, or comes from an untrusted web page.",
            "请求的主机名不属于本服务器，或来自不受信任的网页。",
        ),
        (
            "Use the address the server printed at start; the operator can allow more with K12AI_ALLOWED_HOSTS "
            "and K12AI_ALLOWED_ORIGINS.",
            "请使用服务器启动时显示的地址；管理员可通过 K12AI_ALLOWED_HOSTS 和 K12AI_ALLOWED_ORIGINS 放行。",
        ),
    ),
    _row(
        100610,
        503,
        ("container engine is unavailable", "容器引擎不可用"),
        ("The Docker Engine cannot be reached now.", "目前无法连接 Docker 引擎。"),
        (
            "Try again soon; if it stays so, the operator should look at the Engine (systemctl status docker).",
            "稍后重试；如持续出现，请管理员检查引擎（systemctl status docker）。",
        ),
    ),
    _row(
        100611,
        504,
        ("container engine did not answer in time", "容器引擎未及时应答"),
        ("The Docker Engine is reachable but hangs.", "Docker 引擎可以连接，但没有响应。"),
        ("Try again soon; what was asked for may still happen.", "稍后重试；之前的请求仍可能生效。"),
    ),
    _row(
        100612,
        507,
        ("storage is full", "存储空间已满"),
        ("The disk of the data directory is full.", "数据目录所在磁盘已满。"),
        ("Free space on that disk; nothing acknowledged was lost.", "请清理该磁盘；已确认的数据没有丢失。"),
    ),
    _row(
        100613,
        413,
        ("request is too large", "请求过大"),
        ("A part of the request is over its limit.", "请求的某个部分超过了上限。"),
        ("Send less at once.", "请减少单次发送的内容。"),
    ),
    _row(
        100614,
        503,
        ("storage is unavailable", "存储不可用"),
        ("The store did not answer in time.", "存储没有及时应答。"),
        _TRY_LATER,
    ),
    _row(
        100615,
        503,
        ("server is stopping", "服务器正在停止"),
        (
            "The server was asked to stop; what it already accepted goes on.",
            "服务器正在停止；已接受的操作会继续。",
        ),
        _TRY_LATER,
    ),
    _row(
        100616,
        404,
        ("no such resource", "没有此资源"),
        ("Nothing is served at this path.", "该路径没有提供任何内容。"),
        ("Look at /docs for what there is.", "请在 /docs 查看可用的接口。"),
    ),
    _row(
        100617,
        405,
        ("method is not allowed", "不允许的请求方法"),
        ("This path does not take this method.", "该路径不接受此请求方法。"),
        ("Use a method from the Allow header.", "请使用 Allow 头中列出的方法。"),
    ),
    _row(
        100618,
        408,
        ("request took too long", "请求传输超时"),
        (
            "The connection was open, but the request did not arrive in time.",
            "连接已建立，但请求没有及时到达。",
        ),
        (
            "Send it again over a better connection, or in smaller pieces.",
            "请在更好的网络下重试，或减少单次发送的内容。",
        ),
    ),
    _row(
        100619,
        400,
        ("request is not understood", "无法理解该请求"),
        ("What came is not HTTP/1.1 as this server speaks it.", "收到的内容不是本服务器支持的 HTTP/1.1。"),
        (
            "Use an ordinary HTTP client, and look at what is between it and the server.",
            "请使用普通的 HTTP 客户端，并检查中间的代理。",
        ),
    ),
    _row(
        100620,
        404,
        ("file is not found", "找不到文件"),
        ("The project has nothing under this path.", "该项目的此路径下没有内容。"),
        ("List the project's files and use a path from it.", "列出该项目的文件，使用其中的路径。"),
    ),
    _row(
        100621,
        409,
        ("path is taken by something else", "路径被其他内容占用"),
        (
            "Where a plain file or a directory is needed, there is something else: the other of the two, "
            "a link, or a special file.",
            "需要普通文件或目录的位置是另一种内容：目录或文件、链接，或特殊文件。",
        ),
        ("Delete what is there, or use another path.", "删除该处的内容，或使用其他路径。"),
    ),
    _row(
        100622,
        507,
        ("project is full", "项目空间已满"),
        (
            "The project's files would be more, or larger, than they may be.",
            "项目的文件数量或总大小将超过上限。",
        ),
        ("Delete files that are not needed any more.", "删除不再需要的文件。"),
    ),
    _row(
        100623,
        404,
        ("no such token or class", "没有此令牌或班级"),
        ("There is none of this name that you may see.", "没有你可以查看的同名令牌或班级。"),
        (
            "See which there are with 'k12ai token list' and 'k12ai class list'.",
            "用 k12ai token list 和 k12ai class list 查看现有的令牌和班级。",
        ),
    ),
    _row(
        100901,
        None,
        ("out of memory", "内存不足"),
        ("The task needed more memory than it may use.", "任务所需内存超过了允许的上限。"),
        ("Use less data, a smaller batch or a smaller model.", "减少数据量、批大小或使用更小的模型。"),
    ),
    _row(
        100906,
        None,
        ("CUDA out of memory", "显存不足"),
        ("The GPU's memory was full.", "GPU 显存已满。"),
        ("Halve the batch size and start again.", "把批大小减半后重新开始。"),
    ),
    _row(
        100907,
        None,
        ("vanishing or exploding gradient", "梯度消失或爆炸"),
        ("The loss became NaN or infinite.", "损失变成了 NaN 或无穷大。"),
        ("Lower the learning rate, or normalise the data.", "降低学习率，或对数据做归一化。"),
    ),
    _row(
        100910,
        None,
        ("module not found", "找不到模块"),
        ("The program imports something that is not installed.", "程序导入了未安装的模块。"),
        ("Check the spelling, or ask for the package.", "检查拼写，或申请安装该包。"),
    ),
    _row(
        100911,
        None,
        ("index error", "索引错误"),
        ("A position outside the list was used.", "使用了列表范围之外的位置。"),
        _READ_LINE,
    ),
    _row(
        100912,
        None,
        ("name error", "名称错误"),
        ("A name was used that was never defined.", "使用了未定义的名称。"),
        _READ_LINE,
    ),
    _row(
        100913,
        None,
        ("key error", "键错误"),
        ("A dictionary has no such key.", "字典中没有该键。"),
        _READ_LINE,
    ),
    _row(
        100914,
        None,
        ("attribute error", "属性错误"),
        ("An object has no such attribute.", "对象没有该属性。"),
        _READ_LINE,
    ),
    _row(
        100915,
        None,
        ("syntax error", "语法错误"),
        ("Python cannot read the program.", "Python 无法解析该程序。"),
        _READ_LINE,
    ),
    _row(
        100916,
        None,
        ("indentation error", "缩进错误"),
        ("The spaces at the start of a line do not fit.", "行首的空格不正确。"),
        _READ_LINE,
    ),
    _row(
        100917,
        None,
        ("type error", "类型错误"),
        ("A value has the wrong type for what is done with it.", "值的类型不适合该操作。"),
        _READ_LINE,
    ),
    _row(
        100918,
        None,
        ("value error", "值错误"),
        ("A value has the right type, but cannot be used here.", "值的类型正确，但内容在这里不能使用。"),
        _READ_LINE,
    ),
    _row(
        100919,
        None,
        ("file not found", "找不到文件"),
        ("The program opens a file that is not there.", "程序打开的文件不存在。"),
        (
            "Check the name, and upload the file to the project.",
            "检查文件名，并把文件上传到项目中。",
        ),
    ),
    _row(
        100920,
        None,
        ("permission denied", "没有访问权限"),
        ("The program may not read or write there.", "程序无权读取或写入该位置。"),
        ("Read and write inside of the project's folder.", "请只在项目文件夹内读写。"),
    ),
    _row(
        100921,
        None,
        ("shape mismatch", "形状不匹配"),
        ("Arrays of sizes that do not fit were combined.", "对大小不匹配的数组进行了运算。"),
        ("Print the .shape of each array before the named line.", "在指出的那一行之前打印每个数组的 .shape。"),
    ),
    _row(
        100922,
        None,
        ("time limit exceeded", "运行超时"),
        ("The task ran for longer than it may.", "任务运行时间超过了上限。"),
        ("Use less data or fewer rounds, or ask for more time.", "减少数据或训练轮数，或申请更长的时间。"),
    ),
    _row(
        100923,
        None,
        ("text encoding error", "文本编码错误"),
        ("A text is not in the encoding that it was read with.", "读取文本时使用的编码与文件实际编码不符。"),
        (
            "Open the file with encoding='gbk', or save it as UTF-8.",
            "用 encoding='gbk' 打开，或把文件另存为 UTF-8。",
        ),
    ),
    _row(
        100924,
        None,
        ("network is not reachable", "无法访问网络"),
        ("Tasks run without network.", "任务运行时没有网络。"),
        ("Upload what the program needs to the project first.", "请先把程序需要的文件上传到项目中。"),
    ),
    _row(
        100925,
        None,
        ("recursion error", "递归过深"),
        ("A function calls itself without end.", "函数无休止地调用自己。"),
        ("Give the function a case in which it stops.", "为函数加上结束递归的条件。"),
    ),
    _row(
        100926,
        None,
        ("ended by a signal", "被信号终止"),
        ("The program crashed, or somebody ended it.", "程序崩溃，或被终止。"),
        ("Look at the end of its output, then start it again.", "查看输出的最后部分，然后重新运行。"),
    ),
    _row(
        100927,
        None,
        ("assertion failed", "断言不成立"),
        ("Something that the program takes for granted is not so.", "程序认为必须成立的条件没有成立。"),
        _READ_LINE,
    ),
    _row(
        100928,
        None,
        ("disk is full", "磁盘已满"),
        ("There is no room for what the program writes.", "没有空间保存程序写入的内容。"),
        ("Delete files of the project that are not needed.", "删除项目中不需要的文件。"),
    ),
    _row(
        100929,
        None,
        ("no input", "没有输入"),
        ("The program waits for the keyboard; a task has none.", "程序等待键盘输入，但任务没有键盘。"),
        ("Give the values as arguments instead of input().", "不要使用 input()，改用参数传入。"),
    ),
    _row(
        100930,
        None,
        ("division by zero", "除数为零"),
        ("Something was divided by zero.", "程序中出现了除以零。"),
        _READ_LINE,
    ),
    _row(
        100931,
        None,
        ("GPU is not available", "GPU 不可用"),
        ("The program asks for a GPU that it does not have.", "程序要使用的 GPU 不存在。"),
        ("Use device = 'cpu', or a machine with a GPU.", "使用 device = 'cpu'，或换用带 GPU 的机器。"),
    ),
    _row(999999, 500, ("unknown error", "未知错误"), ("The cause is not known.", "原因未知。"), _ASK_OPERATOR),
)

CATALOGUE: dict[int, Code] = {row.number: row for row in ROWS}


def markdown(rows: Iterable[Code] = ROWS) -> str:
    """Return the catalogue as the Markdown page ``docs/errors.md``."""
    lines = [
        "# Codes / 状态码",
        "",
        "Printed from `k12ai.catalogue`; do not edit by hand (`make docs`).",
        "",
        "A row without an HTTP status reports the state or the end of a task; it is never an answer by itself.",
        "没有 HTTP 状态的行表示任务的状态或结局，不会单独作为应答出现。",
        "",
        "| code | HTTP | text | cause | next step |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (f"{cell.en}<br>{cell.zh}" for cell in (row.text, row.cause, row.next_step))
        lines.append(f"| {row.number} | {row.status or '–'} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
