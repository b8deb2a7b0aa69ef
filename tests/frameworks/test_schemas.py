"""What each of our frameworks says of its parameters, which the server can say without its libraries."""

import subprocess
import sys
from typing import Any

import jsonschema
import pytest

from k12ai.frameworks.base import Framework
from k12ai.frameworks.cv.framework import CvFramework
from k12ai.frameworks.ml.framework import MlFramework
from k12ai.frameworks.nlp.framework import NlpFramework
from k12ai.frameworks.py.framework import PyFramework

FRAMEWORKS: tuple[Framework, ...] = (CvFramework(), MlFramework(), NlpFramework(), PyFramework())
DESCRIBE = """
import importlib, sys
sys.modules.update(dict.fromkeys(("numpy", "PIL", "sklearn", "tokenizers", "torch", "transformers")))
module, name = sys.argv[1:]
framework = getattr(importlib.import_module(module), name)()
for op in framework.ops:
    framework.schema(op)
"""


@pytest.mark.parametrize(
    ("framework", "op"),
    [(framework, op) for framework in FRAMEWORKS for op in framework.ops],
    ids=[f"{framework.name} {op}" for framework in FRAMEWORKS for op in framework.ops],
)
def test_every_parameter_has_a_title_and_a_help_in_both_languages_and_a_default(
    framework: Framework, op: str
) -> None:
    """A form can be generated from it."""
    schema = framework.schema(op)
    jsonschema.Draft202012Validator.check_schema(schema)

    def walk(part: dict[str, Any]) -> None:
        for name, each in part.get("properties", {}).items():
            for word in ("title", "x-title-zh", "description", "x-description-zh"):
                assert each.get(word), (name, word)
            assert "default" in each or name in part.get("required", ()), name
            walk(each)

    walk(schema)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=[framework.name for framework in FRAMEWORKS])
def test_the_server_describes_it_without_importing_a_library(framework: Framework) -> None:
    kind = type(framework)
    subprocess.run([sys.executable, "-c", DESCRIBE, kind.__module__, kind.__name__], check=True, timeout=60)
