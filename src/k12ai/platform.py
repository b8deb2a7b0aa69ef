"""The platform's operations, the same for callers who wait and for those who fetch the result later."""

import msgspec

from k12ai.access.principal import Principal
from k12ai.catalogue import CATALOGUE
from k12ai.control import Control
from k12ai.envelope import decode_params
from k12ai.models import PLATFORM, Answer, Part, PlatformRequest, StatsParams, StopParams
from k12ai.monitor.monitor import Monitor
from k12ai.monitor.snapshot import View
from k12ai.texts import Language, Text

QUERY = "query"
CONTAINER_STOP = "container.stop"

# The published word for a control that was carried out; stats answer with the catalogue's "success".
_STOPPED = Text("task service success", "任务服务成功")


class Platform:
    """Answers what the machine is doing and acts on what it runs."""

    def __init__(self, monitor: Monitor, control: Control, *, hide_others: bool = False) -> None:
        self._monitor = monitor
        self._control = control
        self._hide_others = hide_others

    def stats(self, request: PlatformRequest, language: Language, principal: Principal) -> bytes:
        """Return the encoded answer from the latest snapshot: no measuring, no waiting."""
        parts = decode_params(request.service_params, StatsParams).chosen()
        view = View(_scope(request), self._named_for(principal))
        message = self._monitor.latest.encoded(parts, language, view)
        return b"%b%b}" % (_SUCCESS[language], message)

    def everything(self, language: Language, principal: Principal) -> bytes:
        """Return the encoded latest snapshot, every part of it."""
        view = View(named=self._named_for(principal))
        return self._monitor.latest.encoded(Part.PUBLISHED | Part.NODES | Part.USERS, language, view)

    async def measure(self, request: PlatformRequest, language: Language, principal: Principal) -> Answer:
        """Return the answer from a window of at least half a second that starts now or later."""
        parts = decode_params(request.service_params, StatsParams).chosen()
        snapshot = await self._monitor.measure()
        view = View(_scope(request), self._named_for(principal))
        return Answer.success(snapshot.message(parts, language, view), language)

    async def stop(self, request: PlatformRequest, language: Language, principal: Principal) -> Answer:
        """Stop a container and return the answer once it is really gone."""
        params = decode_params(request.service_params, StopParams)
        sentence = await self._control.stop(params, _scope(request), principal, by=request.user)
        return Answer(100000, _STOPPED.pick(language), sentence.pick(language))

    async def perform(self, request: PlatformRequest, language: Language, principal: Principal) -> Answer:
        """Carry out an accepted request."""
        if request.op == QUERY:
            return await self.measure(request, language, principal)
        return await self.stop(request, language, principal)

    def _named_for(self, principal: Principal) -> frozenset[str] | None:
        """Return whose names somebody sees, None for everybody's."""
        return principal.users if self._hide_others else None


def check_params(request: PlatformRequest) -> None:
    """Raise the error of the tree for parameters that the op cannot take, before anything is accepted."""
    if request.op == QUERY:
        decode_params(request.service_params, StatsParams)
    else:
        decode_params(request.service_params, StopParams)


def _scope(request: PlatformRequest) -> str | None:
    return None if request.service_name == PLATFORM else request.service_name


def _success_prefix(language: Language) -> bytes:
    """Return a success up to its message, so that an encoded message can be put in as it is."""
    encoded = msgspec.json.encode(Answer(100000, CATALOGUE[100000].text.pick(language), None))
    return encoded.removesuffix(b"null}")


_SUCCESS: dict[Language, bytes] = {"en": _success_prefix("en"), "zh": _success_prefix("zh")}
