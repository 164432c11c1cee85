"""Whatever the Hub does: a line that says what happened, a line that says what to do, nothing lost.

Each test ends with the same command, which finishes, and with a repository that holds what it should.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session

from ragtune import api as pipeline
from ragtune.base.errors import RagtuneError
from ragtune.base.web import hub_client as client
from ragtune.publish.hub import Access, check_access, push
from tests.publish.conftest import Finished, contents, published
from tests.standin import TOKEN, Fault, Hub, Repo

REPO = "alice/model"
STEPS = {
    "asking": "GET /api/whoami",
    "access": "/auth-check/write",
    "making": "POST /api/repos/create",
    "looking": f"GET /api/models/{REPO}$",
    "listing": "/preupload/",
    "batch": "/objects/batch",
    "upload": "PUT /lfs/",
    "verify": "POST /verify",
    "commit": "/commit/",
}


@dataclass
class Case:
    """A fault that stays until it is mended, and what is said of it."""

    happened: str
    advice: str
    at: tuple[str, ...] = tuple(STEPS)
    fault: Fault = field(default_factory=Fault)


AGAIN = r"Nothing is lost: run `ragtune push .* publish\.repo=alice/model` again to finish\."
CASES = {
    "400": Case(r"The Hub refused \(400\): ", "check publish.repo", ("making",), Fault(400)),
    "401": Case(
        r"The Hub refused \(401\): Invalid user", "`hf auth login`, or set HF_TOKEN",
        fault=Fault(401),
    ),
    "403": Case(
        r"The Hub refused \(403\): You are not allowed to do this\.",
        "The token may not write to alice/model: make one with write access", fault=Fault(403),
    ),
    "404": Case(
        r"The Hub refused \(404\): Not found\.", "alice/model is not there and could not be made",
        tuple(s for s in STEPS if s != "access"), Fault(404),
    ),
    "409": Case(
        r"The Hub refused \(409\): The repository is being changed\.",
        "being changed by someone else: wait a moment", ("batch", "upload", "commit"), Fault(409),
    ),
    "429": Case(
        r"The Hub refused \(429\): Too many requests\.", "The Hub limits the rate: wait some minutes",
        fault=Fault(429),
    ),
    "429, an hour": Case(
        r"The Hub refused \(429\): Too many requests\.", r"It asks to wait 3600 s\.",
        fault=Fault(429, {"Retry-After": "3600"}),
    ),
    "500": Case(r"The Hub refused \(500\): Internal error\.", "try again later", fault=Fault(500)),
    "503": Case(r"The Hub refused \(503\): ", "try again later", fault=Fault(503)),
    "cut in the middle of an upload": Case(
        r"The connection to the Hub was cut: \w+: ", r"Check the network\.", ("upload", "commit"),
        Fault(cut=100),
    ),
    "cut before the answer": Case(
        r"The connection to the Hub was cut: \w+: ", r"Check the network\.", ("upload", "batch"),
        Fault(lost=True),
    ),
    "slow": Case(
        r"The Hub did not answer within 0\.2 s\.", "Check the network, or try again later",
        ("asking", "looking", "upload", "commit"), Fault(slow=60),
    ),
    **{
        f"answer {wrong}": Case(
            r"The Hub's answer makes no sense: \w+: ", "Try again later; if HF_ENDPOINT is set, see",
            ("asking", "making", "looking", "listing", "batch", "commit"), Fault(answers=wrong),
        )
        for wrong in ({}, [])
    },
    "a token that expires half-way": Case(
        r"The Hub refused \(401\): Invalid user", "`hf auth login`, or set HF_TOKEN",
        ("listing", "batch", "commit"), Fault(expires=True),
    ),
}  # fmt: skip


@contextmanager
def impatient(step: str) -> Iterator[None]:
    """Within, the Hub is waited for briefly at a step; at the others as ever: a busy machine is slow, too."""
    prepare, patience = client._Bounds.prepare, client.TIMEOUT

    def look(self: Any, request: Any) -> None:
        here = re.search(step, f"{request.method} {request.url.path}")
        client.TIMEOUT = 0.2 if here else patience
        prepare(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "TIMEOUT", patience)
        patch.setattr(client._Bounds, "prepare", look)
        close_session()  # a client has its bounds from when it is made
        yield
    close_session()


@pytest.mark.parametrize(
    ("case", "step"),
    [
        pytest.param(case, step, id=f"{name}-{step}")
        for name, case in CASES.items()
        for step in case.at
    ],
)
def test_the_same_command_finishes(
    hub: Hub,
    run_dir: Finished,
    folder: Path,
    case: Case,
    step: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        pipeline.push(run_dir.path, f"publish.repo={REPO}")

    if step == "access":
        hub.repos[REPO] = Repo(private=True)
    weights = published(folder)
    hub.fail[STEPS[step]] = case.fault
    waited = impatient(STEPS[step]) if case.fault.slow else nullcontext()
    with waited, pytest.raises(RagtuneError) as caught:
        command()
    happened, advice = str(caught.value).split("\n")  # two lines
    assert re.match(case.happened, happened)
    assert re.search(case.advice, advice)
    if step not in ("asking", "access"):
        assert re.search(AGAIN, advice)
    assert not hub.repos.get(REPO, Repo(private=True)).files  # all or nothing
    kept = published(folder)
    beside = dict.fromkeys(("README.md", "ragtune.yaml"), b"")  # written by then, or not
    assert {**kept, **beside} == {**weights, **beside}

    hub.heal()
    command()
    assert hub.repos[REPO].files == published(folder) != weights  # the card is ragtune's
    assert hub.repos[REPO].private
    assert hub.repos[REPO].commits == ["Upload by ragtune"]
    said = capsys.readouterr()
    assert f"Published: {hub.url}/{REPO}" in re.sub(r"\s+", " ", said.out)
    leaks = [p for p, c in contents(run_dir.path).items() if TOKEN.encode() in c]
    assert not leaks
    assert TOKEN not in said.out + said.err + str(caught.value)


@pytest.mark.parametrize("step", ["asking", "access", "making", "upload", "commit"])
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault(429, {"Retry-After": "7"}, times=2), [7, 7]),
        (Fault(429, {"RateLimit": '"api";r=0;t=30'}, times=1), [30]),
        (Fault(503, times=3), [1, 2, 4]),
        (Fault(500, {"Retry-After": "some day"}, times=1), [1]),
        (Fault(cut=0, times=2), [1, 2]),
    ],
    ids=["429", "429 by RateLimit", "503", "500", "cut"],
)
def test_what_passes_is_waited_for(
    hub: Hub,
    run_dir: Finished,
    folder: Path,
    waits: list[float],
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    seconds: list[float],
    step: str,
) -> None:
    hub.repos[REPO] = Repo(private=True)
    hub.fail[STEPS[step]] = Fault(**vars(fault))
    pipeline.push(run_dir.path, f"publish.repo={REPO}")
    assert hub.repos[REPO].files == published(folder)
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert waits
    if step != "upload":  # two files at a time share the faults
        assert waits == seconds
    for number, pause in enumerate(waits, 1):
        assert f"Trying again in {pause:.0f} s ({number} of 3)." in said


def test_a_date_to_wait_for(hub: Hub, folder: Path, waits: list[float]) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=50)
    hub.fail["/commit/"] = Fault(503, {"Retry-After": format_datetime(soon, usegmt=True)}, times=1)
    push(folder, REPO, private=True, command="x")
    assert len(waits) == 1
    assert 0 < waits[0] <= 50


def test_giving_up(hub: Hub, folder: Path, waits: list[float]) -> None:
    hub.fail["/commit/"] = 500
    with pytest.raises(RagtuneError):
        push(folder, REPO, private=True, command="x")
    assert len(waits) == client.ATTEMPTS - 1
    assert len([r for r in hub.requests if "/commit/" in r]) == client.ATTEMPTS


def test_a_refusal_is_not_asked_again(hub: Hub, folder: Path, waits: list[float]) -> None:
    hub.fail["/commit/"] = 403
    with pytest.raises(RagtuneError):
        push(folder, REPO, private=True, command="x")
    assert waits == []


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub, folder: Path) -> None:
    hub.fail["/commit/"] = Fault(lost=True, times=1)
    done = push(folder, REPO, private=True, command="x")
    assert done.changed
    assert hub.repos[REPO].commits == ["Upload by ragtune"]
    assert hub.repos[REPO].files == published(folder)


def test_what_arrived_is_not_sent_again(hub: Hub, folder: Path) -> None:
    hub.fail["/commit/"] = 401
    with pytest.raises(RagtuneError):
        push(folder, REPO, private=True, command="x")
    assert len([r for r in hub.requests if r.startswith("PUT")]) == 2
    hub.heal()
    hub.requests.clear()
    push(folder, REPO, private=True, command="x")
    assert not [r for r in hub.requests if r.startswith("PUT")]


def test_a_repository_that_is_being_made(hub: Hub, folder: Path, waits: list[float]) -> None:
    """huggingface_hub repeats this one request without a pause or an end."""
    hub.fail["/repos/create"] = Fault(
        409, times=1, says="Cannot create repo: another conflicting operation is in progress"
    )
    push(folder, REPO, private=True, command="x")
    assert waits == [1]


def test_a_repository_of_somebody_else(hub: Hub, run_dir: Finished, folder: Path) -> None:
    hub.repos["bob/model"] = Repo(private=True)
    with pytest.raises(RagtuneError, match="The token may not write to bob/model: make one"):
        pipeline.push(run_dir.path, "publish.repo=bob/model")
    assert not hub.repos["bob/model"].files
    hub.writable.add("bob")  # bob lets alice write
    pipeline.push(run_dir.path, "publish.repo=bob/model")
    assert hub.repos["bob/model"].files == published(folder)


def test_a_repository_that_was_made_public(
    hub: Hub, run_dir: Finished, folder: Path, waits: list[float]
) -> None:
    def command(*more: str) -> None:
        pipeline.push(run_dir.path, f"publish.repo={REPO}", *more)

    hub.only_public = True
    public = (
        rf"^{REPO} is public, though it was to be made private: .*\. Nothing was sent\.\n.*delete"
    )
    with pytest.raises(RagtuneError, match=public):
        command()
    assert hub.repos[REPO] == Repo(private=False)
    assert not [r for r in hub.requests if r.startswith("PUT") or "/preupload/" in r]
    with pytest.raises(
        RagtuneError, match=rf"^{REPO} is public, and publish\.private is true\.\nSet"
    ):
        command()  # it is there now
    assert waits == []
    command("publish.private=false")
    assert hub.repos[REPO].files == published(folder)

    del hub.repos[REPO]
    hub.only_public = False
    command("publish.private=true")  # the last answer is kept in recipe.yaml
    assert hub.repos[REPO].private


def test_a_token_that_expires_while_access_is_asked_for(hub: Hub) -> None:
    """Over https the client makes "there is no such repository" of a 401."""
    hub.fail["/auth-check/"] = Fault(401, {"X-Error-Code": "RepoNotFound"}, expires=True)
    with pytest.raises(RagtuneError, match=r"^The Hub refused \(401\): Invalid user token"):
        check_access(REPO, private=True)
    hub.heal()
    hub.fail["/auth-check/"] = Fault(401, {"X-Error-Code": "RepoNotFound"})
    assert check_access(REPO, private=True) == Access(f"{REPO} will be made by alice")


@pytest.mark.parametrize("name", ["alice/a--b", "alice/model.git", "alice/.model", "alice/モデル"])
def test_an_illegal_name(hub: Hub, run_dir: Finished, folder: Path, name: str) -> None:
    with pytest.raises(RagtuneError, match=r"^publish\.repo: .*\nName it owner/name: letters"):
        pipeline.push(run_dir.path, f"publish.repo={name}")
    assert hub.requests == []
    pipeline.push(run_dir.path, f"publish.repo={REPO}")
    assert hub.repos[REPO].files == published(folder)


def test_the_bounds_are_those_of_every_client_that_is_made(hub: Hub, waits: list[float]) -> None:
    """huggingface_hub makes itself another one after a connection that fails."""
    from huggingface_hub import close_session, get_session

    check_access(REPO, private=True)
    for _ in range(2):
        assert type(vars(get_session())["send"].__self__).__name__ == "_Bounds"
        assert len(get_session().event_hooks["response"]) == 1
        close_session()
        client.bound_client()


def test_a_token_in_a_file_stops_the_push(hub: Hub, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(f"{{{{ '{TOKEN}' }}}}", "utf-8")
    with pytest.raises(
        RagtuneError, match=r"chat_template\.jinja holds your Hub token: nothing"
    ) as e:
        push(folder, REPO, private=True, command="x")
    assert TOKEN not in str(e.value)
    assert hub.requests == []
