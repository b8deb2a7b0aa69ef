"""B1: a body that is not one strict JSON object in UTF-8 is refused with a reason, and harms nothing."""

import gzip
from collections.abc import Callable, Iterator

import httpx
import msgspec
import pytest

from tests.support.server import Server, strict

STATS = "/k12ai/platform/stats"
CONTROL = "/k12ai/platform/control"
GOOD = b'{"op":"query","user":"u","service_name":"k12platform","service_uuid":"bad-json"}'


def post(
    server: Server, body: bytes, *, path: str = STATS, content_type: str | None = "application/json"
) -> httpx.Response:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return server.http.post(path, content=body, headers=headers)


def with_field(value: bytes, name: bytes = b'"x"') -> bytes:
    """Return the good body with one more field."""
    return b"%b,%b:%b}" % (GOOD[:-1], name, value)


def with_param(value: bytes) -> bytes:
    """Return the good body with a parameter that the server does not know."""
    return with_field(b'{"x":%b}' % value, b'"service_params"')


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.fixture(autouse=True)
def _unharmed(server: Server) -> Iterator[None]:
    """After every test the same server is well."""
    with server.unharmed():
        yield


NOT_STRICT_JSON = {
    "empty": b"",
    "white space": b" \r\n\t",
    "half an object": b"{",
    "half a request": GOOD[:-1],
    "array": b"[]",
    "the request in an array": b"[" + GOOD + b"]",
    "string": b'"x"',
    "the request in a string": b'"' + GOOD.replace(b'"', b'\\"') + b'"',
    "number": b"1",
    "true": b"true",
    "null": b"null",
    "NaN": b"NaN",
    "NUL": b"\x00",
    "trailing letter": GOOD + b"x",
    "trailing brace": GOOD + b"}",
    "trailing NUL": GOOD + b"\x00",
    "two objects": GOOD + GOOD,
    "two lines": GOOD + b"\n" + GOOD,
    "leading NUL": b"\x00" + GOOD,
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "UTF-16 with BOM": GOOD.decode().encode("utf-16"),
    "UTF-16 little endian": GOOD.decode().encode("utf-16-le"),
    "UTF-16 big endian": GOOD.decode().encode("utf-16-be"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "only a UTF-16 BOM": b"\xff\xfe",
    "gzip": gzip.compress(GOOD),
    "form": b"op=query&user=u&service_name=k12platform&service_uuid=a",
    "Python": GOOD.replace(b'"', b"'"),
    "comment": GOOD[:-1] + b"/**/}",
    "trailing comma": GOOD[:-1] + b",}",
    "missing comma": GOOD.replace(b",", b" "),
    "unquoted name": with_field(b"1", b"x"),
    "leading zero": with_field(b"01"),
    "plus sign": with_field(b"+1"),
    "no digit before the point": with_field(b".5"),
    "no digit after the point": with_field(b"1."),
    "no digit in the exponent": with_field(b"1e"),
    "hexadecimal": with_field(b"0x10"),
    "half a literal": with_field(b"tru"),
    "capital literal": with_field(b"True"),
    "NaN in an unknown field": with_field(b"NaN"),
    "Infinity in an unknown field": with_field(b"Infinity"),
    "NaN in a parameter": with_param(b"NaN"),
    "-Infinity in a parameter": with_param(b"-Infinity"),
    "control character in a string": with_field(b'"\x01"'),
    "line feed in a string": with_param(b'"\n"'),
    "unknown escape": with_field(b'"\\x41"'),
    "half an escape": with_field(b'"\\u12"'),
    "lone surrogate in an identifier": GOOD.replace(b'"bad-json"', b'"\\ud800"'),
    "lone surrogate in an unknown field": with_field(b'"\\ud800"'),
    "lone surrogate in a parameter": with_param(b'"\\udfff"'),
    "reversed surrogates in a parameter": with_param(b'"\\udc00\\ud800"'),
    "invalid UTF-8 in an identifier": GOOD.replace(b'"bad-json"', b'"\xff"'),
    "invalid UTF-8 in a parameter": with_param(b'"\xff"'),
    "overlong UTF-8 in a parameter": with_param(b'"\xc0\xaf"'),
    "surrogate in UTF-8 in a parameter": with_param(b'"\xed\xa0\x80"'),
    "GBK": with_param('"中文"'.encode("gbk")),
    "100,000 arrays": nested(100_000),
    "100,000 open arrays": b"[" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
    "100,000 levels in an unknown field": with_field(nested(100_000)),
    "100,000 levels in a parameter": with_param(nested(100_000)),
    "100,000 objects in a parameter": with_param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
}


@pytest.mark.parametrize("path", [STATS, CONTROL])
@pytest.mark.parametrize("body", NOT_STRICT_JSON.values(), ids=NOT_STRICT_JSON.keys())
def test_what_is_not_strict_json_is_refused(server: Server, path: str, body: bytes) -> None:
    """Whatever is not one strict JSON object in UTF-8 is a 400 with 100103, on both routes."""
    answer = post(server, body, path=path)
    assert answer.status_code == 400
    assert set(strict(answer)) == {"code", "descr", "message"}
    assert strict(answer)["code"] == 100103
    assert strict(answer)["descr"] == "api parameter json format error"


NOT_UTF8_WHERE_NOBODY_LOOKS = {
    "invalid UTF-8 in an unknown field": with_field(b'"\xff"'),
    "overlong UTF-8 in an unknown field": with_field(b'"\xc0\xaf"'),
    "surrogate in UTF-8 in an unknown field": with_field(b'"\xed\xa0\x80"'),
    "invalid UTF-8 in an unknown name": with_field(b"1", b'"\xff"'),
    "GBK in an unknown field": with_field('"中文"'.encode("gbk")),
}


@pytest.mark.parametrize("body", NOT_UTF8_WHERE_NOBODY_LOOKS.values(), ids=NOT_UTF8_WHERE_NOBODY_LOOKS.keys())
def test_a_body_is_utf8_also_where_nobody_looks(server: Server, body: bytes) -> None:
    """Bytes that are not UTF-8 are a 400 with 100103 wherever in the body they stand."""
    answer = post(server, body)
    assert (answer.status_code, strict(answer)["code"]) == (400, 100103)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999"])
def test_a_number_beyond_all_numbers_in_an_unknown_field_is_refused(server: Server, number: bytes) -> None:
    """A number that overflows to infinity is a 400 with 100103 in a field that nobody reads, too."""
    answer = post(server, with_field(number))
    assert (answer.status_code, strict(answer)["code"]) == (400, 100103)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1e400"])
def test_a_number_beyond_all_numbers_in_a_parameter_is_refused(server: Server, number: bytes) -> None:
    """A parameter that overflows to infinity is a 400."""
    answer = post(server, with_param(number))
    assert answer.status_code == 400
    assert strict(answer)["code"] in (100102, 100103)


STILL_JSON = {
    "white space around": b" \t\r\n" + GOOD + b"\n",
    "duplicate names": GOOD[:-1] + b',"user":"u"}',
    "escaped names": GOOD.replace(b'"op"', b'"\\u006fp"'),
    "surrogate pair": with_param(b'"\\ud83d\\ude00"'),
    "Chinese": with_param('"中文"'.encode()),
    "escaped NUL": with_param(b'"\\u0000"'),
    "65 levels": with_param(nested(64)),
    "1e308": with_param(b"1e308"),
    "denormal number": with_param(b"5e-324"),
    "negative zero": with_param(b"-0"),
    "2**64": with_param(b"18446744073709551616"),
    "empty name": with_field(b"1", b'""'),
    "unknown field": with_field(b'{"a":[1,null,true,"x"]}'),
    "string of 1,000,000 characters": with_field(b'"' + b"a" * 1_000_000 + b'"'),
}


@pytest.mark.parametrize("body", STILL_JSON.values(), ids=STILL_JSON.keys())
def test_unusual_but_strict_json_is_taken(server: Server, body: bytes) -> None:
    """What is valid JSON is read, however odd it looks."""
    assert strict(post(server, body))["code"] == 100000


@pytest.mark.parametrize("asynchronous", [b"true", b"false"], ids=["async", "sync"])
@pytest.mark.parametrize("levels", [*range(65, 900, 167), *range(930, 1000)])
def test_no_depth_is_a_fault_of_the_server(server: Server, levels: int, asynchronous: bytes) -> None:
    """Around the depth where parsing gives up, the answer is a success or a 400, never a 5xx."""
    body = with_param(nested(levels))[:-1] + b',"async":%b}' % asynchronous
    answer = post(server, body)
    assert answer.status_code in (200, 202, 400)
    assert strict(answer)["code"] in (100000, 100102, 100103)


@pytest.mark.parametrize(
    "body",
    [
        with_field(b"9" * 5000),
        with_param(b"9" * 5000),
        with_param(b"9" * 4000)[:-1] + b',"async":true}',
        with_field(b"-" + b"9" * 5000, b'"service_name"'),
        GOOD.replace(b'"u"', b"9" * 5000),
    ],
    ids=["unknown field", "parameter", "asynchronous", "service_name", "user"],
)
def test_a_number_of_thousands_of_digits_is_no_fault_of_the_server(server: Server, body: bytes) -> None:
    """An integer too long for Python is ignored or refused, never a 5xx."""
    answer = post(server, body)
    assert answer.status_code in (200, 202, 400)
    strict(answer)


JSON_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json ;charset=utf-8",
    "application/json;",
    "APPLICATION/JSON",
    "Application/Json; Charset=UTF-8",
)


