"""Everything that can go wrong, as one tree.

::

    K12AIError                        code  HTTP
    ├── RequestError
    │   ├── MissingField             100101  400
    │   ├── InvalidValue             100102  400
    │   │   ├── BadParameter         100203  400
    │   │   ├── BadPath              100102  400
    │   │   └── BadRange             100102  416
    │   ├── MalformedJson            100103  400
    │   │   └── NotJson              100103  415
    │   ├── ServiceNotFound          100201  404
    │   ├── TooLarge                 100613  413
    │   │   ├── HeadersTooLarge      100613  431
    │   │   └── UrlTooLong           100613  414
    │   ├── RequestTooSlow           100618  408
    │   ├── MalformedRequest         100619  400
    │   ├── CodingNotSupported       100619  501
    │   ├── ResourceNotFound         100616  404
    │   ├── NoSuchFile               100620  404
    │   ├── PathTaken                100621  409
    │   ├── ProjectFull              100622  507
    │   ├── MethodNotAllowed         100617  405
    │   ├── HostRefused              100605  421
    │   ├── OriginRefused            100605  403
    │   ├── ProxyBypassed            100605  403
    │   ├── NotAuthenticated         100601  401
    │   │   └── InvalidToken         100601  401
    │   │       ├── TokenExpired     100601  401
    │   │       └── TokenRevoked     100601  401
    │   ├── NotAllowed               100602  403
    │   ├── QuotaExceeded            100604  429
    │   └── RateLimited              100603  429
    │       ├── TooManyWrongTokens   100603  429
    │       └── TooManyConnections   100603  429
    ├── NoSuchToken                  100623  404
    ├── NoSuchClass                  100623  404
    ├── QuotaExceeded                100604  429
    ├── ContainerNotFound            100202  404
    ├── TaskRunning                  100204  409
    ├── TaskNotFound                 100205  404
    ├── FrameworkNotInstalled        100202  501
    ├── ImageMissing                 100202  501
    ├── TooManyRequestsPending       100210  429
    ├── Unavailable                  (503, 504: try again)
    │   ├── EngineUnavailable        100610  503
    │   ├── EngineTimeout            100611  504
    │   ├── StorageUnavailable       100614  503
    │   └── ServerStopping           100615  503
    ├── StorageFull                  100612  507
    └── InternalError                100199  500

Each class owns its code and its HTTP status; one handler (``k12ai.api.answers``) turns any of them
into the body that the path's clients expect. ``detail`` says what exactly was wrong, in both
languages, and never holds a traceback.
"""

from typing import ClassVar

from k12ai.catalogue import CATALOGUE, Code
from k12ai.texts import Text


class K12AIError(Exception):
    """The root of the tree: an error with a code from the catalogue."""

    code: ClassVar[int] = 999999
    status: ClassVar[int] = 500
    retry_after_s: int | None = None

    def __init__(self, detail: Text) -> None:
        super().__init__(detail.en)
        self.detail = detail

    @property
    def row(self) -> Code:
        """The catalogue's row for this error's code."""
        return CATALOGUE[self.code]


class RequestError(K12AIError):
    """The request itself is at fault; sending it again unchanged cannot help."""

    status = 400
    code = 100102


class MissingField(RequestError):
    """A mandatory field is absent."""

    code = 100101

    def __init__(self, field: str) -> None:
        super().__init__(Text(f"{field}: this field is required", f"{field}：缺少必需的字段"))


class InvalidValue(RequestError):
    """A field has a value outside of what is allowed."""

    def __init__(self, field: str, expected: Text) -> None:
        super().__init__(Text(f"{field}: must be {expected.en}", f"{field}：必须是{expected.zh}"))


class BadParameter(InvalidValue):
    """A parameter of a framework has a value outside of what is allowed; nothing was started."""

    code = 100203


class BadPath(InvalidValue):
    """The path of a file is not one that a project's file can have."""

    def __init__(self, expected: Text) -> None:
        super().__init__("path", expected)


