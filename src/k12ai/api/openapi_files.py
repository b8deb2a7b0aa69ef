"""What the OpenAPI document says of the files of projects."""

from collections.abc import Sequence

from k12ai import errors
from k12ai.api.openapi_parts import (
    BYTES,
    IDENTIFIER,
    JSON,
    Error,
    Part,
    bare,
    field,
    flag,
    links,
    path,
    resource,
    response,
    shape,
)
from k12ai.projects import FileEntry, Listing, StoredFile

SHAPES = (FileEntry, Listing, StoredFile)

TAG = {"name": "Files", "description": "What projects hold: data, programs and models."}

_PROJECT = [
    path("user", IDENTIFIER, "Whose project"),
    path("service_uuid", IDENTIFIER, "Which project"),
]
_PATH = path(
    "path",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": 1024,
        # Names between single '/'; none is '.' or '..' or begins with '.k12ai', none has a backslash or
        # a control character.
        "pattern": (
            r"^(?!(?:.*/)?(?:\.{1,2}(?:/|$)|\.k12ai))[^/\\\x00-\x1f\x7f-\x9f]+"
            r"(?:/[^/\\\x00-\x1f\x7f-\x9f]+)*$(?!\n)"
        ),
        "examples": ["main.py"],
    },
    "The path inside of the project: at most 16 names of at most 255 bytes, and 1024 bytes in all. "
    "Names are escaped, the '/' between them are not: '%2F' is refused.",
)
_SAME_FILE = {
    "path.user": "$request.path.user",
    "path.service_uuid": "$request.path.service_uuid",
    "path.path": "$request.path.path",
}
_RECURSE = flag("recurse", "Also what is below")
_IF_NONE_MATCH = field("If-None-Match", {"type": "string"}, "An ETag: answer 304 while the file has it")
_OF_READING: tuple[Error, ...] = (errors.InvalidValue, errors.NoSuchFile, errors.PathTaken)
_OF_A_FILE = ("ETag", "Content-Disposition")


def paths() -> Part:
    """Return the operations by path and method."""
    files = "/api/v1/projects/{user}/{service_uuid}/files"
    return {
        files: {"parameters": _PROJECT, "get": _list(), "head": _list_head()},
        f"{files}/{{path}}": {
            "parameters": [*_PROJECT, _PATH],
            "get": _get(),
            "head": _head(),
            "put": _put(),
            "delete": _delete(),
        },
    }


def _list() -> Part:
    return _files_operation(
        "files",
        "What a project holds",
        {"200": _listing()},
        (errors.InvalidValue, errors.PathTaken),
        [_RECURSE],
    )


def _list_head() -> Part:
    return _without_bodies(_list(), "files_head", "The same, without the body")


def _get() -> Part:
    parameters = [
        flag("recurse", "Everything below this directory; a path with a '/' at its end lists the directory"),
        field("Range", {"type": "string"}, "Which bytes, as `bytes=0-99`; what is no single range is ignored"),
        field("If-Range", {"type": "string"}, "An ETag: heed `Range` only while the file has it"),
        _IF_NONE_MATCH,
    ]
    whole_file = response("The file, or the list of a directory", BYTES, {})
    whole_file["content"] = {BYTES: {}, **_listing()["content"]}
    part = response("Those bytes of it", BYTES, {}, (*_OF_A_FILE, "Content-Range"))
    part["content"] = {BYTES: {}}
    same = bare("It is the one that the caller has", ("ETag",))
    return _files_operation(
        "file_get",
        "A file, or a part of it",
        {"200": whole_file, "206": part, "304": same},
        (*_OF_READING, errors.BadRange),
        parameters,
    )


def _head() -> Part:
    success = {
        "200": bare("The file is there"),
        "304": bare("It is the one that the caller has", ("ETag",)),
    }
    operation = _files_operation(
        "file_head", "Whether a file is there, and which", success, _OF_READING, [_IF_NONE_MATCH]
    )
    return _without_bodies(operation, "file_head", operation["summary"])


def _put() -> Part:
    replaced = response("It takes the place of an earlier one", JSON, shape("StoredFile"), ("ETag",))
    created = response("It is new", JSON, shape("StoredFile"), ("ETag",))
    for each in (replaced, created):
        each["links"] = links(_SAME_FILE, "file_get", "file_head", "file_delete")
    operation = _files_operation(
        "file_put",
        "Put a file, durably; the directories on its way are made",
        {"200": replaced, "201": created},
        (errors.InvalidValue, errors.PathTaken, errors.TooLarge, errors.ProjectFull, errors.StorageFull),
    )
    operation["requestBody"] = {"content": {BYTES: {}}}
    return operation


def _delete() -> Part:
    deleted = bare("It is gone")
    deleted["links"] = links(_SAME_FILE, "file_get")
    return _files_operation(
        "file_delete",
        "Delete a file, or a directory with all that is in it",
        {"204": deleted},
        (*_OF_READING, errors.StorageFull),
    )


def _files_operation(
    name: str, summary: str, success: Part, refuses: Sequence[Error], parameters: Sequence[Part] = ()
) -> Part:
    return resource("Files", name, summary, success, refuses, parameters)


def _listing() -> Part:
    return response("The list; of a project that is not there, an empty one", JSON, shape("Listing"))


def _without_bodies(operation: Part, name: str, summary: str) -> Part:
    """Return the operation as HEAD has it."""
    responses = {
        status: {part: value for part, value in each.items() if part != "content"}
        for status, each in operation["responses"].items()
    }
    return operation | {"operationId": name, "summary": summary, "responses": responses}
