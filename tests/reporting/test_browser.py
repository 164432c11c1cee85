"""The report in a browser: what a reader can do with it, with the mouse and without."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.screen.visible import visible
from ragtune.data.example import Passage, Place
from ragtune.reporting.answers import AnswerRow
from ragtune.reporting.frame import framed
from ragtune.reporting.wording import HINT
from tests.base.screen.payloads import PAYLOADS
from tests.reporting import made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = (
    '</script><!-- <img src=x onerror="window.hurt=1"> <script>window.hurt=1</script> \'\u2028&amp;'
)
SEEN = HOSTILE.replace("\u2028", "U+2028")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a report of the made-up run; nothing may be fetched, nor an error be logged."""
    asked: list[str] = []
    said: list[str] = []
    contexts = []

    def open_page(options: dict[str, Any] | None = None, **changes: Any) -> Any:
        path = made.render(tmp_path, **changes)
        context = browser.new_context(**(options or {}))
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert set(asked) == {(tmp_path / "report.html").as_uri()}
    assert said == []


def many() -> list[AnswerRow]:
    """60 questions: every third fixed, the rest wrong; then the made-up ones and an unanswerable."""
    found = []
    for i in range(60):
        text = f"House {i} is red."
        found.append(
            AnswerRow(
                f"m{i}",
                f"What colour is house {i}?",
                ("red",),
                (Passage(text, f"House {i}"),),
                "blue",
                "red" if i % 3 == 0 else "green",
                before_right=False,
                after_right=i % 3 == 0,
                prompt=f"<s>{text}\n\nWhat colour is house {i}?",
            )
        )
    return [*found, *made.rows(), made.unanswerable()]


def questions(page: Any) -> list[str]:
    return page.locator("table.answers .question").all_inner_texts()


def counts(page: Any) -> dict[str, str]:
    texts = page.locator(".filters button").all_inner_texts()
    return {t.rpartition(" ")[0]: t.rpartition(" ")[2] for t in texts}


def test_filters_and_search(show: Callable[..., Any]) -> None:
    page = show(answers=many())
    assert counts(page) == {
        "All": "65",
        "Fixed": "21",
        "Broken": "1",
        "Still wrong": "41",
        "Right both times": "1",
        "Refused": "1",
        "Unanswerable": "1",
    }
    assert len(questions(page)) == 50
    assert page.inner_text("#shown") == "65 of 65 questions"
    page.click("#more")
    assert len(questions(page)) == 65
    assert page.evaluate("document.activeElement.textContent") == "What colour is house 50?"
    assert page.is_hidden("#more")
    page.click("button[data-kind=fixed]")
    assert page.get_attribute("button[data-kind=fixed]", "aria-pressed") == "true"
    assert page.get_attribute("button[data-kind='']", "aria-pressed") == "false"
    assert page.inner_text("#shown") == "21 of 65 questions"
    page.fill("#search", "ＨＯＵＳＥ 3?")  # full-width capitals, and words in any place
    assert questions(page) == [f"What colour is house {n}?" for n in (3, 33)]
    assert counts(page)["All"] == "6"  # 3, 13, 23, … 53
    page.fill("#search", "大阪")  # stands in an answer before tuning
    assert questions(page) == ["日本の首都は？"]
    page.fill("#search", "nothing like it")
    assert page.inner_text("#shown") == "No question is like that."
    page.press("#search", "Escape")
    assert page.input_value("#search") == ""
    for kind, expected in (("refused", ["Unasked?"]), ("unanswerable", ["Unasked?"])):
        page.click(f"button[data-kind={kind}]")
        assert questions(page) == expected


def test_a_row_opens(show: Callable[..., Any]) -> None:
    page = show(answers=many())
    assert page.locator(".detail:visible").count() == 0
    button = page.get_by_role("button", name="What colour is house 27?", exact=True)
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    detail = page.locator(f"#{button.get_attribute('aria-controls')}")
    assert detail.locator("mark").all_inner_texts() == ["red"]
    assert detail.locator(".passage p").inner_text() == "House 27 is red."
    assert detail.locator("pre").text_content() == "<s>House 27 is red.\n\nWhat colour is house 27?"
    assert "qid m27" in detail.inner_text()
    button.click()
    assert button.get_attribute("aria-expanded") == "false"
    assert detail.is_hidden()
    page.fill("#search", "日本")
    page.locator(".question").click()
    assert page.locator(".detail mark").all_inner_texts() == ["東京都", "東京"]
    assert page.locator("table.answers tbody").get_attribute("lang") == "ja"
    assert page.locator(".detail pre").count() == 0  # this one has no prompt


def test_the_keyboard_is_enough(show: Callable[..., Any]) -> None:
    page = show(answers=many())
    page.focus("#search")
    for _ in range(2):
        page.keyboard.press("Tab")
    focused = "document.activeElement.dataset.kind"
    assert page.evaluate(focused) == "fixed"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    assert page.inner_text("#shown") == "21 of 65 questions"
    assert page.evaluate(focused) == "fixed"  # the focus stays
    for _ in range(6):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What colour is house 0?"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Space")
    assert page.locator(".detail:visible mark").all_inner_texts() == ["red"]
    assert page.get_attribute("#shown", "aria-live") == "polite"


