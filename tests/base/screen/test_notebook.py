"""What a notebook shows: one output a heading, which is updated, wraps, and in which every text is text."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

import ragtune
from ragtune.base.screen import notebook, progress
from ragtune.base.screen.console import console, heading, note, warn
from ragtune.base.screen.notebook import as_html, one_output
from ragtune.base.screen.progress import busy
from ragtune.stages.check.findings import Finding, Findings, show

HOSTILE = "<img src=x onerror=alert(1)> & [red]'"
ESCAPED = "&lt;img src=x onerror=alert(1)&gt; &amp; [red]&#x27;"


class Cell:
    """Stands for a notebook's cell: its outputs, each with all that it ever showed."""

    def __init__(self) -> None:
        self.outputs: list[list[str]] = []
        self.bars: list[Any] = []
        self.gone: list[str] = []

    def display(self, shown: Any, *, display_id: bool) -> Any:
        assert display_id
        if not hasattr(shown, "_repr_html_"):  # a widget
            self.bars.append(shown)
            return SimpleNamespace(update=lambda later: self.gone.append(later._repr_html_()))
        self.outputs.append([shown._repr_html_()])
        return SimpleNamespace(
            update=lambda later, own=self.outputs[-1]: own.append(later._repr_html_())
        )

    @property
    def now(self) -> list[str]:
        return [output[-1] for output in self.outputs]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """A kernel without IPython."""
    cell = Cell()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    ipython.version_info = (9, 0)  # type: ignore[attr-defined] - Matplotlib asks
    display.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    return cell


