"""On whose behalf a request is made, and for whom that one may act."""

from msgspec import Struct

from k12ai.errors import NotAllowed
from k12ai.people import ROLES, Role
from k12ai.task import Stopper


class Principal(Struct, frozen=True):
    """Somebody with a token, or in open mode anybody.

    ``users`` are those whose tasks, files, keys and containers exist for this one; None: everybody's.
    """

    user: str
    role: Role
    users: frozenset[str] | None
    token_id: str = ""

    def has(self, role: Role) -> bool:
        """Whether what ``role`` may do is this one's to do, too."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def acts_for(self, user: str) -> bool:
        """Whether what is ``user``'s exists for this one."""
        return self.users is None or user in self.users

    def require(self, user: str) -> None:
        """Raise `NotAllowed` where a request names a user this one may not act for."""
        if not self.acts_for(user):
            raise NotAllowed.for_user(self.user, user)

    def stopper(self, owner: str, by: str = "") -> Stopper:
        """Return this one as who stops a task of ``owner``; where no token tells, ``by`` does."""
        if not self.user:
            return Stopper(by)
        is_staff = self.has("teacher") and self.user != owner
        return Stopper(self.user, "stopped_by_teacher" if is_staff else "stopped_by_user")


OPEN = Principal("", "admin", None)
"""Everybody, where no tokens are asked for."""
