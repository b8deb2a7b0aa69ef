"""What comes in a query string, checked, and what goes out as JSON: for the routes below ``/api/v1``."""

import re

import msgspec
from litestar import MediaType, Response

from k12ai.errors import InvalidValue
from k12ai.texts import Text

MAX_CURSOR = 1 << 62

# As JSON writes numbers; float() takes more than that.
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[0-9]{1,19}")


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Return a body as the answer."""
    return Response(
        msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON, headers=headers or {}
    )


def whole(given: str | None, name: str, highest: int = MAX_CURSOR) -> int:
    """Return a whole number from 0 on, 0 where it is not given. Raises `InvalidValue`."""
    if given is None:
        return 0
    if not _WHOLE.fullmatch(given) or int(given) > highest:
        raise InvalidValue(name, Text(f"a whole number from 0 to {highest}", f"0 到 {highest} 之间的整数"))
    return int(given)


def number(given: str | None, name: str, default: float, highest: float) -> float:
    """Return a number from 0 on. Raises `InvalidValue`."""
    if given is None:
        return default
    value = float(given) if _NUMBER.fullmatch(given) else -1.0
    if not 0 <= value <= highest:
        raise InvalidValue(name, Text(f"a number from 0 to {highest:g}", f"0 到 {highest:g} 之间的数"))
    return value


def flag(given: str | None, name: str) -> bool | None:
    """Return a flag, which may be given without a value; None where it is not given. Raises `InvalidValue`."""
    if given is None:
        return None
    if given not in ("true", "false", ""):
        raise InvalidValue(name, Text("true or false", " true 或 false"))
    return given != "false"
