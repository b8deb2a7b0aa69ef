"""Who sends a request: the token, the address, and how often they may."""

import base64
import binascii
import functools
import time
import urllib.parse

import structlog
from litestar.types import HTTPScope, Receive, Send

from k12ai.access.book import AccessBook
from k12ai.access.limits import Limiter, is_address, network_of
from k12ai.access.principal import OPEN, Principal
from k12ai.api import wire
from k12ai.api.answers import is_page, send_error
from k12ai.api.roles import PRINCIPAL, STANDS
from k12ai.api.wire import HttpApp
from k12ai.errors import (
    InvalidToken,
    K12AIError,
    ProxyBypassed,
    RateLimited,
    TokenExpired,
    TokenRevoked,
    TooManyWrongTokens,
)
from k12ai.settings import Settings

ADDRESS = "k12ai.address"
BURST_S = 4  # a notebook that starts asks many things at once
WRONG_TOKENS_A_MINUTE = 10

log = structlog.stdlib.get_logger(__name__)


class Doorkeeper:
    """Knows the tokens and counts the requests, for all ports together."""

    def __init__(self, book: AccessBook, settings: Settings) -> None:
        self._book = book
        self._reachable = settings.is_reachable
        self._behind_proxy = settings.behind_proxy
        self._proxies = frozenset(settings.trusted_proxies)
        self._token_in_query = settings.kv_token_in_query
        self._per_token = _limiter(settings.token_requests_per_s)
        self._per_address = _limiter(settings.address_requests_per_s)
        # Apart, so that somebody without a token cannot use up what a class behind one address has.
        self._strangers = _limiter(settings.address_requests_per_s)
        self._wrong = Limiter(WRONG_TOKENS_A_MINUTE / 60, WRONG_TOKENS_A_MINUTE, time.monotonic)

    @property
    def open(self) -> bool:
        """Whether nobody needs a token: only this machine's users get here, and no token was ever made."""
        return not self._reachable and not self._book.has_tokens

    def identify(self, scope: HTTPScope) -> Principal | None:
        """Return on whose behalf a request is made, None where it has no token.

        Raises `InvalidToken` and what is below it, `RateLimited`, and `ProxyBypassed`.
        """
        address = scope["state"][ADDRESS] = self._address(scope)
        if self.open:
            return OPEN
        network = network_of(address)
        try:
            text = self._token(scope)
            principal = None if text is None else self._book.authenticate(text)
        except InvalidToken as error:
            if wait_s := self._strangers.take(network):
                raise RateLimited(wait_s) from None
            if isinstance(error, (TokenExpired, TokenRevoked)):
                raise  # no guess: it was a token of ours
            # Valid tokens pass all the same: a class is often behind one address, and whoever guesses
            # would not only have to guess 192 bits but could, by failing, lock it out.
            if wait_s := self._wrong.take(network):
                raise TooManyWrongTokens(wait_s) from None
            log.warning("token.wrong", address=address)
            raise
        if principal is None:
            if wait_s := self._strangers.take(network):
                raise RateLimited(wait_s)
            return None
        if wait_s := self._per_token.take(principal.token_id) or self._per_address.take(network):
            raise RateLimited(wait_s)
        scope["state"][STANDS] = functools.partial(self._book.is_valid, principal.token_id)
        return principal

    def _address(self, scope: HTTPScope) -> str:
        """Return where a request comes from; a proxy in front is believed about the last step to it alone."""
        client = scope["client"]
        peer = client[0] if client else ""
        if not self._behind_proxy:
            return peer
        if peer not in self._proxies:
            raise ProxyBypassed
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        last = b",".join(forwarded).rsplit(b",", 1)[-1].strip().decode("latin-1")
        return last if is_address(last) else peer

    def _token(self, scope: HTTPScope) -> str | None:
        if wire.repeated(scope, b"authorization"):
            raise InvalidToken
        authorization = wire.header(scope, b"authorization")
        if authorization is not None:
            return _credentials(authorization.decode("latin-1"), scope)
        if not scope["path"].startswith("/v1/"):
            return None
        consul = wire.header(scope, b"x-consul-token")
        if consul:
            return consul.decode("latin-1")
        return _token_of_query(scope["query_string"]) if self._token_in_query else None


class Identify:
    """Finds out who sends a request, and refuses those who must not."""

    def __init__(self, app: HttpApp, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Note on whose behalf the request is made, and hand it on."""
        try:
            scope["state"][PRINCIPAL] = self._doorkeeper.identify(scope)
        except K12AIError as error:
            await send_error(error, scope, receive, send)
            return
        await self._app(scope, receive, send)


def _limiter(per_s: float) -> Limiter:
    return Limiter(per_s, max(1, round(per_s * BURST_S)), time.monotonic)


def _credentials(authorization: str, scope: HTTPScope) -> str:
    """Return the token of an Authorization field. Raises `InvalidToken` for what is none.

    A browser cannot send a Bearer token when it opens a page, but asks for a name and a password; so
    pages that only show something take the token as a password. Nothing that acts does: what a browser
    sends by itself, other people's pages can make it send.
    """
    scheme, _, rest = authorization.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic" and scope["method"] == "GET" and is_page(scope["path"]):
        try:
            return base64.b64decode(rest, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidToken from None
    raise InvalidToken


def _token_of_query(query_string: bytes) -> str | None:
    pairs = urllib.parse.parse_qsl(query_string.decode("latin-1"))
    return next((value for name, value in pairs if name == "token" and value), None)