@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_json_may_be_declared_in_any_spelling(server: Server, content_type: str) -> None:
    """The media type is read without regard to case and parameters."""
    assert strict(post(server, GOOD, content_type=content_type))["code"] == 100000


OTHER_TYPES = (
    None,
    "",
    ";",
    "json",
    "text/plain",
    "text/json",
    "text/html",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/problem+json",
    "application/json, text/plain",
    "text/plain, application/json",
    "text/plain; application/json",
    "application/octet-stream",
    "*/*",
)


@pytest.mark.parametrize("path", [STATS, CONTROL])
@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_what_is_not_declared_as_json_is_refused(server: Server, path: str, content_type: str | None) -> None:
    """A good body under another media type, or under none, is a 415 with 100103: no form can send it."""
    answer = post(server, GOOD, path=path, content_type=content_type)
    assert answer.status_code == 415
    assert set(strict(answer)) == {"code", "descr", "message"}
    assert strict(answer)["code"] == 100103


def test_two_media_types_are_never_read_as_the_harmless_one(server: Server) -> None:
    """A request with two Content-Type fields is refused where the first is not JSON."""
    answer = server.http.post(
        STATS, content=GOOD, headers=[("Content-Type", "text/plain"), ("Content-Type", "application/json")]
    )
    assert answer.status_code == 415


