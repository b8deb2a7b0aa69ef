"""Two languages."""

import pytest

from k12ai.texts import Text, preferred_language


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "en"),
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("en;q=0.5, zh-CN", "zh"),
        ("fr, de", "en"),
        ("fr, zh;q=0.1", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=nonsense", "en"),
        ("*", "en"),
    ],
)
def test_the_language_asked_for_most(header: str | None, expected: str) -> None:
    assert preferred_language(header) == expected


def test_a_text_is_filled_in_both_languages() -> None:
    assert Text("id {id}", "编号 {id}").format(id=5) == ("id 5", "编号 5")
