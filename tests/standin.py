"""A stand-in for the Hugging Face Hub on 127.0.0.1.

It speaks what `HfApi` needs to look at a token, make a repository and upload a folder through LFS,
and keeps what it is sent. Users upload through Xet, which is switched off here: of a real push that
leaves the transfer of the large files untested (docs/publishing.md). Unlike the Hub's, its addresses are http, and the
client turns a 401 into RepositoryNotFoundError only for https.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest
import yaml

TOKEN = "hf_standInForARealToken"
CODES = {
    400: "A file that is to be deleted does not exist.",
    401: "Invalid username or password.",
    403: "You are not allowed to do this.",
    404: "Not found.",
    409: "The repository is being changed.",
    429: "Too many requests.",
    500: "Internal error.",
    503: "The service is not available.",
}


@dataclass
class Fault:
    """How an answer goes wrong.

    Args:
        code: the status that is answered in place of an answer, if any.
        headers: of that answer, such as Retry-After.
        times: how many requests it befalls; None: every one.
        cut: the connection is cut after so many bytes of the request's body.
        lost: the request is done, and the connection is cut before the answer.
        slow: seconds of silence, after which the connection is cut.
        expires: from this request on the token is no longer valid.
        says: the message of the answer with a code.
        answers: what is answered in place of the right thing, with 200.
    """

    code: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    cut: int | None = None
    lost: bool = False
    slow: float = 0.0
    expires: bool = False
    says: str = ""
    answers: dict[str, Any] | list[Any] | None = None


@dataclass
class Repo:
    """What a repository holds after its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)


