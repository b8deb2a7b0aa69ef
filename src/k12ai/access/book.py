"""The access book: every token and class, in memory for each request and in the store for good."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from k12ai.access.principal import Principal
from k12ai.access.tokens import Parts, matches, new, parse
from k12ai.errors import (
    InvalidToken,
    NoSuchClass,
    NoSuchToken,
    NotAllowed,
    TokenExpired,
    TokenRevoked,
)
from k12ai.people import (
    ClassRequest,
    Classroom,
    Me,
    NewClassroom,
    NewToken,
    Role,
    TokenInfo,
    TokenRequest,
)
from k12ai.stores.base import Store, StoredToken
from k12ai.texts import Text


class _Known(Struct):
    """A token that was made once, and on whose behalf it speaks."""

    stored: StoredToken
    principal: Principal | None = None  # made when it is first asked for, and again when classes change

    @property
    def info(self) -> TokenInfo:
        return self.stored.info


class AccessBook:
    """Tells whom a token belongs to, and makes, changes and ends tokens and classes.

    One server writes the store, so what is in memory is what is in the store. ``now`` is the wall clock:
    the expiry of tokens is the one thing here that follows it.
    """

    def __init__(
        self, store: Store, *, lifetime_s: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store = store
        self._lifetime_s = lifetime_s
        self._now = now
        self._tokens: dict[str, _Known] = {}
        self._classes: dict[str, Classroom] = {}
        self._changing = asyncio.Lock()  # two rosters of one class must not each make everybody's tokens

    async def load(self) -> None:
        """Read the store; to be called once, before anything else."""
        self._tokens = {each.info.id: _Known(each) for each in await self._store.tokens()}
        self._classes = {each.name: each for each in await self._store.classes()}

    @property
    def has_tokens(self) -> bool:
        """Whether a token was ever made, valid or not."""
        return bool(self._tokens)

    # --- asking ----------------------------------------------------------------------------------

    def authenticate(self, text: str) -> Principal:
        """Return whose token this is. Raises `InvalidToken`, `TokenExpired`, `TokenRevoked`."""
        parts = parse(text)
        if parts is None:
            raise InvalidToken
        known = self._tokens.get(parts.id)
        if not matches(parts, known.stored.digest if known else None) or known is None:
            raise InvalidToken
        if known.info.revoked_at is not None:
            raise TokenRevoked
        if not self._is_valid(known.info):
            raise TokenExpired
        if known.principal is None:
            known.principal = self.principal_of(known.info.user, known.info.role, parts.id)
        return known.principal

    def is_valid(self, token_id: str) -> bool:
        """Whether a token that was valid still is."""
        known = self._tokens.get(token_id)
        return known is not None and self._is_valid(known.info)

    def principal_of(self, user: str, role: Role, token_id: str = "") -> Principal:
        """Return somebody as the classes of now make them."""
        if role == "admin":
            return Principal(user, role, None, token_id)
        users = {user}
        if role == "teacher":
            for each in self._classes.values():
                if user in each.teachers:
                    users.update(each.students)
        return Principal(user, role, frozenset(users), token_id)

    def me(self, principal: Principal) -> Me:
        """Return who somebody is, as they are told it."""
        known = self._tokens.get(principal.token_id)
        return Me(
            open=known is None,
            user=principal.user,
            role=principal.role,
            token_id=principal.token_id,
            expires_at=known.info.expires_at if known else None,
            classes=[each.name for each in self.classes(principal)] if known else [],
        )

    def tokens(self, principal: Principal, user: str | None = None) -> Sequence[TokenInfo]:
        """Return the tokens of those somebody may act for, oldest first; with ``user``, only that one's."""
        return sorted(
            (
                known.info
                for known in self._tokens.values()
                if self._may_see(principal, known.info) and user in (None, known.info.user)
            ),
            key=lambda info: info.created_at,
        )

    def classes(self, principal: Principal) -> Sequence[Classroom]:
        """Return the classes somebody is in, for an admin all; a student sees no fellow students."""
        if principal.role == "admin":
            return list(self._classes.values())
        user = principal.user
        mine = [each for each in self._classes.values() if user in each.teachers or user in each.students]
        if principal.role == "teacher":
            return [each for each in mine if user in each.teachers]
        return [msgspec.structs.replace(each, students=[user]) for each in mine]

    # --- changing --------------------------------------------------------------------------------

    async def issue(self, request: TokenRequest, by: Principal) -> NewToken:
        """Make a token. Teachers make those of their students. Raises `NotAllowed`."""
        if request.role != "admin":
            self._require_an_admin()
        if by.role != "admin":
            by.require(request.user)
            if request.role != "student":
                raise NotAllowed(
                    Text(
                        "role: only an admin makes tokens of teachers and admins",
                        "role：只有管理员可以创建教师和管理员的令牌",
                    )
                )
            if self._is_staff(request.user):
                # In a class, too; a student's token would still open what is a colleague's.
                raise NotAllowed(
                    Text(
                        f"user: only an admin makes tokens of {request.user}",
                        f"user：{request.user} 的令牌只能由管理员创建",
                    )
                )
        (made,) = await self._make([request], by)
        return made

    async def revoke(self, token_id: str, by: Principal) -> TokenInfo:
        """End a token at once; one that has ended already stays as it is. Raises `NoSuchToken`."""
        known = self._tokens.get(token_id)
        if known is None or not self._may_see(by, known.info):
            raise NoSuchToken(token_id)
        if known.info.revoked_at is None:
            now = self._now()
            # First the deed: a token that got into wrong hands must not be good until the disk has room.
            known.stored = known.stored._replace(info=msgspec.structs.replace(known.info, revoked_at=now))
            await self._store.revoke_token(token_id, now)
        return known.info

    async def set_class(self, name: str, request: ClassRequest, by: Principal) -> NewClassroom:
        """Make a class, or say anew who is in it; who had a token keeps it. Raises `NotAllowed`."""
        async with self._changing:
            return await self._set_class(name, request, by)

    async def _set_class(self, name: str, request: ClassRequest, by: Principal) -> NewClassroom:
        self._require_an_admin()
        classroom = Classroom(name, _distinct(request.teachers), _distinct(request.students))
        await self._store.put_class(classroom)
        self._classes[name] = classroom
        self._forget_principals()
        old = self._valid_tokens(frozenset(classroom.students))
        supplied = set() if request.renew else {each.user for each in old}
        wanted = [
            TokenRequest(student, "student", request.expires_in_s, name)
            for student in (classroom.students if request.tokens or request.renew else ())
            if student not in supplied
        ]
        made = await self._make(wanted, by)
        for each in old if request.renew else ():
            if each.role == "student":  # a colleague who is in the class keeps what is none of its business
                await self.revoke(each.id, by)
        return NewClassroom(classroom, made)

    async def delete_class(self, name: str) -> None:
        """Dissolve a class; its students keep their tokens and what is theirs. Raises `NoSuchClass`."""
        if name not in self._classes:
            raise NoSuchClass(name)
        await self._store.delete_class(name)
        del self._classes[name]
        self._forget_principals()

    async def _make(self, requests: Sequence[TokenRequest], by: Principal) -> list[NewToken]:
        made: dict[str, tuple[StoredToken, NewToken]] = {}
        while len(made) < len(requests):
            request = requests[len(made)]
            parts = new()
            if parts.id in self._tokens or parts.id in made:
                continue
            made[parts.id] = self._stored(request, parts, by)
        await self._store.add_tokens([stored for stored, _ in made.values()])
        self._tokens.update({token_id: _Known(stored) for token_id, (stored, _) in made.items()})
        return [shown for _, shown in made.values()]

    def _stored(self, request: TokenRequest, parts: Parts, by: Principal) -> tuple[StoredToken, NewToken]:
        now = self._now()
        lifetime = timedelta(seconds=request.expires_in_s or self._lifetime_s)
        info = TokenInfo(
            id=parts.id,
            user=request.user,
            role=request.role,
            note=request.note,
            created_at=now,
            created_by=by.user,
            expires_at=now + lifetime,
        )
        fields: Mapping[str, object] = msgspec.structs.asdict(info)
        return StoredToken(info, parts.digest), NewToken(**fields, token=parts.text)  # type: ignore[arg-type]

    def _is_staff(self, user: str) -> bool:
        return any(known.info.user == user and known.info.role != "student" for known in self._tokens.values())

    def _require_an_admin(self) -> None:
        """Refuse to make other tokens first: with them the server would ask for tokens, and obey nobody."""
        if not self._tokens:
            raise NotAllowed(
                Text(
                    "the first token must be an admin's: k12ai token create YOUR_NAME --role admin",
                    "第一个令牌必须是管理员的：k12ai token create 你的名字 --role admin",
                )
            )

    def _may_see(self, principal: Principal, info: TokenInfo) -> bool:
        """Whether a token is somebody's to see and to revoke: of others, students' alone."""
        if principal.role == "admin" or info.user == principal.user:
            return True
        return info.role == "student" and principal.acts_for(info.user)

    def _valid_tokens(self, users: frozenset[str]) -> list[TokenInfo]:
        return [
            known.info
            for known in self._tokens.values()
            if known.info.user in users and self._is_valid(known.info)
        ]

    def _is_valid(self, info: TokenInfo) -> bool:
        return info.revoked_at is None and (info.expires_at is None or info.expires_at > self._now())

    def _forget_principals(self) -> None:
        for known in self._tokens.values():
            known.principal = None


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