class BadRange(InvalidValue):
    """The part of a file that is asked for lies outside of it."""

    status = 416

    def __init__(self, size: int) -> None:
        super().__init__("Range", Text(f"within the file's {size} bytes", f"文件的 {size} 字节之内的范围"))


class MalformedJson(RequestError):
    """The body is not one strict JSON object."""

    code = 100103

    def __init__(self, reason: Text | None = None) -> None:
        super().__init__(
            reason or Text("the body is not strict JSON in UTF-8", "请求体不是 UTF-8 编码的严格 JSON")
        )


class NotJson(MalformedJson):
    """The body is declared as something other than JSON."""

    status = 415

    def __init__(self) -> None:
        super().__init__(
            Text("the Content-Type must be application/json", "Content-Type 必须是 application/json")
        )


class ServiceNotFound(RequestError):
    """``service_name`` names neither the platform nor a framework."""

    status = 404
    code = 100201

    def __init__(self, known: tuple[str, ...]) -> None:
        names = ", ".join(known)
        super().__init__(Text(f"service_name: must be one of {names}", f"service_name：必须是 {names} 之一"))


class TooLarge(RequestError):
    """The body is over its limit, whichever way it is framed."""

    status = 413
    code = 100613

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(Text(f"the body is larger than {limit_bytes} bytes", f"请求体超过 {limit_bytes} 字节"))


class HeadersTooLarge(TooLarge):
    """The request's header fields are too many or too long."""

    status = 431

    def __init__(self) -> None:
        RequestError.__init__(self, Text("the header fields are too large", "请求头过大"))


class UrlTooLong(TooLarge):
    """The request's URL is too long."""

    status = 414

    def __init__(self) -> None:
        RequestError.__init__(self, Text("the URL is too long", "URL 过长"))


class RequestTooSlow(RequestError):
    """The request did not arrive within its deadline."""

    status = 408
    code = 100618

    def __init__(self, deadline_s: float) -> None:
        super().__init__(
            Text(f"the request did not arrive within {deadline_s:g} s", f"请求未在 {deadline_s:g} 秒内到达")
        )


class MalformedRequest(RequestError):
    """What came is not HTTP/1.1."""

    code = 100619

    def __init__(self) -> None:
        super().__init__(Text("the request is not valid HTTP/1.1", "请求不是有效的 HTTP/1.1"))


class CodingNotSupported(RequestError):
    """The body comes in a transfer coding, or behind an upgrade, that this server does not undo."""

    status = 501
    code = 100619

    def __init__(self) -> None:
        super().__init__(
            Text(
                "only plain and chunked bodies are understood, and no upgrades",
                "只支持普通和分块（chunked）的请求体，不支持协议升级",
            )
        )


class ResourceNotFound(RequestError):
    """Nothing is served at this path."""

    status = 404
    code = 100616

    def __init__(self) -> None:
        super().__init__(Text("nothing is served at this path", "该路径没有提供任何内容"))


class NoSuchFile(RequestError):
    """The project has nothing under this path."""

    status = 404
    code = 100620

    def __init__(self, path: str) -> None:
        super().__init__(Text(f"{path}: there is no such file", f"{path}：没有此文件"))


class PathTaken(RequestError):
    """What is under the path is not what the request needs there."""

    status = 409
    code = 100621

    def __init__(self, path: str, reason: Text) -> None:
        super().__init__(Text(f"{path}: {reason.en}", f"{path}：{reason.zh}"))


class ProjectFull(RequestError):
    """The project has, or would have, more than it may."""

    status = 507
    code = 100622

    def __init__(self, limit_bytes: int, limit_files: int) -> None:
        super().__init__(
            Text(
                f"a project may have {limit_bytes} bytes in {limit_files} files and directories; "
                "delete something first",
                f"一个项目最多可有 {limit_files} 个文件和目录，共 {limit_bytes} 字节；请先删除一些内容",
            )
        )


class MethodNotAllowed(RequestError):
    """The path does not take this method; ``allowed`` go into the Allow header."""

    status = 405
    code = 100617

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        names = ", ".join(allowed)
        super().__init__(Text(f"only {names} is allowed here", f"此处只允许 {names}"))


