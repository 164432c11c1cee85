"""The report while it trains: in a browser in the middle of a run, and after its end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError
from ragtune.reporting.frame import framed
from ragtune.reporting.html import HowFar
from ragtune.stages import live
from ragtune.stages.live import LivePage
from tests.reporting import made
from tests.training.test_train import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOOKS = ("train.eval_every=4", "train.eval_answers=5")
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_a_browser_shows_how_far_it_is(
    tiny_recipe: dict[str, Any], tmp_path: Path, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST", 0.0)
    report, seen, said = tmp_path / "run" / "report.html", [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    tell = LivePage.tell

    def looking(self: LivePage, step: int, log: Sequence[Any]) -> None:
        if step == 5:
            self.due = 0.0
            self.pause = live.PAUSE  # where the steps before took long, pages have been counted
        tell(self, step, log)
        if step == 5:
            page.goto(report.as_uri())
            seen.append(page.locator("#now").inner_text())
            assert page.locator("#now progress").get_attribute("value") == "5"
            assert page.locator("meta[http-equiv=refresh]").get_attribute("content") == "10"
            assert page.locator("#training svg >> visible=true").count() == 2  # loss and answers

    monkeypatch.setattr(LivePage, "tell", looking)
    train(tiny_recipe, tmp_path / "run", *LOOKS)
    (words,) = seen
    assert words.startswith("Training: step 5 of 8, about ")
    for part in ("Begun", "As of", "Loss of step 5", "Exact match, SQuAD’s rule at step 4"):
        assert part in words
    page.reload()
    words = page.locator("#now").inner_text()
    assert words.startswith("Training: step 8 of 8. Trained.")
    assert page.locator("meta[http-equiv=refresh]").count() == 0
    assert said == []


def test_the_page_shows_itself_anew(tmp_path: Path, page: Any) -> None:
    """From a file, without a server, and only until it is over."""
    far = HowFar(1, 9, "10:00", "10:01", left=80.0, again=1)
    report = made.render(tmp_path, how_far=far)
    page.goto(report.as_uri())
    assert "step 1 of 9, about 1 min 20 s left" in page.locator("#now").inner_text()
    made.render(tmp_path, how_far=HowFar(9, 9, "10:00", "10:02", ended="Trained."))
    page.locator("#now >> text=step 9 of 9. Trained.").wait_for(timeout=60_000)
    assert page.locator("meta[http-equiv=refresh]").count() == 0


def test_a_failure_is_named_and_stays_text(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST", 0.0)
    tell = LivePage.tell

    def failing(self: LivePage, step: int, log: Sequence[Any]) -> None:
        tell(self, step, log)
        if step == 2:
            raise RagtuneError(f"the question {HOSTILE} is too long")

    monkeypatch.setattr(LivePage, "tell", failing)
    with pytest.raises(RagtuneError):
        train(tiny_recipe, tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "step 2 of 8.</b> Failed: the question &lt;img src=x onerror" in text
    assert HOSTILE not in text
    assert 'http-equiv="refresh"' not in text


def test_a_page_that_can_t_be_written_ends_no_training(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live, "FIRST", 0.0)
    monkeypatch.setattr(live, "write_report", full)
    one = train(tiny_recipe, tmp_path / "run", "train.steps=3")
    assert one.folder.adapter.is_dir()
    assert capsys.readouterr().out.count("The report can't be written while it trains") == 1


@dataclass
class _Shown:
    log: Any = ()
    how_far: Any = None


def test_pages_take_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    context = SimpleNamespace(
        steps=[[]] * 1000, folder=SimpleNamespace(report=tmp_path / "report.html")
    )

    def write(*_: object) -> None:
        written.append(now[0])
        now[0] += 0.5

    written: list[float] = []
    monkeypatch.setattr(live, "write_report", write)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(LivePage, "report", _Shown())
    page = LivePage(context)  # type: ignore[arg-type]
    for step in range(200):
        now[0] += 1.0
        page.tell(step, [])
    assert len(written) == 5  # the second after 10 s, and then one every 50 s
    assert page.pause == 50.0


def test_a_frame_in_a_notebook_is_not_shown_anew(tmp_path: Path) -> None:
    report = made.render(tmp_path, how_far=HowFar(1, 9, "10:00", "10:01", again=5))
    assert 'http-equiv="refresh"' in report.read_text("utf-8")
    assert "refresh" not in framed(report)._repr_html_()