class Hub:
    """The server; a context manager.

    `fail` maps a pattern over `METHOD /path` to a fault, or to the status that is answered in place of
    an answer: `hub.fail["PUT /lfs/"] = 401`. `requests` lists what came in, in that form.
    `only_public`: every repository is made public, as an organisation may have it.
    `before` may answer a request itself, and says whether it did (tests/hostile.py).
    """

    def __init__(self) -> None:
        self.token = TOKEN
        self.user = {
            "type": "user",
            "name": "alice",
            "orgs": [{"name": "lab", "roleInOrg": "write"}, {"name": "club", "roleInOrg": "read"}],
            "auth": {"accessToken": {"displayName": "test", "role": "write"}},
        }
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.verified: set[str] = set()
        self.fail: dict[str, int | Fault] = {}
        self.expired = False
        self.only_public = False
        self.writable = {"alice", "lab"}
        self.requests: list[str] = []
        self.closing = threading.Event()
        self.before: Callable[[_Handler, bytes], bool] = lambda *_: False

    @property
    def role(self) -> str:
        return str(self.user["auth"]["accessToken"]["role"])  # type: ignore[index]

    @role.setter
    def role(self, role: str) -> None:
        self.user["auth"]["accessToken"]["role"] = role  # type: ignore[index]

    def grant(self, rights: dict[str, Any] | None) -> None:
        """Let the token be a fine-grained one; what it is told of may not be what it may do."""
        self.role = "fineGrained"
        self.user["auth"]["accessToken"]["fineGrained"] = rights  # type: ignore[index]

    def may_write(self, repo: str) -> bool:
        return self.role != "read" and repo.partition("/")[0] in self.writable

    def fault(self, request: str) -> Fault:
        """What befalls this request; counts it."""
        for pattern, found in self.fail.items():
            fault = Fault(found) if isinstance(found, int) else found
            if fault.times != 0 and re.search(pattern, request):
                fault.times = fault.times and fault.times - 1
                self.expired |= fault.expires
                return fault
        return Fault()

    def heal(self) -> None:
        """From here on nothing goes wrong, and the token is a valid one again."""
        self.fail.clear()
        self.expired = False

    def __enter__(self) -> Self:
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})
        )
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self) -> dict[str, str]:
        """Variables under which a new process takes this server for the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process take the server for the Hub.

        huggingface_hub reads its variables when it is imported, so setting them is not enough.
        """
        from huggingface_hub import constants

        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def handle_any(self) -> None:
        path = self.path.partition("?")[0]
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = self.hub.fault(request)
        length = int(self.headers.get("Content-Length") or 0)
        # The whole body is read before anything is answered, as a proxy in front of the Hub does.
        body = self.rfile.read(length if fault.cut is None else min(fault.cut, length))
        if fault.cut is not None or fault.slow:
            self.hub.closing.wait(fault.slow)
            self.cut()
            return
        if fault.code:
            self.refuse(fault.code, fault.says, **fault.headers)
            return
        if self.hub.before(self, body):
            return
        stored = path.startswith("/lfs/")  # such addresses are signed and need no token
        valid = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if not stored and (self.hub.expired or not valid):
            self.refuse(401)
            return
        if fault.answers is not None:
            self.answer(fault.answers)
            return
        if fault.lost:
            self.wfile = io.BytesIO()
        for pattern, route in _ROUTES.items():
            match = re.fullmatch(pattern, request)
            if match:
                route(self, body, **match.groupdict())
                break
        else:
            self.refuse(404)
        if fault.lost:
            self.cut()

    def cut(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client did not wait
            super().handle()

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - http.server's names

    def answer(self, value: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        for name, text in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, code: int, says: str = "", **headers: str) -> None:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        words = says or CODES.get(code, "The stand-in was told to fail.")
        self.answer({"error": words}, code, named)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    # What the addresses do.

    def repo(self, name: str, *, write: bool = False) -> Repo | None:
        """The repository, or None after having refused."""
        if name not in self.hub.repos:
            self.refuse(404, X_Error_Code="RepoNotFound")
        elif write and not self.hub.may_write(name):
            self.refuse(403)
        else:
            return self.hub.repos[name]
        return None

    def whoami(self, _: bytes) -> None:
        self.answer(self.hub.user)

    def auth_check(self, _: bytes, repo: str, write: str | None) -> None:
        if self.repo(repo, write=bool(write)):
            self.answer({})

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'alice'}/{wanted['name']}"
        if name in self.hub.repos:
            self.answer(
                {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"},
                409,
            )
        elif not self.hub.may_write(name):
            self.refuse(403)
        else:
            # Clients of 1.x before `visibility` send `private`.
            self.hub.repos[name] = Repo(
                not self.hub.only_public
                and (wanted.get("visibility") == "private" or bool(wanted.get("private")))
            )
            self.answer({"url": f"{self.hub.url}/{name}", "name": name})

    def info(self, _: bytes, repo: str) -> None:
        found = self.repo(repo)
        if found:
            sha = hashlib.sha1(str(len(found.commits)).encode()).hexdigest()
            files = [{"rfilename": name} for name in found.files]
            card = found.files.get("README.md", b"").decode().split("---\n")
            said = yaml.safe_load(card[1]) if len(card) > 2 else {}
            made = {"id": repo, "sha": sha, "private": found.private, "siblings": files}
            self.answer({**made, "tags": said.get("tags", [])})

    def resolve(self, _: bytes, repo: str, path: str) -> None:
        found = self.repo(repo)
        if found and path not in found.files:
            self.refuse(404, X_Error_Code="EntryNotFound")
        elif found:
            content = found.files[path]
            self.send_response(200)
            for name, text in {
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Repo-Commit": hashlib.sha1(str(len(found.commits)).encode()).hexdigest(),
                "Content-Length": str(len(content)),
            }.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    def tree(self, _: bytes, repo: str) -> None:
        found = self.repo(repo)
        if found:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(found, name)}
                    for name, content in found.files.items()
                ]
            )

    def validate(self, _: bytes) -> None:
        self.answer({"errors": [], "warnings": []})

    def preupload(self, body: bytes, repo: str) -> None:
        found = self.repo(repo, write=True)
        if found:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": _oid(found, file["path"]),
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        if self.repo(repo, write=True):
            objects = json.loads(body)["objects"]
            for wanted in objects:
                if wanted["oid"] not in self.hub.verified:
                    wanted["actions"] = {
                        "upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"},
                        "verify": {"href": f"{self.hub.url}/verify"},
                    }
            self.answer({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self.refuse(400)
        else:
            self.hub.objects[oid] = body
            self.answer({})

    def verify(self, body: bytes) -> None:
        wanted = json.loads(body)
        if len(self.hub.objects.get(wanted["oid"], b"")) == wanted["size"]:
            self.hub.verified.add(wanted["oid"])
            self.answer({})
        else:
            self.refuse(404)

    def commit(self, body: bytes, repo: str) -> None:
        found = self.repo(repo, write=True)
        if not found:
            return
        items = [json.loads(line) for line in body.splitlines()]
        gone = {item["value"]["path"] for item in items if item["key"] == "deletedFile"}
        if not gone <= found.files.keys():
            self.refuse(400)  # and nothing of it is done
            return
        for item in items:
            value = item["value"]
            if item["key"] == "header":
                found.commits.append(value["summary"])
            elif item["key"] == "deletedFile":
                del found.files[value["path"]]
                found.lfs.discard(value["path"])
            elif item["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            else:
                found.files[value["path"]] = self.hub.objects[value["oid"]]
                found.lfs.add(value["path"])
        oid = hashlib.sha1(str(len(found.commits)).encode()).hexdigest()
        self.answer(
            {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"}
        )


def _oid(repo: Repo, path: str) -> str | None:
    """What the Hub says of a file that it has: sha256 of a large one, git's blob id of another."""
    if path not in repo.files:
        return None
    content = repo.files[path]
    if path in repo.lfs:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_NAME = "(?P<repo>[^/]+/[^/]+?)"
_ROUTES: dict[str, Any] = {
    "GET /api/whoami-v2": _Handler.whoami,
    f"GET /api/models/{_NAME}/auth-check(?P<write>/write)?": _Handler.auth_check,
    f"GET /api/models/{_NAME}(?:/revision/[^/]+)?": _Handler.info,
    "POST /api/repos/create": _Handler.create,
    f"GET /api/models/{_NAME}/tree/[^/]+": _Handler.tree,
    f"(?:GET|HEAD) /{_NAME}/resolve/[^/]+/(?P<path>.+)": _Handler.resolve,
    "POST /api/validate-yaml": _Handler.validate,
    f"POST /api/models/{_NAME}/preupload/[^/]+": _Handler.preupload,
    f"POST /api/models/{_NAME}/commit/[^/]+": _Handler.commit,
    f"POST /{_NAME}.git/info/lfs/objects/batch": _Handler.batch,
    "PUT /lfs/(?P<oid>[0-9a-f]{64})": _Handler.store,
    "POST /verify": _Handler.verify,
}