def test_each_heading_is_an_output(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    with one_output():
        heading("Check")
        for number in range(50):
            note(f"{number} {HOSTILE}")
        warn(HOSTILE)
        heading("Data")
        with one_output():  # one function of ragtune calls another
            note("read")
    first, second = cell.now
    assert first.count(ESCAPED) == 51
    assert f'<span style="color: #b58900; text-decoration-color: #b58900">! {ESCAPED}' in first
    assert "<img" not in first
    assert "read" in second
    assert "read" not in first
    assert "white-space: pre-wrap; overflow-wrap: anywhere" in first
    assert capsys.readouterr() == ("", "")
    note("after")
    assert capsys.readouterr().out == "after\n"


def test_nothing_said_is_no_output(cell: Cell) -> None:
    with one_output():
        console.print()
        with busy("quick"):
            pass
    assert cell.outputs == []


def test_a_long_stage_is_not_sent_again_and_again(cell: Cell) -> None:
    with one_output():
        heading("Training")
        for step in range(2000):
            note(f"  step {step:>5}   loss 1.2345")
    assert len(cell.outputs) > 1
    assert max(map(len, cell.now)) < 2 * notebook._LONGEST
    assert "".join(cell.now).count("loss") == 2000


def test_what_is_under_way_is_the_last_line(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOOKS", 1e-4)
    with one_output():
        heading("Training")
        with progress.progress(HOSTILE, 8) as update:
            update(3)
            progress._pulse.beat()
            assert len(cell.outputs) == 1
            assert f"<div>{ESCAPED}: 3 of 8 (37 %)" in cell.now[0]
            note("a line")
            update(4)
            progress._pulse.beat()
            assert cell.now[0].count("of 8") == 1
        assert "of 8" not in cell.now[0]
    assert len(cell.outputs) == 1


def test_where_there_are_widgets_a_bar_moves_and_leaves_nothing(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Progress(SimpleNamespace):
        open = True

        def close(self) -> None:
            self.open = False

    widgets = ModuleType("ipywidgets")
    widgets.FloatProgress = Progress  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    monkeypatch.setattr(progress, "_LOOKS", 1e-4)
    with one_output():
        heading("Training")
        with progress.progress("training", 8) as update:
            for done in (2, 6):
                update(done)
                progress._pulse.beat()
                (bar,) = cell.bars
                assert bar.value == done / 8
                assert f"{done} of 8" in cell.now[0]
        assert (bar.open, cell.gone) == (False, [""])
        with busy("nobody knows how far"):
            progress._pulse.beat()
    assert len(cell.bars) == 1
    assert len(cell.outputs) == 1


def test_what_says_nothing_shows_that_it_is_at_work(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LOOKS", 1e-4)
    with one_output(), busy("check"):
        progress._pulse.beat()
        assert re.search(r"check: \d+ s so far", cell.now[0])
    assert "check" not in cell.now[0]


def test_what_takes_long_before_the_first_word_has_no_output_of_its_own(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine."""
    monkeypatch.setattr(progress, "_LOOKS", 1e-4)
    with one_output(), busy("waiting"):
        progress._pulse.beat()
        assert "waiting" in cell.now[0]
        heading("Data")
    (data,) = cell.now
    assert "Data" in data
    assert "waiting" not in data
    with one_output(), busy("looking"):
        progress._pulse.beat()
        assert "looking" in cell.now[1]
    assert cell.now[1:] == [""]


def test_an_interrupt_leaves_what_was_said(cell: Cell) -> None:
    def stopped() -> None:
        with one_output(), busy("training"):
            note("before")
            note("just before")
            progress._pulse.beat()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "just before" in cell.now[0]
    assert "so far" not in cell.now[0]
    assert notebook.page() is None


def test_a_table_stays_a_table() -> None:
    table = Table(title="[bold]figures", caption="of all")
    table.add_column("metric")
    table.add_column("n", justify="right")
    table.add_row(Text(HOSTILE), "1,234", style="bold")
    made = as_html(table)
    assert f">{ESCAPED}</td>" in made
    assert 'text-align: right; white-space: nowrap">1,234</td>' in made
    assert made.count("<tr") == 2
    assert ">[bold]figures<" in made  # markup is text

    class Wide:
        """Laid out by the width that there is, as the tables of figures are."""

        def __rich_console__(self, _: object, options: Any) -> Any:
            yield table if options.max_width > 500 else "narrow"

    assert as_html(Wide()) == made


def test_findings(cell: Cell) -> None:
    found = [
        Finding("model", "ok", HOSTILE, "unneeded", (("trained", "red\n"),)),
        Finding("data", "warning", "m", HOSTILE),
    ]
    with one_output():
        show(found)
    as_value = Findings(found)
    for made in (cell.now[0], as_value._repr_html_()):
        assert made.count(ESCAPED) == 2
        assert made.count("<tr") == 2
        assert "red⏎" in made
        assert "unneeded" not in made
    assert repr(as_value).splitlines() == [
        f"       ok  model: {HOSTILE}",
        f"  warning  data: m {HOSTILE}",
    ]
    assert as_value[1]["advice"] == HOSTILE


def test_a_user_s_mistake_is_no_traceback() -> None:
    shown = ragtune.UsageError("data.train: no such file.", "Write its path.")._render_traceback_()
    assert shown == ["UsageError: data.train: no such file.\nWrite its path."]


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_elsewhere_nothing_changes(
    shell: object, cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also in IPython in a terminal, whose shell has no kernel."""
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    with one_output():
        note("a line")
    assert capsys.readouterr().out == "a line\n"
    assert cell.outputs == []


def test_the_functions_of_ragtune(
    cell: Cell, tiny_recipe: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    """A whole run: an output for each heading, and nothing beside them."""
    run = tmp_path / "run"
    with pytest.raises(ragtune.UsageError, match="no report"):
        ragtune.show(tiny_recipe, run_dir=run)
    assert ragtune.run(tiny_recipe, run_dir=run)
    written = [one for one in cell.now if "<svg" not in one]  # but for the drawing of the loss
    titles = [re.search(r">([^<>]+)<", one)[1] for one in written]  # type: ignore[index]
    assert titles == [
        "Check", "Data", "Model", "Answers before tuning", "Training", "Answers after tuning",
        "Report", "Merged model", "Where everything lies",
    ]  # fmt: skip
    assert "so far" not in "".join(cell.now)
    frame = ragtune.show(run)
    assert repr(frame) == f"The report: {run / 'report.html'}"
    assert 'sandbox="allow-scripts"' in frame._repr_html_()
    assert capsys.readouterr() == ("", "")


def test_a_kernel(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """A real one, where there is one."""
    client = pytest.importorskip("nbclient", reason="no nbclient here")
    pytest.importorskip("ipykernel", reason="no ipykernel here")
    formats: Any = pytest.importorskip("nbformat", reason="no nbformat here").v4
    cells = [
        f"import ragtune\nrecipe, run = {tiny_recipe!r}, {str(tmp_path / 'run')!r}",
        "_ = ragtune.prepare(recipe, run_dir=run)",
        "ragtune.check(recipe, run_dir=run)",
        "ragtune.train(recipe, 'train.steps=x', run_dir=run)",
    ]
    made = formats.new_notebook(cells=[*map(formats.new_code_cell, cells)])
    client.NotebookClient(made, timeout=300, allow_errors=True).execute()
    for cell in made.cells:
        # A bar is replaced by nothing, and so is a line that told of what took long before there was a heading.
        cell.outputs = [o for o in cell.outputs if o.get("data", {}).get("text/plain") != ""]
    kinds = [[output.output_type for output in cell.outputs] for cell in made.cells]
    assert kinds == [[], ["display_data"], ["execute_result"], ["error"]]
    prepared, checked, failed = (cell.outputs[0] for cell in made.cells[1:])
    assert "24 of 24 selected" in prepared.data["text/html"]
    assert checked.data["text/html"].count("<tr") > 10
    assert len(failed.traceback) == 1


def test_a_kernel_s_widget() -> None:
    """A real bar, where there is one: it was there, and its output is empty in the notebook that is saved."""
    client = pytest.importorskip("nbclient", reason="no nbclient here")
    pytest.importorskip("ipykernel", reason="no ipykernel here")
    pytest.importorskip("ipywidgets", reason="no ipywidgets here")
    formats: Any = pytest.importorskip("nbformat", reason="no nbformat here").v4
    code = """
from ragtune.base.screen import progress
from ragtune.base.screen.console import heading
from ragtune.base.screen.notebook import one_output
progress._LOOKS = 1e-4
with one_output():
    heading("Training")
    with progress.progress("training", 8) as update:
        update(3)
        progress._pulse.beat()
"""
    made = formats.new_notebook(cells=[formats.new_code_cell(code)])
    client.NotebookClient(made, timeout=120, store_widget_state=True).execute()
    state = made.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert "FloatProgressModel" in {one["model_name"] for one in state.values()}
    page, bar = made.cells[0].outputs
    assert "Training" in page.data["text/html"]
    assert bar.data == {"text/html": "", "text/plain": ""}


def test_a_drawing_moves_and_stays(cell: Cell) -> None:
    """Below what its block says; the next block has one of its own."""
    with one_output():
        heading("Training")
        note("step 1")
        for step in (1, 2):
            notebook.page().draw(f"<svg>{step}</svg>", HOSTILE)  # type: ignore[union-attr]
        note("step 2")
        heading("Training again")
        notebook.page().draw("<svg>3</svg>", "")  # type: ignore[union-attr]
    first, drawn, second, other = cell.now
    assert ("step 2" in first, "again" in second) == (True, True)
    assert [re.findall("<svg>(.)", one) for one in cell.outputs[1]] == [["1"], ["2"]]
    assert ESCAPED in drawn
    assert "<svg>3</svg>" in other
