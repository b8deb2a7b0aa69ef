"""A stand-in for a Docker Engine: it says which images it has, and that it builds what it is asked to."""

import http.server
import re
import threading
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import msgspec

STEPS = [{"stream": "Step 1/1 : FROM ${BASE}\n"}, {"stream": "Successfully built 0123456789ab\n"}]


class FakeImageEngine:
    """Listens at ``address``; what it was asked to build, and to prune, is there to be looked at."""

    def __init__(self, *images: str) -> None:
        self.images: dict[str, dict[str, str]] = {name: {} for name in images}  # with their labels
        self.answer: list[dict[str, Any]] = STEPS  # to a build
        self.builds: list[dict[str, str]] = []
        self.archives: list[bytes] = []
        self.pruned: list[str] = []

    def __enter__(self) -> Self:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"tcp://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def respond(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, list[Any]]:
        """Return the status, and the documents of the answer."""
        if method == "POST" and path == "/build":
            return self._build(query, body)
        if method == "POST" and path == "/images/prune":
            self.pruned += msgspec.json.decode(query["filters"])["label"]
            return 200, [{"ImagesDeleted": None, "SpaceReclaimed": 0}]
        if method == "POST" and path == "/images/create":
            return 404, [{"message": f"pull access denied for {query['fromImage']}"}]
        if found := re.fullmatch(r"/images/(.+)/json", path):
            return self._inspect(found[1])
        return 200, [{"ApiVersion": "1.41", "Version": "20.10.24"}]

    def _inspect(self, name: str) -> tuple[int, list[Any]]:
        if name not in self.images:
            return 404, [{"message": f"No such image: {name}"}]
        shown = {
            "Id": f"sha256:{name}",
            "Size": 3 << 20,
            "Created": "2025-11-24T12:00:00.123456789Z",
            "Config": {"Labels": self.images[name] or None},
        }
        return 200, [shown]

    def _build(self, query: dict[str, str], body: bytes) -> tuple[int, list[Any]]:
        self.builds.append(query)
        self.archives.append(body)
        if not any("error" in each for each in self.answer):
            self.images[query["t"]] = msgspec.json.decode(query["labels"])
        return 200, self.answer

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                path = re.sub(r"^/v[0-9.]+", "", parts.path)
                status, documents = engine.respond(self.command, path, query, self._body())
                answer = b"".join(msgspec.json.encode(each) + b"\r\n" for each in documents)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_words: object) -> None:
                pass

        return Handler
