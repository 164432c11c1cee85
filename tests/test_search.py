"""bench/search.py: what it tries are keys and values that recipes take, and what it chooses is the best of them."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragtune.recipe.load import load_recipe
from ragtune.stages.sweep.grid import points_of

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import commands  # noqa: E402 - scripts
import preferring  # noqa: E402
import search  # noqa: E402


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(model="m", data=tmp_path, work=tmp_path, out=tmp_path, tiny=False)


def point(run: str, worth: float | None) -> dict[str, Any]:
    return {"run": run, "worth": worth}


@pytest.mark.parametrize(
    ("name", "stage"),
    [(name, stage) for name, stages in search.SEARCHES.items() for stage in stages],
)
def test_every_point_is_one_recipe(
    name: str, stage: str, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    # What a stage leaves as it was is the recipe's that it goes on from.
    own = [*search.Search(name, options).own, "train.epochs=1"]
    recipe = load_recipe(ROOT / "recipes" / search.BEGIN[name][0])
    tried = [points_of(recipe, [*own, *one.split()]) for one in search.SEARCHES[name][stage]]
    assert {len(points) for points in tried} == {1}
    assert len({points[0].name for points in tried}) == len(tried)


def test_a_stage_goes_on_from_the_best_of_those_before_it(
    options: argparse.Namespace, tmp_path: Path
) -> None:
    one = search.Search("reader", options)
    assert one.stages == ["prompt", "tuning", "reading", "data", "longer", "asking"]
    assert one.before("prompt")[0].name == "quickstart-ja.yaml"
    for stage in ("prompt", "data"):  # one is left out
        (tmp_path / "reader" / stage).mkdir(parents=True)
        (tmp_path / "reader" / stage / "chosen.json").write_text("{}", "utf-8")
    recipes = {stage: one.before(stage)[0] for stage in ("tuning", "data", "longer", "dev")}
    of = {stage: path.parent.name for stage, path in recipes.items()}
    assert of == {"tuning": "prompt", "data": "prompt", "longer": "data", "dev": "data"}
    # What is only looked at changes the prompt's recipe, and nothing goes on from it.
    assert one.before("levers")[0].parent.name == "prompt"


def test_a_recipe_that_no_later_stage_betters_stays_the_best(
    options: argparse.Namespace, tmp_path: Path
) -> None:
    one = search.Search("reader", options)

    def choose(stage: str, **worths: float | None) -> str:
        for run in worths:
            path = tmp_path / "reader" / stage / "0" / "recipes" / f"{run}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(run, "utf-8")
        one.choose(stage, [point(run, worth) for run, worth in worths.items()])
        return (tmp_path / "reader" / stage / "best.yaml").read_text("utf-8")

    assert choose("prompt", a=0.4, b=None, c=0.5) == "c"
    assert choose("tuning", d=0.45, e=0.5) == "c"
    assert choose("data", f=0.51) == "f"
    assert choose("longer", g=0.2, h=0.3) == "f"
    assert choose("longer", g=0.2, i=0.6) == "i"
    known = json.loads((tmp_path / "reader" / "longer" / "chosen.json").read_text("utf-8"))
    assert known == {"format": 1, **point("i", 0.6)}
    assert one.choose("levers", [point("j", 0.9)]) == point("j", 0.9)
    assert one.last("dev") == "longer"


def test_a_threshold_leaves_more_than_half_of_what_has_an_answer_answered() -> None:
    """Refusing nearly everything has the highest score, and is not what is wanted."""
    parts = {"a": 1, "b": 1, "c": 1, "d": -1, "e": -1, "x": -1, "y": -1, "z": 0}
    sure = {"a": 0.9, "b": 0.3, "c": 0.6, "d": 0.5, "e": 0.2, "x": 0.4, "y": 0.8, "z": 0.7}
    scored: Any = SimpleNamespace(
        crag={qid: float(part) for qid, part in parts.items()},
        answers=SimpleNamespace(probabilities=sure),
        chosen=[SimpleNamespace(qid=qid) for qid in "abcde"],
    )
    # From 0.6 on a and c are left, and y: +1, but with two of five answered. From 0.5 on d is, too.
    found = search.careful(scored)
    assert found == {"refuse_below": 0.3, "crag": pytest.approx(0.0), "answered": 0.8}
    scored.crag |= {"d": 0.0, "e": 0.0, "b": 0.0}  # it refuses too much by itself
    assert search.careful(scored) is None
    scored.crag |= {"b": 1.0, "x": 0.0, "y": 0.0}
    assert search.careful(scored) == {"refuse_below": 0.0, "crag": 3 / 8, "answered": 0.6}


def test_figures_are_over_questions_and_seeds() -> None:
    recipe = load_recipe(ROOT / "recipes" / "refuse.yaml")
    parts = [{"a": 1.0, "b": -1.0, "x": 0.0}, {"a": 1.0, "b": 0.0, "x": 0.0}]
    scored: Any = {
        seed: SimpleNamespace(
            recipe=recipe,
            chosen=[SimpleNamespace(qid=qid) for qid in "ab"],
            values={"squad_em": [1.0, 0.0]},
            crag=crag,
        )
        for seed, crag in zip((1, 2), parts, strict=True)
    }
    found = search.over_seeds(scored)
    values = {name: (one["figure"]["value"], one["n"]) for name, one in found.items() if one}
    assert values == {
        "squad_em": (0.5, 2),
        "crag": (pytest.approx(1 / 6), 3),
        "answered": (0.75, 2),
    }
    assert found["crag"] is not None
    assert found["crag"]["seeds"] == {"1": 0.0, "2": pytest.approx(1 / 3)}
    assert found["crag"]["figure"]["low"] >= -1
    plain = recipe.data.model_copy(update={"refusal": None})
    scored = {
        seed: SimpleNamespace(**{**vars(one), "recipe": recipe.model_copy(update={"data": plain})})
        for seed, one in scored.items()
    }
    assert [*search.over_seeds(scored)] == ["squad_em"]


def test_what_quotes_is_not_asked_to_copy() -> None:
    plain, quoting = (
        load_recipe(ROOT / "recipes" / "refuse.yaml", [f"prompt.quote={quote}"])
        for quote in ("false", "true")
    )
    assert [*search.ways_of(plain, None)] == ["copied"]
    assert search.ways_of(quoting, None) == {}
    changes = ["data.max_passages=3", "evaluate.orders=3"]
    wider, turned = (
        load_recipe(ROOT / "recipes" / "refuse.yaml", changes[:count]) for count in (1, 2)
    )
    ways = search.ways_of(wider, None)
    assert [*ways] == ["copied", "orders", "copied_orders"]
    assert ways["copied_orders"] == ["evaluate.copy=true", "evaluate.orders=3"]
    assert [*search.ways_of(turned, None)] == ["copied"]


def test_what_refuses_is_asked_with_its_threshold_and_without() -> None:
    plain, quoting = (
        load_recipe(
            ROOT / "recipes" / "refuse.yaml", ["evaluate.refuse_below=0", f"prompt.quote={quote}"]
        )
        for quote in ("false", "true")
    )
    below = "evaluate.refuse_below=0.3"
    itself = {"itself": ["evaluate.refuse_below=null"], "careful": [below]}
    assert search.ways_of(plain, 0.3) == {**itself, "both": ["evaluate.copy=true", below]}
    assert search.ways_of(quoting, 0.3) == itself
    assert [*search.ways_of(plain, None)] == ["itself"]  # no threshold leaves enough answered


def test_a_command_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = tmp_path / "bad.log", tmp_path / "good.log"
    failed = commands.run_all({
        "bad": (["-c", "raise SystemExit('no such thing')"], bad),
        "good": (["-c", "print('done')"], good),
    })  # fmt: skip
    assert failed == ["bad"]
    assert "failed: bad\n  no such thing" in capsys.readouterr().out
    assert good.read_text("utf-8") == "done\n"


def test_gpus_are_shared_out_where_there_are_enough() -> None:
    assert commands.shares(["a", "b"], [0, 1, 2]) == {"a": [0, 2], "b": [1]}
    assert commands.shares(["a", "b", "c"], [0, 1]) == {"a": [], "b": [], "c": []}


def test_halves_are_of_whole_articles() -> None:
    records = [
        {
            "qid": str(i),
            "passages": [{"title": "other"}, {"title": f"article {i % 7}"}],
            "positive_passage_indices": [1] if i % 7 else [],
        }
        for i in range(70)
    ]
    first, second = preferring.halves(records, 1)
    assert sorted(int(r["qid"]) for r in [*first, *second]) == [*range(70)]
    assert 35 <= len(first) < 46
    assert not {*map(preferring.article, first)} & {*map(preferring.article, second)}
    assert "other" in {*map(preferring.article, records)}  # of what has no positive


PASSING = """
import sys
from pathlib import Path
from types import SimpleNamespace

card = SimpleNamespace(device_count=lambda: 0, is_available=lambda: False)
sys.modules["torch"] = SimpleNamespace(cuda=card)
sys.path.insert(0, "bench")
import commands

works = '''
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told"))
Path(sys.argv[1]).write_text("")
time.sleep(600)
'''
commands.AT_A_TIME = 1
folder = Path(sys.argv[1])
commands.run_all({
    name: (["-c", works, folder / f"{name}.ready"], folder / f"{name}.log") for name in "ab"
})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_a_signal_is_passed_on_and_nothing_runs_on(tmp_path: Path) -> None:
    script = subprocess.Popen([sys.executable, "-c", PASSING, tmp_path], cwd=ROOT)
    try:
        while not (tmp_path / "a.ready").exists():
            assert script.poll() is None
            time.sleep(0.05)
        script.terminate()
        assert script.wait(300) == 128 + signal.SIGTERM
    finally:
        script.kill()
    assert (tmp_path / "a.log").read_text("utf-8") == "told\n"
    assert not (tmp_path / "b.log").exists()