class HostRefused(RequestError):
    """The Host header names a host this server does not answer for (DNS rebinding)."""

    status = 421
    code = 100605

    def __init__(self) -> None:
        super().__init__(
            Text(
                "the Host header names a host that this server does not answer for",
                "Host 头中的主机名不属于本服务器",
            )
        )


class OriginRefused(RequestError):
    """The request was made by a web page of another origin."""

    status = 403
    code = 100605

    def __init__(self) -> None:
        super().__init__(
            Text("requests from web pages of other origins are refused", "拒绝来自其他来源网页的请求")
        )


class ProxyBypassed(RequestError):
    """The server is behind a proxy, and the request did not come through it."""

    status = 403
    code = 100605

    def __init__(self) -> None:
        super().__init__(Text("requests must come through the server's proxy", "请求必须经由服务器前面的代理"))


class NotAuthenticated(RequestError):
    """Nobody knows who sends the request, and this route is not for everybody."""

    status = 401
    code = 100601

    def __init__(self, detail: Text | None = None) -> None:
        super().__init__(detail or Text("a token is needed", "需要令牌"))


class InvalidToken(NotAuthenticated):
    """The token is none of this server's."""

    def __init__(self, detail: Text | None = None) -> None:
        super().__init__(detail or Text("this server does not know the token", "本服务器不认识该令牌"))


class TokenExpired(InvalidToken):
    """The token's time is over."""

    def __init__(self) -> None:
        super().__init__(Text("the token has expired", "令牌已过期"))


class TokenRevoked(InvalidToken):
    """The token was revoked."""

    def __init__(self) -> None:
        super().__init__(Text("the token was revoked", "令牌已被吊销"))


class NotAllowed(RequestError):
    """It is known who sends the request, and this one may not do that."""

    status = 403
    code = 100602

    @classmethod
    def for_user(cls, own: str, other: str) -> "NotAllowed":
        """Return the refusal to act for somebody else."""
        return cls(
            Text(
                f"user: the token is {own}'s, which cannot act for {other}",
                f"user：该令牌属于 {own}，不能代表 {other} 操作",
            )
        )

    @classmethod
    def for_role(cls, role: str) -> "NotAllowed":
        """Return the refusal of what takes another role."""
        return cls(Text(f"this takes the role {role}", f"此操作需要 {role} 角色"))


