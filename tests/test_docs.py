"""The pages say what the code does."""

import re
from pathlib import Path

import msgspec
import pytest
import typer

from k12ai import catalogue, errors, failpoints, settings
from k12ai.cli.main import app
from k12ai.errors import K12AIError
from k12ai.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]


def _subclasses(kind: type[K12AIError]) -> list[type[K12AIError]]:
    return [kind, *(below for each in kind.__subclasses__() for below in _subclasses(each))]


def test_the_page_of_codes_is_printed_from_the_catalogue() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == catalogue.markdown()


def test_the_page_of_settings_is_printed_from_the_settings() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == settings.markdown()


def test_every_setting_is_an_option_of_serve_with_the_same_help() -> None:
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {parameter.name: parameter.help for parameter in serve.params}
    for name, _default, text in settings.described():
        assert options[name] == text


@pytest.mark.parametrize("row", catalogue.ROWS, ids=lambda row: str(row.number))
def test_every_code_has_text_cause_and_next_step_in_both_languages(row: catalogue.Code) -> None:
    for text in (row.text, row.cause, row.next_step):
        assert text.en.strip()
        assert re.search(r"[\u4e00-\u9fff]", text.zh), text


def test_the_published_codes_keep_their_published_texts() -> None:
    published = {
        100000: "success",
        100101: "api parameter key is not found",
        100102: "api parameter value is invalid",
        100103: "api parameter json format error",
        100199: "api parameter unknown exception",
        100201: "task service is not found",
        100202: "task service start fails",
        100203: "task service parameters is invalid",
        100204: "task is running",
        100205: "task is not found or not running",
        100210: "too many tasks",
        100901: "out of memory",
        100906: "CUDA out of memory",
        100907: "vanishing or exploding gradient",
        100910: "module not found",
    }
    for number, text in published.items():
        assert catalogue.CATALOGUE[number].text.en == text
    states = {100001, 100002, 100003, 100004, 100005, 100006, 100009}
    others = {100206, 100207, 100299, 100911, 100912, 100913, 100914, 100915, 100916, 100917, 100930, 999999}
    added = {100601, 100602, 100603, 100604, 100605, 100610, 100611, 100612, 100613}
    assert {*published, *states, *others, *added} <= set(catalogue.CATALOGUE)


def test_every_error_has_a_code_of_the_catalogue_and_is_drawn_in_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for kind in _subclasses(K12AIError):
        assert kind.code in catalogue.CATALOGUE
        if kind.__module__ == "k12ai.errors":
            assert re.search(rf"\b{kind.__name__}\b", drawn), kind


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_settings_that_exist(page: Path) -> None:
    known = {settings.environment_name(name) for name in Settings.__struct_fields__}
    known |= {"K12AI_SERVER_URL", "K12AI_TOKEN", "K12AI_CONFIG", failpoints.VARIABLE}
    of_a_task = ("JOURNAL", "PARAMS", "OP", "USER", "UUID", "TASK_ID", "GPU_MEMORY_BYTES")
    known |= {f"K12AI_{name}" for name in of_a_task}
    assert set(re.findall(r"K12AI_[A-Z_]+[A-Z]", page.read_text())) <= known


def test_the_changelog_has_the_version_under_way() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_example_carries_no_outputs() -> None:
    for path in (ROOT / "examples").glob("*.ipynb"):
        notebook = msgspec.json.decode(path.read_bytes())
        assert all(not cell.get("outputs") for cell in notebook["cells"]), path
