"""What a run directory gives the report: prompts, controls, a summary alone on standard output."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.cli import main
from tests.reporting.test_html import listed, opened


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A finished run whose base model is gone."""
    from tests.conftest import make_records, write_records

    folder = tmp_path_factory.mktemp("done")
    model = shutil.copytree(tiny_folder, folder / "model")
    train, evaluation = (
        write_records(folder / f"{name}.jsonl", make_records(n, name))
        for name, n in (("train", 8), ("eval", 4))
    )
    recipe: dict[str, Any] = {
        "name": "tiny",
        "model": {"id": str(model), "dtype": "float32"},
        "data": {"train": str(train), "eval": str(evaluation), "max_passages": 2},
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8},
        "train": {"steps": 1, "batch_size": 2},
        "evaluate": {"max_new_tokens": 4},
        "publish": {"format": "adapter"},
    }
    ragtune.run(recipe, run_dir=folder / "run")
    ragtune.controls(folder / "run")
    shutil.rmtree(model)
    return folder / "run"


@pytest.fixture
def run(done: Path, tmp_path: Path) -> Path:
    return shutil.copytree(done, tmp_path / "run")


def test_prompts_are_those_that_the_model_read(run: Path) -> None:
    during = (run / "report.html").read_text("utf-8")
    prompts = [row["prompt"] for row in opened(during)]
    assert len(prompts) == 4
    assert prompts[0].startswith("<|im_start|>user\nAnswer the question")
    assert "House 0 is red.\n\nA street has houses.\n---" in prompts[0]
    assert prompts[0].endswith(
        "Question: What colour is house 0?<|im_end|>\n<|im_start|>assistant\n"
    )
    # Again in a new process, as it were, without the model.
    again = ragtune.report(run).read_text("utf-8")
    assert opened(again) == opened(during)
    (run / "adapter" / "tokenizer_config.json").unlink()
    without = ragtune.report(run).read_text("utf-8")
    assert {row["prompt"] for row in opened(without)} == {None}
    assert "The prompts are not shown" in without
    assert listed(without) == listed(during)


def test_controls_of_the_run_are_shown(run: Path) -> None:
    assert "as asked (2 passages)" in ragtune.report(run).read_text("utf-8")
    for which in ("before", "after"):
        shutil.rmtree(run / "eval" / "eval" / f"controls-{which}")
    assert "as asked (2 passages)" not in ragtune.report(run).read_text("utf-8")
    assert not (run / "eval" / "eval" / "controls.json").exists()


def leave(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_the_summary_is_alone_on_standard_output(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").unlink()
    assert not leave("report", str(run), "--format", "md")
    out = capsys.readouterr().out
    assert out.startswith("## tiny: strict_em ")
    assert any(line.startswith("| what the passages add: ") for line in out.splitlines())
    assert out.splitlines()[-1].startswith("| what the place costs: ")
    assert not (run / "report.html").exists()
    assert not leave("report", str(run))
    assert "report.html" in capsys.readouterr().out
    assert (run / "report.html").exists()


def test_no_summary_without_a_comparison(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "eval" / "eval" / "after")
    assert leave("report", str(run), "--format", "md") == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "no answers before and after tuning to compare" in found.err
    assert leave("report", str(run), "--format", "pdf") == 2


def test_the_package_s_files_are_in_the_wheel() -> None:
    """Hatch takes what lies in the package, unless Git ignores it."""
    import tomllib

    import ragtune.reporting

    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "src/ragtune" in wheel["only-include"]
    folder = Path(next(iter(ragtune.reporting.__path__)))
    assert folder == root / "src" / "ragtune" / "reporting"
    assert {"report.css", "report.js", "report.html.j2", "report.md.j2"} <= {
        p.name for p in (folder / "templates").iterdir()
    }
