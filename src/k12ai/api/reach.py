"""Which keys of the store exist for somebody: those below ``platform/USER`` and ``framework/USER``.

By segments of the path, not by how a key begins: what is `li`'s to delete does not include `li2`'s.
"""

from collections.abc import Sequence
from typing import NamedTuple

from k12ai.errors import NotAllowed
from k12ai.texts import Text

_ROOTS = ("framework", "platform")


class KeyRefused(NotAllowed):
    """The key is out of the caller's reach, whether or not it is there; in Consul's words."""

    def __init__(self) -> None:
        super().__init__(Text("Permission denied", "Permission denied"))


class Reach(NamedTuple):
    """The keys of these users; None: all keys."""

    users: frozenset[str] | None

    def require(self, key: str) -> None:
        """Raise `KeyRefused` for a key that is out of reach."""
        root, _, rest = key.partition("/")
        if self.users is not None and not (root in _ROOTS and rest.partition("/")[0] in self.users):
            raise KeyRefused

    def below(self, prefix: str) -> Sequence[str]:
        """Return prefixes, in order, that have together every key in reach that begins with ``prefix``."""
        if self.users is None:
            return [prefix]
        own = sorted(f"{root}/{user}/" for root in _ROOTS for user in self.users)
        if any(prefix.startswith(each) for each in own):
            return [prefix]
        return [each for each in own if each.startswith(prefix)]
