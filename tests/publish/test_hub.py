from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.web.hub import hub_errors
from ragtune.publish.hub import Access, Published, check_access, push
from tests.publish.conftest import Finished, contents, published
from tests.ready import Ready
from tests.standin import TOKEN, Hub, Repo

COMMAND = "ragtune push runs/tiny publish.repo=alice/model"


def refusal(act: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(RagtuneError) as caught:
        act(*arguments, **named)
    text = str(caught.value)
    assert TOKEN not in text
    return text


# Before anything costs time: would a push work?


def test_new_repository(hub: Hub) -> None:
    assert check_access("alice/model", private=True) == Access("alice/model will be made by alice")
    assert check_access("lab/model", private=True) == Access("lab/model will be made by alice")
    assert not hub.repos  # asking makes nothing


def test_existing_repository(hub: Hub) -> None:
    hub.repos["alice/model"] = Repo(private=True)
    assert check_access("alice/model", private=True) == Access("alice may write to alice/model")


def test_nothing_private_goes_to_a_public_repository(hub: Hub) -> None:
    hub.repos["alice/model"] = Repo(private=False)
    assert "is public, and publish.private is true" in refusal(
        check_access, "alice/model", private=True
    )
    assert check_access("alice/model", private=False) == Access("alice may write to alice/model")


def test_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refusal(check_access, "alice/model", private=True) == (
        "publish.repo is alice/model, but there is no Hub token.\n"
        "Run `hf auth login`, or set HF_TOKEN, or set publish.repo=null to publish nothing."
    )
    assert hub.requests == []


def test_wrong_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    text = refusal(check_access, "alice/model", private=True)
    assert text.startswith("The Hub refused (401): Invalid user token.")
    assert "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN" in text
    assert "hf_expired" not in text


@pytest.mark.parametrize("token", ["ここにトークン", "hf_abc\x07def"])
def test_token_that_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    text = refusal(check_access, "alice/model", private=True)
    assert text.startswith("The Hub token holds characters that no token has.\nCopy it again")
    assert token not in text
    assert hub.requests == []


def test_token_that_may_only_read(hub: Hub) -> None:
    hub.role = "read"
    assert refusal(check_access, "alice/model", private=True).startswith(
        "The Hub token of alice may only read.\nMake a token with write access"
    )


def test_fine_grained_token_without_write_access(hub: Hub) -> None:
    hub.role = "fineGrained"
    hub.repos["alice/model"] = Repo(private=True)
    hub.fail["/auth-check/write"] = 403
    assert refusal(check_access, "alice/model", private=True) == (
        "The Hub refused (403): You are not allowed to do this.\nThe token may not write to "
        "alice/model: make one with write access to it, or choose another publish.repo."
    )


def scope(name: str, *permissions: str, of: str = "user") -> dict[str, Any]:
    return {"entity": {"_id": "1", "type": of, "name": name}, "permissions": list(permissions)}


READS, WRITES = "repo.content.read", "repo.write"


@pytest.mark.parametrize(
    "rights",
    [
        {"global": [], "scoped": []},
        {"global": ["discussion.write"], "scoped": [scope("alice", READS)]},
        {"global": [], "scoped": [scope("lab", READS, WRITES, of="org"), scope("alice", READS)]},
        {"global": [], "scoped": [scope("alice/other", READS, WRITES, of="model")]},
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_fine_grained_token_that_may_not_write(
    hub: Hub, rights: dict[str, Any], exists: bool
) -> None:
    hub.grant(rights)
    if exists:
        hub.repos["alice/model"] = Repo(private=True)
    assert refusal(check_access, "alice/model", private=True) == (
        "The Hub token of alice is fine-grained and may not write to alice/model.\nAt the Hub's "
        "settings, give it write access to the repositories of alice, or make another token; or "
        "choose another publish.repo."
    )


@pytest.mark.parametrize(
    "rights",
    [
        {"global": [WRITES], "scoped": []},
        {"global": [], "scoped": [scope("Alice", READS, WRITES)]},
        {"scoped": [scope("some of them", WRITES, of="resource-group"), scope("alice", WRITES)]},
    ],
)
def test_fine_grained_token_that_may_write(
    hub: Hub, rights: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.grant(rights)
    assert check_access("alice/model", private=True) == Access("alice/model will be made by alice")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "rights",
    [
        None,
        {},
        {"canReadGatedRepos": True, "global": []},
        {"global": [], "scoped": [scope("some of them", WRITES, of="resource-group")]},
    ],
)
def test_fine_grained_token_of_which_too_little_is_said(
    hub: Hub, rights: dict[str, Any] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.grant(rights)
    assert check_access("lab/model", private=True) == Access(
        "lab/model will be made by alice, if the token may",
        "The Hub does not say clearly what the fine-grained token of alice may write to: the push to "
        "lab/model may be refused.",
        "To be sure, give the token write access to the repositories of lab at the Hub's settings.",
    )
    hub.repos["lab/model"] = Repo(private=True)  # the Hub knows then
    assert check_access("lab/model", private=True) == Access("alice may write to lab/model")
    assert capsys.readouterr().out == ""


def test_fine_grained_token_for_one_repository(hub: Hub) -> None:
    hub.grant({"scoped": [scope("alice/model", WRITES, of="model")]})
    assert refusal(check_access, "alice/model", private=True) == (
        "alice/model does not exist, and the token of alice can't make it: it may create "
        "repositories of nobody.\nAt the Hub's settings, give it write access to the repositories of "
        "alice."
    )
    hub.repos["alice/model"] = Repo(private=True)
    assert check_access("alice/model", private=True) == Access("alice may write to alice/model")


@pytest.mark.parametrize("owner", ["bob", "club"])  # club: a member who may only read
def test_foreign_owner(hub: Hub, owner: str) -> None:
    assert refusal(check_access, f"{owner}/model", private=True) == (
        f"{owner}/model does not exist, and the token of alice can't make it: it may create "
        "repositories of alice, lab.\nSet publish.repo=alice/model."
    )


def test_foreign_repository(hub: Hub) -> None:
    hub.repos["bob/model"] = Repo(private=False)
    assert "The token may not write to bob/model" in refusal(
        check_access, "bob/model", private=True
    )


def test_server_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # "discard": nobody listens
    text = refusal(check_access, "alice/model", private=True)
    assert text.startswith("The Hub can't be reached: ConnectError: ")
    assert text.endswith("\nCheck the network.")


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal(check_access, "alice/model", private=True) == (
        "The Hub can't be asked: HF_HUB_OFFLINE is set.\nUnset it to publish."
    )


def test_name_that_the_hub_does_not_take(hub: Hub) -> None:
    with pytest.raises(UsageError, match=r"^publish\.repo: Cannot have -- or \.\. in repo_id"):
        check_access("alice/a--b", private=True)


# The client's exceptions.


def test_exception_classes() -> None:
    """Of either client: httpx's below huggingface_hub 2, httpx2's from there on."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import LocalTokenNotFoundError

    url = get_session().build_request("GET", "http://127.0.0.1/x")
    module = sys.modules[type(url).__module__.partition(".")[0]]

    def text(error: Exception) -> str:
        def act() -> None:
            with hub_errors("alice/model", f"run `{COMMAND}` again to finish."):
                raise error

        return refusal(act)

    end = f"Nothing is lost: run `{COMMAND}` again to finish."
    cut = module.ReadError("the line was cut")
    wrapped = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    wrapped.__cause__ = cut
    was_cut = (
        f"The connection to the Hub was cut: ReadError: the line was cut.\nCheck the network. {end}"
    )
    assert text(cut) == text(wrapped) == was_cut
    assert text(PermissionError("token refresh refused")) == (
        "The Hub refused: token refresh refused.\nThe token is wrong or has expired: run `hf auth "
        f"login`, or set HF_TOKEN, with a token that may write. {end}"
    )
    assert text(json.JSONDecodeError("Expecting value", "<html>", 0)).startswith(
        "The Hub's answer makes no sense: JSONDecodeError: Expecting value"
    )
    assert text(ValueError("Invalid metadata in README.md.\n- x")).startswith(
        "The Hub's client failed: ValueError: Invalid metadata in README.md.\nCheck"
    )  # the card's fault
    assert "LocalTokenNotFoundError: none" in text(LocalTokenNotFoundError("none"))


def test_an_error_of_this_disk_is_not_the_hubs(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), hub_errors("alice/model", ""):
        (folder / "missing").read_bytes()


def test_token_is_struck_out_of_messages(hub: Hub) -> None:
    def act() -> None:
        with hub_errors("alice/model", ""):
            raise RuntimeError(f"header Authorization: Bearer {TOKEN}")

    assert "Bearer [hidden]" in refusal(act)


# Pushing.


def test_folder_arrives_whole(hub: Hub, folder: Path) -> None:
    done = push(folder, "alice/model", private=True, command=COMMAND)
    assert done == Published(f"{hub.url}/alice/model", changed=True, removed=())
    repo = hub.repos["alice/model"]
    assert repo.files == published(folder)
    assert repo.lfs == {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert repo.commits == ["Upload by ragtune"]
    assert repo.private


def test_public(hub: Hub, folder: Path) -> None:
    push(folder, "lab/model", private=False, command=COMMAND)
    assert not hub.repos["lab/model"].private


def test_pushing_twice_sends_nothing_again(hub: Hub, folder: Path) -> None:
    push(folder, "alice/model", private=True, command=COMMAND)
    hub.requests.clear()
    again = push(folder, "alice/model", private=True, command=COMMAND)
    assert not again.changed
    assert hub.repos["alice/model"].commits == ["Upload by ragtune"]
    assert hub.repos["alice/model"].files == published(folder)
    assert not [r for r in hub.requests if r.startswith("PUT") or "/commit/" in r]


def test_existing_repository_keeps_its_other_files(hub: Hub, folder: Path) -> None:
    hub.repos["alice/model"] = Repo(
        private=False, files={".gitattributes": b"x", "config.json": b"{}"}
    )
    push(folder, "alice/model", private=False, command=COMMAND)
    assert hub.repos["alice/model"].files == {".gitattributes": b"x", **published(folder)}


def test_what_is_private_goes_to_no_repository_that_was_made_public(hub: Hub, folder: Path) -> None:
    hub.only_public = True
    text = refusal(push, folder, "lab/model", private=True, command=COMMAND)
    assert text == (
        "lab/model is public, though it was to be made private: its owner's settings may make every "
        "repository public. Nothing was sent.\nIn its settings on the Hub make it private, or delete "
        "it if this push made it; or choose another publish.repo, or set publish.private=false to "
        "publish there."
    )
    assert hub.repos["lab/model"] == Repo(private=False)
    assert not [r for r in hub.requests if r.startswith("PUT") or "/preupload/" in r]
    hub.repos["lab/model"].private = True  # as the advice says
    push(folder, "lab/model", private=True, command=COMMAND)
    assert hub.repos["lab/model"].files == published(folder)


@pytest.mark.parametrize(
    "where",
    [
        "POST /api/repos/create",
        "/preupload/",
        "/objects/batch",
        "PUT /lfs/",
        "POST /verify",
        "/commit/",
    ],
)
def test_refused_in_the_middle(hub: Hub, folder: Path, where: str) -> None:
    before = contents(folder)
    hub.fail[where] = 401
    assert refusal(push, folder, "alice/model", private=True, command=COMMAND) == (
        "The Hub refused (401): Invalid username or password.\n"
        "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN, with a token that "
        f"may write. Nothing is lost: run `{COMMAND}` again to finish."
    )
    assert contents(folder) == before
    hub.fail.clear()
    push(folder, "alice/model", private=True, command=COMMAND)
    assert hub.repos["alice/model"].files == published(folder)


def test_unreachable_when_pushing(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    text = refusal(push, folder, "alice/model", private=True, command=COMMAND)
    assert text.startswith("The Hub can't be reached: ConnectError: ")
    assert text.endswith(f"Check the network. Nothing is lost: run `{COMMAND}` again to finish.")


# The command, in a process of its own.


def command(
    ready: Ready, hub: Hub, line: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(line)
    assert program == "ragtune"
    done = ready.run(arguments, **{**hub.environment(), **environment})
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_push_command(run_dir: Finished, folder: Path, ready: Ready) -> None:
    line = f"ragtune push {run_dir.path} publish.repo=alice/model"
    with Hub() as hub:
        hub.fail["/commit/"] = 401
        failed = command(ready, hub, line)
        assert failed.returncode == 1
        assert "Error: The Hub refused (401): Invalid username or password." in failed.stderr
        assert f"Nothing is lost: run `{line}` again to finish." in failed.stderr
        assert "Traceback" not in failed.stderr
        assert hub.repos["alice/model"].files == {}

        hub.fail.clear()
        done = command(ready, hub, failed.stderr.split("`")[-2])  # as the message says
        assert done.returncode == 0, done.stderr
        assert f"Published: {hub.url}/alice/model" in done.stdout
        repo = hub.repos["alice/model"]
        assert repo.files == published(folder)
        assert repo.files["README.md"].startswith(b"---\nlibrary_name: transformers\n")
        assert repo.private
    written = [p for p in run_dir.path.rglob("*") if p.is_file()]
    assert not [p for p in written if TOKEN.encode() in p.read_bytes()]


def test_wrong_token_on_the_command_line(run_dir: Finished, ready: Ready) -> None:
    with Hub() as hub:
        line = f"ragtune push {run_dir.path} publish.repo=alice/model"
        failed = command(ready, hub, line, HF_TOKEN="hf_expired")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: The Hub refused (401): Invalid user token.")
    assert "hf_expired" not in failed.stdout + failed.stderr
    assert hub.repos == {}
