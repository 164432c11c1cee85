"""Hostile and broken servers: whatever they answer ends, soon, small, in a message, and in its place."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import get_session

from ragtune.answering import client
from ragtune.answering.client import served_models
from ragtune.base.errors import RagtuneError
from ragtune.base.web import answers, hub_client
from ragtune.base.web.answers import AnswerError, retry_after
from ragtune.base.web.hub import api
from ragtune.base.web.hub_client import bound_client, require_hub
from ragtune.data.read import read_examples
from ragtune.model.facts import model_facts
from ragtune.model.load import load_config
from ragtune.model.source import ModelSource
from ragtune.publish.hub import check_access, push
from tests.attacks import HEADS, NAMES, PAUSES, Hostile
from tests.hostile import LIMIT, SLACK, ask, questions, quick
from tests.standin import TOKEN, Fault, Repo

BASE = ModelSource("owner/base", "owner/base")


def _bounds() -> tuple[float, ...]:
    return client.TIMEOUT, client.LIST_TIMEOUT, client.RETRIES, hub_client.TIMEOUT, answers.WINDOW


@pytest.fixture(autouse=True, scope="module")
def _bounds_are_as_before() -> Iterator[None]:
    """What is bounded sooner here is not for the tests after these."""
    before = _bounds()
    yield
    assert _bounds() == before


@pytest.fixture
def hub(tmp_path: Path, tiny_folder: Path) -> Iterator[Hostile]:
    """A Hub with a model and a dataset; honest, as long as no mode is set."""
    with Hostile(0, rate=0.0) as hub, quick(hub, tmp_path / "here", 10) as waited:
        hub.waited = waited  # type: ignore[attr-defined]
        files = {p.name: p.read_bytes() for p in tiny_folder.iterdir()}
        hub.repos["owner/base"] = Repo(False, files)
        (tmp_path / "here").mkdir()
        yield hub


@pytest.fixture
def monkeypatch(hub: Hostile) -> Iterator[pytest.MonkeyPatch]:
    """Undone before the hub's own changes are: pytest's would put these back for all tests to come."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def answering(hub: Hostile, mode: Callable[..., None]) -> None:
    hub.rate, hub.only = 1.0, mode


def with_head(hub: Hostile, pattern: str, **head: str) -> None:
    """Let what is answered have this head beside its own."""
    named = {name.replace("_", "-"): value for name, value in head.items()}
    before = hub.before

    def changed(to: Any, body: bytes) -> bool:
        if pattern in to.path:
            end = to.end_headers

            def end_headers() -> None:
                for name, value in named.items():
                    to.send_header(name, value)
                end()

            to.end_headers = end_headers
        return before(to, body)

    hub.before = changed


