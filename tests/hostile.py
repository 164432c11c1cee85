"""Whatever ragtune asks the Hub and a server with OpenAI's interface, asked of hostile ones (tests/attacks.py).

`ask_hostile` looks whether each question ends: in an answer or in a RagtuneError, soon, with few bytes read,
with nothing written beside the cache, and with no token elsewhere.

    python -m tests.hostile SEED SECONDS
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks import KEY, Hostile
from tests.standin import TOKEN, Repo

LIMIT = 256 << 10
"""Bytes to which a whole answer is limited here, so that reaching it takes no time."""
SLACK = 8 << 20
"""Bytes that the systems of both sides hold on the way."""
LONGEST = 60.0
"""Seconds for one question, pauses apart: they are not waited for."""


@contextlib.contextmanager
def quick(hub: Hostile, folder: Path, silence: float = 0.3) -> Iterator[list[float]]:
    """Let this process ask the server and keep what it gets in `folder`, with bounds that are soon reached.

    Args:
        hub: the server.
        folder: holds the caches.
        silence: seconds for which a server may say nothing.

    Yields:
        The seconds that would have been waited.
    """
    import datasets
    import transformers.utils.hub
    from huggingface_hub import HfFileSystem, constants

    from ragtune.answering import client as served
    from ragtune.base.web import answers
    from ragtune.base.web import hub_client as asking

    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        hub.stand_in(patch)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", hub.url)
        # The one that is kept may know another's address, from tests before.
        patch.setattr(transformers.utils.hub, "_hf_api", None)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "a" / "b" / "c" / "hub"))
        patch.setenv("RAGTUNE_CACHE", str(folder / "a" / "b" / "c" / "own"))
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setattr(answers, "MAX_ANSWER", LIMIT)
        patch.setattr(answers, "WINDOW", silence)
        patch.setattr(answers, "WHOLE_SECONDS", 10 * silence)
        patch.setattr(asking, "TIMEOUT", silence)
        patch.setattr(asking, "MAX_PAGES", 20)
        patch.setattr(asking, "sleep", waited.append)
        patch.setattr(time, "sleep", waited.append)
        patch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        patch.setattr(served, "TIMEOUT", silence)
        patch.setattr(served, "LIST_TIMEOUT", silence)
        patch.setattr(served, "RETRIES", 1)
        HfFileSystem.clear_instance_cache()
        yield waited
        HfFileSystem.clear_instance_cache()


def questions(hub: Hostile, folder: Path) -> dict[str, Callable[[], object]]:
    """Whatever ragtune asks, by name."""
    import torch

    from ragtune.answering.client import Client, served_models, wait_for
    from ragtune.answering.server import ask_all
    from ragtune.data.read import read_examples
    from ragtune.model.facts import model_facts
    from ragtune.model.hardware import Hardware
    from ragtune.model.load import load_config, load_model, load_tokenizer
    from ragtune.model.source import ModelSource
    from ragtune.publish.hub import check_access, push

    made = folder / "made"
    if not made.exists():
        made.mkdir()
        (made / "model.safetensors").write_bytes(b"w" * 9000)
        (made / "config.json").write_text("{}", "utf-8")
    base = ModelSource("owner/base", "owner/base")
    cpu = Hardware(torch.device("cpu"), torch.float32, "", "CPU")

    def chat() -> None:
        client = Client(f"{hub.url}/v1", "m")
        asked = [(f"q{i}", [{"role": "user", "content": "?"}]) for i in range(3)]
        wait_for(lambda: ask_all([client], asked, 2, lambda _: None))  # type: ignore[arg-type]

    return {
        "access": lambda: check_access("alice/model", private=True),
        "facts": lambda: model_facts("owner/base", None),
        "config": lambda: load_config(base),
        "tokenizer": lambda: load_tokenizer(base),
        "model": lambda: load_model(base, cpu, nf4=False),
        "data": lambda: list(read_examples("owner/data", "train")),
        "push": lambda: push(made, "alice/model", private=True, command="x"),
        "list": lambda: served_models(f"{hub.url}/v1"),
        "chat": chat,
    }


def ask(
    name: str, act: Callable[[], object], hub: Hostile, folder: Path, waited: list[float]
) -> str:
    """Ask one question and look how it ended; how it did, in a word or a sentence.

    Raises:
        AssertionError: not as it should.
    """
    from ragtune.base.errors import RagtuneError

    waited.clear()
    hub.served.clear()
    begun, end = time.monotonic(), "answered"
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            act()
    except RagtuneError as error:
        end = str(error)
    took = time.monotonic() - begun
    assert took < LONGEST, f"{name} took {took:.0f} s"
    assert max(waited, default=0) <= 120, f"{name} waits {max(waited)} s"
    assert sum(waited) <= 3600, f"{name} waits {sum(waited)} s in all"
    assert hub.most < LIMIT + SLACK, f"{name} reads {hub.served}"
    heard = "".join(hub.stolen)
    assert TOKEN not in heard + end, f"{name} lets the token out"
    assert KEY not in heard + end, f"{name} lets the key out"
    assert len(end) < 4000, f"{name} says {len(end)} characters"
    assert end.isprintable() or set(end) - {"\n"} == {c for c in end if c.isprintable()}, repr(end)
    known = {folder / "made", folder / "model", folder / "a"}
    assert set(folder.iterdir()) <= known, f"{name} wrote {set(folder.iterdir()) - known}"
    inner = (
        {p.name for p in (folder / "a").rglob("*") if p.is_file()}
        if (folder / "a").exists()
        else set()
    )
    assert not [n for n in inner if "evil" in n or n == "e.jinja"], f"{name} wrote {inner}"
    assert {p.name for p in (folder / "a").glob("*/*/*")} <= {"hub", "own"}
    return end


def ask_hostile(seed: int, seconds: float, model: Path | None = None) -> Counter[str]:
    """Ask for so long; how often each question was answered, and how often it ended in an error.

    Args:
        seed: of every answer.
        seconds: no question is begun after them.
        model: a folder whose files `owner/base` has; if there is none, some that make no model.

    Raises:
        AssertionError: a question did not end as it should; its text names seed and round.
    """
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    draw = random.Random(seed)
    number = 0
    while time.monotonic() < until:
        number += 1
        one = draw.randrange(1 << 32)
        with (
            tempfile.TemporaryDirectory() as made,
            Hostile(one, draw.choice([1.0, 0.5, 0.2, 0.05])) as hub,
        ):
            folder = Path(made)
            files = (
                {p.name: p.read_bytes() for p in model.iterdir()}
                if model
                else {"config.json": b'{"model_type": "llama"}'}
            )
            hub.repos["owner/base"] = Repo(False, files)
            with quick(hub, folder) as waited:
                for name, act in questions(hub, folder).items():
                    if time.monotonic() > until:
                        break
                    try:
                        end = ask(name, act, hub, folder, waited)
                    except Exception as error:
                        raise AssertionError(
                            f"seed {seed}, round {number} (hub {one}): {name}: {error!r}"
                        ) from error
                    ends[f"{name}: {'answered' if end == 'answered' else 'an error'}"] += 1
    return ends


if __name__ == "__main__":
    counted = ask_hostile(int(sys.argv[1]), float(sys.argv[2]))
    sys.stdout.write("".join(f"{count:6} {line}\n" for line, count in sorted(counted.items())))
