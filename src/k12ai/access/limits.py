"""How often somebody may do something."""

import functools
import ipaddress
import math
from collections.abc import Callable

_REMEMBERED = 4096


class Limiter:
    """So many times a second, in bursts of at most ``burst``, for each key by itself.

    The generic cell rate algorithm: all that is kept of a key is when its bucket will be full again
    (ITU-T I.371). ``now_s`` is a monotonic clock: how late it is by the wall clock is of no concern.
    """

    def __init__(self, per_s: float, burst: int, now_s: Callable[[], float]) -> None:
        self._spacing_s = 1 / per_s
        self._slack_s = (burst - 1) * self._spacing_s
        self._now_s = now_s
        self._full_at: dict[str, float] = {}

    def take(self, key: str) -> int:
        """Count one more; return 0, or where it is one too many the whole seconds until it would not be."""
        now = self._now_s()
        full_at = max(self._full_at.get(key, now), now)
        wait_s = full_at - now - self._slack_s
        if wait_s > 1e-9:
            return max(1, math.ceil(wait_s))
        if len(self._full_at) >= _REMEMBERED and key not in self._full_at:
            self._forget(now)
        self._full_at[key] = full_at + self._spacing_s
        return 0

    def _forget(self, now: float) -> None:
        """Forget those who have their whole allowance again; where nobody has, those nearest to it."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        if len(self._full_at) >= _REMEMBERED:
            kept = sorted(self._full_at.items(), key=lambda item: item[1])[_REMEMBERED // 2 :]
            self._full_at = dict(kept)


@functools.lru_cache(maxsize=1024)  # asked for each request; the same few addresses send them
def network_of(address: str) -> str:
    """Return the key under which an address is counted: of IPv6, the /64 that one household has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and not parsed.is_loopback:
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def is_address(text: str) -> bool:
    """Whether this is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return (mapped or parsed).is_loopback