class RateLimited(RequestError):
    """More requests came than may come in that time."""

    status = 429
    code = 100603
    retry_after_s = 1  # at least

    def __init__(self, retry_after_s: int, detail: Text | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(
            detail
            or Text(
                f"too many requests; the next one may come in {retry_after_s} s",
                f"请求过多；{retry_after_s} 秒后可再次请求",
            )
        )


class TooManyWrongTokens(RateLimited):
    """Too many tokens that are none came from one address; those that are valid still pass."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            retry_after_s,
            Text(
                "too many wrong tokens came from this address; valid ones still pass",
                "该地址发送了过多错误的令牌；有效的令牌仍可使用",
            ),
        )


class TooManyConnections(RateLimited):
    """An address has as many connections as one address may have."""

    def __init__(self) -> None:
        super().__init__(1, Text("too many connections are open from this address", "该地址打开的连接过多"))


class NoSuchToken(K12AIError):
    """There is no token of this id that the caller may see."""

    status = 404
    code = 100623

    def __init__(self, token_id: str) -> None:
        super().__init__(Text(f"there is no token {token_id}", f"没有令牌 {token_id}"))


class NoSuchClass(K12AIError):
    """There is no class of this name."""

    status = 404
    code = 100623

    def __init__(self, name: str) -> None:
        super().__init__(Text(f"there is no class {name}", f"没有班级 {name}"))


class QuotaExceeded(RequestError):
    """A user has as much of something as one user may have."""

    status = 429
    code = 100604
    retry_after_s = 30


class ContainerNotFound(K12AIError):
    """No container that the platform may act on has this id."""

    status = 404
    code = 100202

    def __init__(self, container_id: str) -> None:
        # The English sentence is the published one, to the letter.
        super().__init__(
            Text(f"container id {container_id} is not found", f"找不到 id 为 {container_id} 的容器")
        )


class TaskRunning(K12AIError):
    """The project has a task of this op that has not ended."""

    status = 409
    code = 100204

    def __init__(self, task_id: str) -> None:
        super().__init__(Text(f"task {task_id} is running already", f"任务 {task_id} 已在运行"))
        self.task_id = task_id


class TaskNotFound(K12AIError):
    """No task is meant by what the request names, or it has ended."""

    status = 404
    code = 100205

    def __init__(self, what: str) -> None:
        super().__init__(Text(f"no task: {what}", f"没有这个任务：{what}"))


class FrameworkNotInstalled(K12AIError):
    """The libraries that a framework needs are not on this server."""

    status = 501
    code = 100202

    def __init__(self, framework: str, extra: str, missing: tuple[str, ...]) -> None:
        names = ", ".join(missing)
        super().__init__(
            Text(
                f"{framework} needs {names}; the operator can install it with: pip install 'k12ai[{extra}]'",
                f"{framework} 需要 {names}；管理员可以安装：pip install 'k12ai[{extra}]'",
            )
        )


class ImageMissing(K12AIError):
    """The Engine does not have the image that a framework's tasks run in."""

    status = 501
    code = 100202

    def __init__(self, framework: str, image: str) -> None:
        super().__init__(
            Text(
                f"{framework} needs the image {image}; the operator can make it with: "
                f"k12ai images build {framework}",
                f"{framework} 需要镜像 {image}；管理员可以构建：k12ai images build {framework}",
            )
        )


class TooManyRequestsPending(K12AIError):
    """As many asynchronous requests wait for their result as the server accepts."""

    status = 429
    code = 100210
    retry_after_s = 2

    def __init__(self, limit: int) -> None:
        super().__init__(
            Text(f"{limit} asynchronous requests are already pending", f"已有 {limit} 个异步请求在等待")
        )


class Unavailable(K12AIError):
    """Something the answer needs is away for the moment; trying again can help."""

    status = 503
    retry_after_s = 2


class EngineUnavailable(Unavailable):
    """The container engine cannot be reached: what it runs is unknown, not gone."""

    code = 100610

    def __init__(self, reason: Text) -> None:
        super().__init__(
            Text(f"the Docker Engine is unavailable: {reason.en}", f"Docker 引擎不可用：{reason.zh}")
        )


class EngineTimeout(Unavailable):
    """The container engine did not answer within the call's deadline."""

    status = 504
    code = 100611

    def __init__(self, call: str, deadline_s: float) -> None:
        super().__init__(
            Text(
                f"the Docker Engine did not answer '{call}' within {deadline_s:g} s",
                f"Docker 引擎没有在 {deadline_s:g} 秒内应答“{call}”",
            )
        )


class StorageUnavailable(Unavailable):
    """The store did not take or give the data in time."""

    code = 100614

    def __init__(self) -> None:
        super().__init__(Text("the store did not answer in time", "存储没有及时应答"))


class ServerStopping(Unavailable):
    """The server is shutting down; what it accepted goes on."""

    code = 100615

    def __init__(self) -> None:
        super().__init__(
            Text(
                "the server is stopping; what was already asked for goes on",
                "服务器正在停止；已经提出的请求会继续执行",
            )
        )


class StorageFull(K12AIError):
    """There is no room left on the disk of the data directory."""

    status = 507
    code = 100612
    retry_after_s = 30

    def __init__(self) -> None:
        super().__init__(Text("the disk of the data directory is full", "数据目录所在的磁盘已满"))


class InternalError(K12AIError):
    """A fault of the server; the log has the cause under the request id."""

    code = 100199

    def __init__(self) -> None:
        super().__init__(
            Text(
                "the server failed on this request; its log has the cause under X-Request-Id",
                "服务器处理该请求时出错；可用 X-Request-Id 在日志中查到原因",
            )
        )