@pytest.mark.parametrize("charset", ["gbk", "utf-16", "latin-1", "no-such"])
def test_the_charset_parameter_changes_nothing(server: Server, charset: str) -> None:
    """JSON is UTF-8 whatever the charset parameter says, so a body in that charset is a 400."""
    declared = f"application/json; charset={charset}"
    assert post(server, GOOD, content_type=declared).status_code == 200
    body = GOOD.replace(b"bad-json", "中文".encode("gbk"))
    assert strict(post(server, body, content_type=declared))["code"] == 100103


def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    """A Content-Encoding is not taken: no small body can grow into a large one."""
    answer = server.http.post(
        STATS,
        content=gzip.compress(GOOD),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert answer.status_code in (400, 415)
    assert strict(answer)["code"] == 100103


def test_an_accepted_oddity_does_not_keep_the_server_from_starting_again(
    start_server: Callable[..., Server], eventually: Callable[..., object]
) -> None:
    """The deepest parameters and longest number that got a 202 are carried out after a crash."""
    first = start_server(name="odd")
    accepted = [
        levels
        for levels in range(930, 1000)
        if post(first, with_param(nested(levels))[:-1] + b',"async":true}').status_code == 202
    ]
    assert accepted
    number = with_param(b"9" * 4000)[:-1] + b',"async":true}'
    assert post(first, number).status_code in (202, 400)
    first.kill()
    second = start_server(name="odd")
    result = "/v1/kv/platform/u/bad-json/query/result?raw"
    eventually(lambda: second.http.get(result).status_code == 200)
    assert msgspec.json.decode(second.http.get(result).content)["result"]["code"] == 100000
