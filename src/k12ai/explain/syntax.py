"""Lines that Python cannot read."""

import re
from collections.abc import Mapping

from k12ai.explain.model import Case, Finder, Finding
from k12ai.explain.words import shortened
from k12ai.texts import Text

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


def _syntax(case: Case) -> Finding:
    words = shortened(getattr(case.error, "msg", None) or case.words)
    for pattern, step in _SYNTAX:
        found = re.search(pattern, words)
        if found and step is None:
            return _wrong_character(found.group("a") or "", found.group("u"))
        if found:
            return Finding(
                100915,
                Text(f"Python cannot read this line: {words}.", f"Python 无法解析这一行：{words}。"),
                step,
            )
    return Finding(
        100915,
        Text(f"Python cannot read this line: {words}.", f"Python 无法解析这一行：{words}。"),
        Text(
            "Look closely at the line: a bracket or a quotation mark may be missing in the line before.",
            "仔细检查这一行；也可能是上一行缺少括号或引号。",
        ),
    )


def _wrong_character(character: str, point: str) -> Finding:
    shown = f"{character} ({point})" if character.strip() else point
    return Finding(
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


def _indentation(case: Case) -> Finding:
    words = shortened(getattr(case.error, "msg", None) or case.words)
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
    return Finding(
        100916, Text(f"The spaces at the start of the line do not fit: {words}.", f"{zh}（{words}）。"), step
    )


BY_TYPE: Mapping[type, Finder] = {
    SyntaxError: _syntax,
    IndentationError: _indentation,
}
