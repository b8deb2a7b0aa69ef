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

    def require(self, key: str, *, new: bool = False) -> None:
        """Raise `KeyRefused` for a key that is out of reach.

        A ``new`` one has to be below its user's segment, where `below` finds it.
        """
        if self.users is None:
            return
        root, _, rest = key.partition("/")
        user, below, _ = rest.partition("/")
        if root not in _ROOTS or user not in self.users or (new and not below):
            raise KeyRefused

    def below(self, prefix: str) -> Sequence[str]:
        """Return prefixes, in order, that have together what is below users' segments and ``prefix``."""
        if self.users is None:
            return [prefix]
        own = sorted(f"{root}/{user}/" for root in _ROOTS for user in self.users)
        if any(prefix.startswith(each) for each in own):
            return [prefix]
        return [each for each in own if each.startswith(prefix)]
