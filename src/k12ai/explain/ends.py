"""How a task ended whose program said nothing itself."""

from k12ai.catalogue import CATALOGUE
from k12ai.explain.model import UNKNOWN, Explanation, Finding
from k12ai.texts import Text

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
_KILLED_FOR_MEMORY = Finding(
    100901,
    Text(
        "The task was killed because it needed more memory than it may use.",
        "任务所需内存超过了允许的上限，已被系统强制结束。",
    ),
)
_ENDS = {
    "timeout": Finding(
        100922, Text("The task was stopped because its time was over.", "任务运行时间超过了上限，已被停止。")
    ),
    "stopped": Finding(100004, Text("The task was stopped by hand.", "任务被手动停止。")),
    "stopped_by_user": Finding(100004, Text("The task was stopped by hand.", "任务被手动停止。")),
    "stopped_by_teacher": Finding(100004, Text("A teacher stopped the task.", "老师停止了该任务。")),
    "start_failed": Finding(
        100202,
        Text("The task's program could not be started.", "任务的程序无法启动。"),
        CATALOGUE[UNKNOWN].next_step,
    ),
    "lost": Finding(
        UNKNOWN,
        Text(
            "The task vanished without a trace, as when the machine goes down.",
            "任务消失了，例如机器意外关机。",
        ),
        Text("Start it again.", "请重新启动任务。"),
    ),
}


def _ended_by(signal: int) -> Finding:
    name, cause = _SIGNALS.get(signal, (f"signal {signal}", Text("nothing more is known", "没有更多信息")))
    return Finding(
        100926,
        Text(f"The program was ended by {name}: {cause.en}.", f"程序被 {name} 终止：{cause.zh}。"),
        Text(
            "Start it again; if that does not help, use less data and show your teacher the end of its output.",
            "请重新运行；如果再次出现，请减少数据后再试，并把输出的最后部分给老师看。",
        ),
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
        found = Finding(
            UNKNOWN,
            Text(
                f"The program ended with exit code {exit_code} and reported no error.",
                f"程序以退出码 {exit_code} 结束，没有上报错误。",
            ),
            Text("Read the end of its output.", "请查看输出的最后部分。"),
        )
    else:
        found = Finding(UNKNOWN, CATALOGUE[UNKNOWN].cause)
    return Explanation(found.code, found.text, found.next_step or CATALOGUE[found.code].next_step)
