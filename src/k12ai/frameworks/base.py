"""What a framework promises: which ops it has, which parameters they take, and the command that runs them.

A framework is found by its entry point in the group ``k12ai.frameworks``, so that other packages can
add theirs. The server imports this description of it and nothing else: libraries are imported by the
command, in the task's own process.

The command finds in its environment ``K12AI_PARAMS`` (a file with the checked parameters as JSON),
``K12AI_OP``, ``K12AI_USER``, ``K12AI_UUID``, ``K12AI_TASK_ID`` and ``K12AI_JOURNAL``, the file that
`k12ai.report` appends to. It starts in the project's directory, which outlives the task: data is
there, models go there. It ends with 0 when it has done its work.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from k12ai.texts import Text

TRAIN, EVALUATE, PREDICT, RUNCODE = "train.start", "evaluate.start", "predict.start", "runcode.start"

Schema = dict[str, Any]


class Framework(ABC):
    """One thing that tasks can run."""

    name: ClassVar[str]
    """The ``service_name`` that requests call it by."""

    title: ClassVar[Text]

    ops: ClassVar[tuple[str, ...]]
    """The ops that start a task, such as ``train.start``."""

    image: ClassVar[str]
    """The container image that has its libraries."""

    extra: ClassVar[str]
    """What to install for it: ``pip install 'k12ai[EXTRA]'``; empty where nothing is needed."""

    modules: ClassVar[tuple[str, ...]] = ()
    """The libraries that its command imports."""

    network: ClassVar[bool] = False
    """Whether its tasks may use the network."""

    @abstractmethod
    def schema(self, op: str) -> Schema:
        """Return the JSON Schema (2020-12) of an op's parameters.

        ``title`` and ``description`` are English; ``x-title-zh`` and ``x-description-zh`` are the same
        in Chinese, on every property. Every property that is not required has a ``default``.
        """

    @abstractmethod
    def command(self, op: str) -> Sequence[str]:
        """Return the arguments that follow the Python interpreter, such as ``("-m", "my.package")``."""

    def check(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Check what a schema cannot say, and return the parameters to run with.

        ``params`` fit the schema and have its defaults filled in. Raises `k12ai.errors.BadParameter`.
        """
        return dict(params)

    @property
    def missing(self) -> tuple[str, ...]:
        """The libraries that are not installed for the interpreter of the server."""
        return tuple(name for name in self.modules if importlib.util.find_spec(name) is None)
