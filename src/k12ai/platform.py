"""The platform's operations, the same for callers who wait and for those who fetch the result later."""

import msgspec

from k12ai.catalogue import CATALOGUE
from k12ai.control import Control
from k12ai.envelope import decode_params
from k12ai.models import PLATFORM, Answer, PlatformRequest, StatsParams, StopParams
from k12ai.monitor.monitor import Monitor
from k12ai.texts import Language, Text

QUERY = "query"
CONTAINER_STOP = "container.stop"

# The published word for a control that was carried out; stats answer with the catalogue's "success".
_STOPPED = Text("task service success", "任务服务成功")


class Platform:
    """Answers what the machine is doing and acts on what it runs."""

    def __init__(self, monitor: Monitor, control: Control) -> None:
        self._monitor = monitor
        self._control = control

    def stats(self, request: PlatformRequest, language: Language) -> bytes:
        """Return the encoded answer from the latest snapshot: no measuring, no waiting."""
        parts = decode_params(request.service_params, StatsParams).chosen()
        message = self._monitor.latest.encoded(parts, language, _scope(request))
        return b"%b%b}" % (_SUCCESS[language], message)

    async def measure(self, request: PlatformRequest, language: Language) -> Answer:
        """Return the answer from a window of at least half a second that starts now or later."""
        parts = decode_params(request.service_params, StatsParams).chosen()
        snapshot = await self._monitor.measure()
        return Answer.success(snapshot.message(parts, language, _scope(request)), language)

    async def stop(self, request: PlatformRequest, language: Language) -> Answer:
        """Stop a container and return the answer once it is really gone."""
        params = decode_params(request.service_params, StopParams)
        sentence = await self._control.stop(params, _scope(request))
        return Answer(100000, _STOPPED.pick(language), sentence.pick(language))

    async def perform(self, request: PlatformRequest, language: Language) -> Answer:
        """Carry out an accepted request."""
        if request.op == QUERY:
            return await self.measure(request, language)
        return await self.stop(request, language)


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