def test_honest_ones_answer(hub: Hostile, tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name, act in questions(hub, here).items():
        assert ask(name, act, hub, here, hub.waited) == "answered", name  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", sorted(n for n in vars(Hostile) if n.startswith("mode_")))
def test_whatever_is_answered_every_question_ends(
    hub: Hostile, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    answering(hub, getattr(Hostile, mode))
    for module, name in (
        (answers, "WINDOW"),
        (hub_client, "TIMEOUT"),
        (client, "TIMEOUT"),
        (client, "LIST_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, 0.15)
    for name, act in questions(hub, here).items():
        end = ask(name, act, hub, here, hub.waited)  # type: ignore[attr-defined]
        if name in ("access", "config"):
            assert end != "answered"


@pytest.mark.parametrize("act", ["access", "facts", "config", "data", "list"])
def test_an_answer_without_an_end_is_not_read_on(hub: Hostile, tmp_path: Path, act: str) -> None:
    answering(hub, Hostile.mode_endless)
    with pytest.raises(RagtuneError):
        questions(hub, tmp_path / "here")[act]()
    assert hub.most < LIMIT + SLACK


def test_what_is_said_of_an_answer_without_an_end(hub: Hostile) -> None:
    def endless(self: Hostile, to: Any, _: object) -> None:
        to.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not self.closing.is_set():
            to.wfile.write(b"x" * 65536)

    answering(hub, endless)
    words = r"^The Hub's answer was not read on: 127\.0\.0\.1 sent more than the 256 KiB that it may\.\n"
    with pytest.raises(RagtuneError, match=words):
        check_access("alice/model", private=True)
    words = r"^The answer of http://\S+ was not read on: 127\.0\.0\.1 sent more than the 256 KiB"
    with pytest.raises(RagtuneError, match=words):
        served_models(f"{hub.url}/v1")


def test_a_file_is_no_longer_than_was_said(hub: Hostile) -> None:
    """The client writes on until all has come, or the disk is full, and compares then."""

    def longer(self: Hostile, to: Any, _: object) -> None:
        size = 50 if to.command == "HEAD" else 1 << 30
        head = f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "{"e" * 40}"\r\nX-Repo-Commit: {"c" * 40}'
        to.wfile.write(f"{head}\r\n\r\n".encode())
        while to.command == "GET" and not self.closing.is_set():
            to.wfile.write(b"x" * 65536)

    answering(hub, longer)
    words = r"owner/base can't be looked up\. The Hub's answer was not read on: .* sent more than the 1 KiB"
    with pytest.raises(RagtuneError, match=words):
        load_config(BASE)
    assert hub.most < SLACK


def test_a_file_that_the_disk_can_t_hold_is_not_begun(
    hub: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil._ntuple_diskusage(100, 90, 10)  # type: ignore[attr-defined]
    monkeypatch.setattr(hub_client.shutil, "disk_usage", lambda _: free)
    words = r"not read on: it is 1 KiB, and the disk of .* has 1 KiB free\. .* or set HF_HOME to"
    with pytest.raises(RagtuneError, match=words):
        load_config(BASE)


@pytest.mark.parametrize("at", ["head", "body"])
def test_what_drips_is_cut(hub: Hostile, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A byte now and then keeps every time-out of a client from running out."""
    now = itertools.count(0.0)  # each read takes a second
    monkeypatch.setattr(answers, "clock", now.__next__)
    monkeypatch.setattr(answers, "WINDOW", 3.0)
    monkeypatch.setattr(answers, "WHOLE_SECONDS", 1e9)

    def drip(self: Hostile, to: Any, _: object) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
        to.wfile.write(head if at == "body" else head[:20])
        while not self.closing.wait(0.02):
            to.wfile.write(b"x")

    answering(hub, drip)
    words = (
        r"^The Hub's answer was not read on: The connection brought \d+ bytes in \d+ s, and was cut"
    )
    with pytest.raises(RagtuneError, match=words):
        check_access("alice/model", private=True)
    assert next(now) < 20


@pytest.mark.parametrize("head", HEADS[:10], ids=lambda h: "=".join(next(iter(h.items())))[:40])
def test_hashes_and_sizes_that_are_none(hub: Hostile, tmp_path: Path, head: dict[str, str]) -> None:
    """huggingface_hub makes paths of them."""
    with_head(hub, "/resolve/", **{n.replace("-", "_"): v for n, v in head.items()})
    words = r"owner/base can't be looked up\. The Hub's answer was not read on: 127\.0\.0\.1 sent a"
    with pytest.raises(RagtuneError, match=words):
        load_config(BASE)
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name]


def saying(value: object) -> Callable[..., None]:
    """An answer, whatever is asked."""

    def say(_: Hostile, to: Any, __: object) -> None:
        to.answer(value)

    return say


def refusing(code: int, head: str = "") -> Callable[..., None]:
    """An answer without words."""

    def refuse(_: Hostile, to: Any, __: object) -> None:
        lines = f"HTTP/1.1 {code} No\r\nConnection: close\r\n{head}Content-Length: 0\r\n\r\n"
        to.wfile.write(lines.encode())

    return refuse


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out_of_a_folder(hub: Hostile, name: str) -> None:
    answering(hub, saying({"id": "owner/base", "siblings": [{"rfilename": name}]}))
    with pytest.raises(RagtuneError, match=r"127\.0\.0\.1 names a file that can be none: "):
        model_facts("owner/base", None)
    answering(hub, saying([{"type": "file", "path": name, "size": 1, "oid": "0"}]))
    with pytest.raises(AnswerError, match="names a file that can be none: "):
        list(api().list_repo_tree("owner/base"))


def test_a_compressed_answer_is_refused(hub: Hostile) -> None:
    answering(hub, Hostile.mode_bomb)
    with pytest.raises(RagtuneError, match=r"sent an answer that is compressed \(.*\), unasked"):
        check_access("alice/model", private=True)


@pytest.mark.parametrize("pause", PAUSES)
def test_what_a_server_asks_to_wait_is_bounded(pause: str) -> None:
    asked = retry_after({"Retry-After": pause})
    assert asked is None or 0 <= asked < 1e10
    assert retry_after({"RateLimit": f'"api";r=0;t={pause}'}) in (None, 0, 3, 999999, 999999999)


@pytest.mark.parametrize("act", ["access", "facts", "config", "tokenizer", "data"])
def test_who_asks_to_wait_for_long_is_not_waited_for(
    hub: Hostile, tmp_path: Path, act: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail["."] = Fault(429, {"Retry-After": "999999"})
    with pytest.raises(
        RagtuneError, match=r"The Hub refused \(429\): [Tt]oo many requests"
    ) as error:
        questions(hub, tmp_path / "here")[act]()
    assert max(hub.waited, default=0) <= 8  # type: ignore[attr-defined]
    assert "It asks to wait 999999 s." in error.value.advice


@pytest.mark.parametrize("act", ["access", "facts", "config", "data"])
def test_what_is_waited_is_said(
    hub: Hostile, tmp_path: Path, act: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail["."] = Fault(429, {"Retry-After": "20"}, times=3)
    questions(hub, tmp_path / "here")[act]()
    said = " ".join(capsys.readouterr().out.split()).replace("too many", "Too many")
    waited = hub.waited  # type: ignore[attr-defined]
    assert [seconds for seconds in waited if seconds > 2] == [20] * said.count(
        "Trying again in 20 s"
    )
    assert "The Hub refused (429): Too many requests. Trying again in 20 s (1 of 3)." in said


MEANINGS = {
    400: "it does not understand", 401: "takes no such token", 403: "is not allowed",
    404: "nothing of this name", 410: "is gone", 416: "is shorter than it was", 451: "legal reasons",
}  # fmt: skip


@pytest.mark.parametrize("code", MEANINGS)
@pytest.mark.parametrize("act", ["facts", "config", "tokenizer", "data"])
def test_a_code_without_words_says_what_it_is(
    hub: Hostile, tmp_path: Path, code: int, act: str
) -> None:
    answering(hub, refusing(code))
    with pytest.raises(RagtuneError) as error:
        questions(hub, tmp_path / "here")[act]()
    assert f"The Hub refused ({code}): " in error.value.message
    assert MEANINGS[code] in error.value.message
    assert "can't be reached" not in str(error.value)
    assert error.value.advice


@pytest.mark.parametrize("head", ["Link", "X_Xet_Refresh_Route", "Location"])
def test_the_token_stays_with_the_hub(hub: Hostile, head: str) -> None:
    thief = f"http://127.0.0.1:{hub.thief.server_port}/stolen"
    value = f'<{thief}>; rel="xet-auth"' if head == "Link" else thief
    with_head(hub, "/resolve/", **{head: value, "X_Xet_Hash": "0" * 64})
    if head != "Location":
        with pytest.raises(
            RagtuneError, match=r"wants the token to be sent to 127\.0\.0\.1:\d+, which is an"
        ):
            load_config(BASE)
    bound_client()
    sent = {"Authorization": f"Bearer {TOKEN}"}
    with pytest.raises(AnswerError, match="which is another host"):
        get_session().get(thief, headers=sent)
    assert TOKEN not in "".join(hub.stolen)


def test_a_push_sends_no_token_to_where_the_hub_points(hub: Hostile, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"w" * 100)
    thief = f"http://127.0.0.1:{hub.thief.server_port}"
    oid = sha256(b"w" * 100).hexdigest()
    actions = {"upload": {"href": f"{thief}/put"}, "verify": {"href": f"{thief}/verify"}}
    objects = [{"oid": oid, "size": 100, "actions": actions}]
    hub.fail["/objects/batch"] = Fault(answers={"transfer": "basic", "objects": objects})
    with pytest.raises(RagtuneError, match="which is another host"):
        push(made, "alice/model", private=True, command="x")
    assert [s for s in hub.stolen if s.startswith("/put")]
    assert TOKEN not in "".join(hub.stolen)


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://huggingface.co/api/whoami-v2", True),
        ("https://datasets-server.huggingface.co/parquet", True),
        ("https://hf.co/x", True),
        ("http://huggingface.co/x", False),
        ("https://huggingface.co.evil.example/x", False),
        ("https://evilhuggingface.co/x", False),
        ("https://huggingface.co@evil.example/x", False),
        ("https://cdn.example/x", False),
    ],
)
def test_which_hosts_are_the_hub(url: str, fine: bool) -> None:
    if fine:
        require_hub(url)
    else:
        with pytest.raises(AnswerError):
            require_hub(url)


def test_a_list_without_an_end(hub: Hostile) -> None:
    def pages(self: Hostile, to: Any, _: object) -> None:
        head = (
            f'Link: <{self.url}{to.path}&n=1>; rel="next"\r\nConnection: close\r\nContent-Length: 2'
        )
        to.wfile.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n[]".encode())

    answering(hub, pages)
    with pytest.raises(AnswerError, match="lists files without an end"):
        list(api().list_repo_tree("owner/base"))
    assert len(hub.requests) == hub_client.MAX_PAGES


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (
            9,
            r"looked up\. The Hub's answer was not read on: 127\.0\.0\.1 broke a download off 20 times",
        ),
        (1, r"looked up\. The connection to the Hub was cut: RemoteProtocolError: "),
    ],
)
def test_a_download_that_breaks_off_again_and_again(
    hub: Hostile, monkeypatch: pytest.MonkeyPatch, progress: int, words: str
) -> None:
    """A piece and a cut: the client takes that for progress, and begins again."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4)

    def short(_: Hostile, to: Any, __: object) -> None:
        head = f'Content-Length: 1000\r\nETag: "{"e" * 40}"\r\nX-Repo-Commit: {"c" * 40}'
        to.wfile.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\n{head}\r\n\r\n".encode())
        if to.command == "GET":
            to.wfile.write(b"x" * progress)

    answering(hub, short)
    with pytest.raises(RagtuneError, match=words):
        load_config(BASE)
    assert len(hub.requests) < 30


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("mode", ["endless", "bomb", "endless_head"])
def test_either_library_is_bounded(hub: Hostile, library: str, mode: str) -> None:
    """huggingface_hub 1.x comes with httpx, 2.x with httpx2."""
    made = pytest.importorskip(library)
    own = hub_client._Factory(made.Client)()
    answering(hub, getattr(Hostile, f"mode_{mode}"))
    for _ in range(3):
        with (
            pytest.raises((ConnectionError, made.RemoteProtocolError)),
            hub_client.failing_at_once(),
        ):
            own.get(f"{hub.url}/api/whoami-v2")
    assert hub.most < LIMIT + SLACK


def test_nobody_asks_which_programs_to_tell_of(hub: Hostile) -> None:
    """The answer would be kept beside all caches, and a wrong one would end every import of the client."""
    own = hub_client._Factory(get_session().__class__)()
    with pytest.raises(AnswerError, match="not asked"):
        own.get(f"{hub.url}/api/agent-harnesses")
    assert not hub.served


def test_what_others_ask_elsewhere_is_left_alone(hub: Hostile) -> None:
    """A notebook's own requests, with their own keys, through the same client."""
    bound_client()
    there = f"http://127.0.0.1:{hub.thief.server_port}/theirs"
    assert get_session().get(there, headers={"Authorization": "Bearer theirs"}).text == "{}"
    assert "Bearer theirs" in hub.stolen[-1]
    assert "Accept-Encoding: identity" not in hub.stolen[-1]


def test_redirects_in_a_circle(hub: Hostile) -> None:
    answering(hub, refusing(307, f"Location: {hub.url}/api/whoami-v2\r\n"))
    with pytest.raises(RagtuneError, match="leads from one address to the next, without an end"):
        check_access("alice/model", private=True)
    assert len(hub.requests) < 30


def test_a_hub_that_is_well_again_goes_on(hub: Hostile) -> None:
    hub.fail["/resolve/"] = Fault(503, times=3)
    assert load_config(BASE).model_type == "llama"
    hub.fail["/resolve/"] = Fault(503)
    requests = len(hub.requests)
    assert load_config(BASE)  # what is in the cache is taken
    assert not [s for s in hub.waited if s > 9]  # type: ignore[attr-defined]
    assert len(hub.requests) > requests


def test_data_whose_hub_is_away(hub: Hostile) -> None:
    hub.fail["/datasets/"] = Fault(cut=0)
    with pytest.raises(
        RagtuneError, match=r"^Dataset owner/data can't be read\. The connection to the Hub was cut"
    ):
        list(read_examples("owner/data", "train"))
