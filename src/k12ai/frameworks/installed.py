"""The frameworks that are installed here, found by their entry points."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points

from k12ai.frameworks.base import Framework

GROUP = "k12ai.frameworks"


def installed(broken: Callable[[EntryPoint, Exception], object]) -> Iterator[tuple[EntryPoint, Framework]]:
    """Yield what is installed, in order of the names; one that cannot be loaded is told to ``broken``."""
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            framework: Framework = entry.load()()
        except Exception as error:  # noqa: BLE001 - anybody's code: it must not keep the others from being found
            broken(entry, error)
        else:
            yield entry, framework
