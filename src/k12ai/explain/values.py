"""Values that an operation cannot work with, and what a calculation runs out of: numbers, depth, memory."""

import ast
import re
import sys
from collections.abc import Iterable, Mapping

from k12ai.explain.libraries import CALM_DOWN, LESS_DATA
from k12ai.explain.model import Case, Finder, Finding, Rule, make_rule
from k12ai.explain.words import own_words
from k12ai.texts import Text

_TYPES = (
    make_rule(
        100917,
        r"can only concatenate (?P<a>\w+) \(not \"(?P<b>\w+)\"\)",
        "{a} and {b} cannot be joined with +.",
        "{a} 和 {b} 不能用 + 连接。",
        Text(
            "Convert one of them: str(x) makes text of a number, int(x) or float(x) makes a number of text.",
            "请转换其中一个：str(x) 把数字变成文字，int(x) 或 float(x) 把文字变成数字。",
        ),
    ),
    make_rule(
        100917,
        r"unsupported operand type\(s\) for (?P<op>.+?): '(?P<a>.+?)' and '(?P<b>.+?)'",
        "{op} does not work between {a} and {b}.",
        "{a} 和 {b} 之间不能进行 {op} 运算。",
        Text(
            "Print type() of both; convert text with int(x) or float(x). NoneType: a return is missing.",
            "打印两者的 type()；文字可用 int(x) 或 float(x) 转换。NoneType 表示函数缺少 return。",
        ),
    ),
    make_rule(
        100917,
        r"'(?P<op>\S+)' not supported between instances of '(?P<a>\w+)' and '(?P<b>\w+)'",
        "{a} and {b} cannot be compared with {op}.",
        "{a} 和 {b} 不能用 {op} 比较。",
        Text("Convert text with int(x) or float(x) first.", "请先用 int(x) 或 float(x) 转换文字。"),
    ),
    make_rule(
        100917,
        r"'(?P<a>\w+)' object is not callable",
        "Something of type {a} was called like a function, with brackets ().",
        "把 {a} 类型的值当作函数加括号 () 调用了。",
        Text(
            "Use [ ] to take an item; and give no variable the name of a function, such as list, sum or max.",
            "取元素请用 [ ]；也不要用 list、sum、max 等函数名作变量名。",
        ),
    ),
    make_rule(
        100917,
        r"'(?P<a>\w+)' object is not (?P<what>subscriptable|iterable)|cannot unpack non-iterable (?P<b>\w+)",
        "A single value was used as if it were a list: {a}{b}.",
        "把单个值当成列表使用了：{a}{b}。",
        Text(
            "Print the value: a number or None has no items. For counting, write for i in range(n).",
            "打印这个值：数字或 None 没有元素。计数循环请写 for i in range(n)。",
        ),
    ),
    make_rule(
        100917,
        r"(?P<f>\S+\(\)) missing \d+ required .*?arguments?: (?P<what>.+)",
        "{f} was called without {what}.",
        "调用 {f} 时缺少参数 {what}。",
        Text("Give it between the brackets of the call.", "请在调用的括号中补上。"),
    ),
    make_rule(
        100917,
        r"(?P<f>\S+\(\)) takes (?P<a>.+?) positional arguments? but (?P<b>\d+)",
        "{f} takes {a} arguments, and was given {b}.",
        "{f} 需要 {a} 个参数，却给了 {b} 个。",
        Text(
            "Compare the call with the function's def line; a method's first parameter is self.",
            "把调用与函数的 def 行比较；方法的第一个参数是 self。",
        ),
    ),
    make_rule(
        100917,
        r"(?P<f>\S+\(\)) got an unexpected keyword argument '(?P<what>\w+)'",
        "{f} has no parameter called {what}.",
        "{f} 没有名为 {what} 的参数。",
        Text("Check its spelling with help().", "用 help() 查看参数的正确写法。"),
    ),
)
_VALUES = (
    make_rule(
        100918,
        r"invalid literal for int\(\) with base \d+: (?P<a>.+)|could not convert string to float: (?P<b>.+)",
        "The text {a}{b} is not a number.",
        "文字 {a}{b} 不是数字。",
        Text(
            "Look for headings, spaces or empty cells in the data and skip them; turn words into numbers.",
            "检查数据中的表头、空格或空单元格并跳过；文字类别要先转换成数字。",
        ),
    ),
    make_rule(
        100918,
        r"not enough values to unpack \(expected (?:at least )?(?P<a>\d+), got (?P<b>\d+)\)",
        "{a} values were expected on the right of =, but there are {b}.",
        "等号右边应有 {a} 个值，实际有 {b} 个。",
        Text("Print the right side before this line.", "请在这一行之前打印等号右边的内容。"),
    ),
    make_rule(
        100918,
        r"too many values to unpack \(expected (?P<a>\d+)",
        "There are more values on the right of = than the {a} names on the left.",
        "等号右边的值多于左边的 {a} 个名称。",
        Text("Print the right side before this line.", "请在这一行之前打印等号右边的内容。"),
    ),
    make_rule(
        100918,
        r"(?P<model>\w+) instance is not fitted yet",
        "{model} was asked before it was trained.",
        "{model} 还没有训练就被使用了。",
        Text("Call model.fit(X, y) first.", "请先调用 model.fit(X, y)。"),
    ),
    make_rule(
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


def _by_rules(code: int, rules: Iterable[Rule]) -> Finder:
    def find(case: Case) -> Finding:
        for rule in rules:
            if found := rule.search(case.words):
                words = {name: value or "" for name, value in found.groupdict().items()}
                return Finding(rule.code, rule.text.format(**words), rule.next_step)
        return Finding(code, own_words(case))

    return find


def _division(case: Case) -> Finding:
    divisor = ast.unparse(case.node.right) if isinstance(case.node, ast.BinOp) else ""
    if not divisor:
        return Finding(100930, Text("Something was divided by zero.", "程序中出现了除以零。"))
    return Finding(
        100930,
        Text(f"Something was divided by {divisor}, which is 0.", f"除数 {divisor} 等于 0。"),
        Text(
            f"Find out why {divisor} is 0, or ask before dividing: if {divisor} != 0.",
            f"检查 {divisor} 为什么是 0，或在除之前判断：if {divisor} != 0。",
        ),
    )


def _assertion(case: Case) -> Finding:
    words = case.words or (ast.unparse(case.node) if case.node is not None else "assert")
    return Finding(100927, Text(f"A condition does not hold: {words}.", f"条件不成立：{words}。"))


def _memory(case: Case) -> Finding:
    found = re.search(
        r"Unable to allocate (?P<size>[\d.]+ \w+) for an array with shape (\([\d, ]*\))", case.words
    )
    if found is None:
        return Finding(
            100901, Text("The program needs more memory than it may use.", "程序所需内存超过了允许的上限。")
        )
    size, shape = found.groups()
    return Finding(
        100901,
        Text(
            f"There is no room for an array of shape {shape}, which needs {size}.",
            f"内存不足：形状为 {shape} 的数组需要 {size}。",
        ),
        LESS_DATA,
    )


def _floating_point(case: Case) -> Finding:
    return Finding(
        100907,
        Text(
            f"A calculation left the range of numbers: {case.words}.", f"计算结果超出了数值范围：{case.words}。"
        ),
        CALM_DOWN,
    )


def _recursion(case: Case) -> Finding:
    name = case.frame.f_code.co_name if case.frame is not None else ""
    if not name or name == "<module>":
        return Finding(100925, Text("A function calls itself without end.", "函数无休止地调用自己。"))
    return Finding(
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


BY_TYPE: Mapping[type, Finder] = {
    TypeError: _by_rules(100917, _TYPES),
    ValueError: _by_rules(100918, _VALUES),
    ZeroDivisionError: _division,
    AssertionError: _assertion,
    FloatingPointError: _floating_point,
    MemoryError: _memory,
    RecursionError: _recursion,
}