def test_text_of_the_data_stays_text(show: Callable[..., Any]) -> None:
    row = AnswerRow(
        HOSTILE, HOSTILE, (HOSTILE,), (Passage(f"a {HOSTILE} b", HOSTILE),), HOSTILE, HOSTILE, True, True,
        prompt=HOSTILE, others=(HOSTILE,), alternatives=(HOSTILE,),
    )  # fmt: skip
    row = dataclasses.replace(
        row, passages=(dataclasses.replace(row.passages[0], place=Place(HOSTILE, 0, 1)),)
    )
    audit = {"name": "x", "split": "eval", "title": HOSTILE, "count": 1, "of": 1, "note": HOSTILE}
    page = show(
        answers=[row, *made.rows()],
        controls=made.controls(HOSTILE),
        data=made.data_report(audits=[{**audit, "examples": [{"qid": "1", "text": HOSTILE}]}]),
        builds={"eval": made.a_build(HOSTILE, compared=made.a_comparison(HOSTILE))},
    )
    page.locator(".question").first.click()
    for place in (
        ".question",
        ".said",
        ".accepted div",
        ".passage b",
        ".passage small",
        ".passage mark",
        "p.small > bdi",
        "pre",
    ):
        assert page.locator(f"table.answers {place}").first.text_content() == SEEN, place
    assert SEEN in page.locator("#data .audit").text_content()
    assert page.locator("#retrieval").text_content().count(SEEN) == 45
    assert page.evaluate("window.hurt") is None
    assert page.locator("img").count() == 0


def test_a_reader_sees_what_can_t_be_seen(show: Callable[..., Any]) -> None:
    """The script's rows as well: each hidden character is a badge, and nothing else is of another kind."""
    shown = [
        dataclasses.replace(made.rows()[0], question=f"{n} {t}", before=t, prompt=t, qid=t)
        for n, t in PAYLOADS.items()
    ]
    page = show(answers=shown)
    text = page.locator("table.answers").inner_text()
    assert visible(text) == text
    hidden = [t for t in PAYLOADS.values() if visible(t) != t]
    assert page.locator(".question:has(bdi.odd)").count() == len(hidden)
    row = page.locator(".question", has_text="override")
    assert row.inner_text() == "override userU+202Etxt.exeU+202C"
    row.click()
    assert page.locator("pre:visible").first.inner_text() == "userU+202Etxt.exeU+202C"
    badge = page.locator("bdi.odd").first
    assert badge.get_attribute("title") == HINT


def test_a_script_that_is_not_the_page_s_own_does_not_run(browser: Any, tmp_path: Path) -> None:
    path = made.render(tmp_path)
    text = path.read_text("utf-8").replace("<main>", "<main><script>window.hurt=1</script>")
    path.write_text(text, "utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("window.hurt") is None
    assert page.inner_text("#shown") == "4 of 4 questions"
    page.close()


def test_a_phone_does_not_scroll_sideways(show: Callable[..., Any]) -> None:
    long = dataclasses.replace(
        made.rows()[0], question="x" * 300, before="W" * 400, prompt="y" * 500
    )
    page = show(
        {"viewport": {"width": 360, "height": 740}},
        answers=[long, *many()],
        controls=made.controls("A rather long name of a condition, longer than a phone is wide"),
        data=made.data_report(audits=made.audits()),
    )
    page.locator(".question").first.click()
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for size, shown in (("narrow", True), ("wide", False)):
        assert page.locator(f"#gain figure .{size}").is_visible() is shown


def test_light_dark_and_motion(show: Callable[..., Any]) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = show({"color_scheme": scheme, "reduced_motion": "reduce"})
        script = "getComputedStyle(document.body).{}"
        colours[scheme] = [page.evaluate(script.format(k)) for k in ("backgroundColor", "color")]
        root = "getComputedStyle(document.documentElement).scrollBehavior"
        assert page.evaluate(root) == "auto"
    assert not set(colours["light"]) & set(colours["dark"])


def test_print_has_figures_and_the_first_answers(show: Callable[..., Any]) -> None:
    page = show(answers=many())
    assert page.is_hidden("#printed")
    page.emulate_media(media="print")
    assert page.inner_text("#printed") == (
        "The first 20 of 65 answers are printed; the others are in the file."
    )
    assert page.locator("table.answers tbody:visible").count() == 20
    assert page.is_hidden("#search")
    assert page.locator("#gain svg").first.is_visible()


def test_in_a_notebook_s_frame(browser: Any, tmp_path: Path) -> None:
    """All of it works there, its policy holds, and it reaches nothing around it."""
    frame = framed(made.render(tmp_path))._repr_html_()
    (tmp_path / "notebook.html").write_text(f"<h1>notebook</h1>{frame}", "utf-8")
    context = browser.new_context(viewport={"width": 420, "height": 800})
    page = context.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    report = page.frames[1]
    report.wait_for_selector("table.answers tbody")
    report.click('a[href="#recipe"]')
    assert report.evaluate("location.href") == "about:srcdoc#recipe"
    assert report.evaluate("self.origin") == "null"
    tried = {
        "fetch": "fetch('https://example.com').then(() => 'reached', (e) => e.name)",
        "script": "(() => { const s = document.createElement('script'); s.textContent = 'window.hurt = 1'; "
        "document.body.append(s); return window.hurt ?? 'no' })()",
        "parent": "(() => { try { return parent.document.title } catch (e) { return e.name } })()",
    }
    found = {name: report.evaluate(script) for name, script in tried.items()}
    assert found == {"fetch": "TypeError", "script": "no", "parent": "SecurityError"}
    assert report.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.styleSheets.length") == 0
    context.close()


def test_without_scripts_it_says_so(show: Callable[..., Any]) -> None:
    page = show({"java_script_enabled": False})
    assert "scripts are switched off" in page.inner_text("#answers")
    assert page.is_hidden("#search")
    assert page.is_visible(".headline")
