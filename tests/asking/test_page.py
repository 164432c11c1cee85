"""The page in a browser, by use: asked, waited for, judged; and with text that would like to be more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.screen.visible import visible
from ragtune.building.questions import read_questions
from ragtune.data.example import Passage, Place
from ragtune.recipe.corpus import Questions
from tests.asking.served_page import CHROMIUM, browser, served
from tests.asking.standin import PASSAGES, StandIn
from tests.base.screen.payloads import PAYLOADS

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here: apt-get install chromium"
)

HOSTILE = (
    '</script><!-- <img src=x onerror="window.hurt=1"> <script>window.hurt=1</script> \'&amp;'
    "${window.hurt=1} {{window.hurt=1}} {{#each value}}x{{/each}} [l](javascript:window.hurt=1) $$x$$ "
    "<svg onload=window.hurt=1> <a href='http://evil.example/'>a</a> ![i](http://evil.example/i.png) **b**"
)


@dataclass
class Use:
    """A browser in which pages are opened, and what they asked for and said."""

    context: Any
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def open(self, address: str) -> Any:
        page = self.context.new_page()
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(f"a dialog: {dialog.message}"))
        page.goto(address)
        page.wait_for_selector("#question textarea")
        return page


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "feedback.jsonl"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def serving(place: Path) -> Iterator[tuple[StandIn, str]]:
    """One page for all tests: what its reader does is set by each."""
    reader = StandIn()
    with served(reader, place) as address:
        yield reader, address


@pytest.fixture(scope="module")
def use(chromium: Any, serving: tuple[StandIn, str]) -> Iterator[Use]:
    context = chromium.new_context()
    yield Use(context)
    context.close()


@pytest.fixture(scope="module")
def opened(use: Use, serving: tuple[StandIn, str]) -> Any:
    return use.open(serving[1])


@pytest.fixture
def reader(serving: tuple[StandIn, str], place: Path) -> StandIn:
    found = serving[0]
    found.__dict__.update(vars(StandIn()))
    place.unlink(missing_ok=True)
    return found


@pytest.fixture
def page(use: Use, opened: Any, reader: StandIn) -> Iterator[Any]:
    """The page; nothing may be asked of anybody else, and no text become an element."""
    opened.fill("#question textarea", "")
    yield opened
    require_harmless(use, opened)


def require_harmless(use: Use, page: Any) -> None:
    assert page.evaluate("window.hurt") is None
    assert page.locator("main a, main img, iframe, main svg:not([aria-hidden])").count() == 0
    assert {urlsplit(url).hostname for url in use.requests if url[:5] != "data:"} == {"127.0.0.1"}
    # Gradio asks for the focus, which the field has by then.
    assert [text for text in use.said if "Autofocus" not in text] == []


def ask(page: Any, question: str, until: str = "") -> None:
    """Ask, and wait until something is there; by default until the answers to this very question are."""
    page.fill("#question textarea", question)
    page.press("#question textarea", "Enter")
    if until:
        page.wait_for_selector(until)
    else:
        wait_for_answers(page, question)


def wait_for_answers(page: Any, question: str) -> None:
    label = "document.querySelector('.answers')?.ariaLabel"
    page.wait_for_function(f"(wanted) => {label} === wanted", arg=f"Answers to: {question}")
    page.wait_for_selector("#up:visible")


def lines(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.read_text("utf-8").splitlines()]


def test_asked_answered_and_judged(page: Any, reader: StandIn, place: Path) -> None:
    assert page.title() == "pumps · ragtune"
    assert page.inner_text("h1") == "pumps"
    assert (
        page.inner_text("#said")
        == f"What is typed here is kept only if a thumb is pressed, and then in {place}."
    )
    ask(page, "How high is the pressure?")
    assert reader.asked == ["How high is the pressure?"] * 2
    assert page.locator(".answer h2").all_inner_texts() == ["Tuned", "Base model"]
    assert page.locator(".said").all_inner_texts() == ["12 bar", "About 12."]
    assert page.locator(".facts").all_inner_texts() == [
        "0.5 s · stands in passage 1",
        "0.5 s · stands in none of the passages",
    ]
    assert page.locator(".passages li").count() == 2
    assert page.locator(".from").all_inner_texts() == [
        "Pump manual.pdf, p. 12",
        "富士山 山.md, 富士山",
    ]
    assert page.locator("mark").all_inner_texts() == ["12 bar"]
    assert page.locator("li.holds").count() == 1
    assert page.locator("li[lang=ja]").count() == 1
    assert not place.exists()  # nothing is kept before a thumb is pressed
    page.click("#up")
    page.wait_for_selector("#up", state="detached")
    page.get_by_text("Thank you.").wait_for()
    (line,) = lines(place)
    assert line.pop("at")
    assert line == {
        "question": "How high is the pressure?", "said": "12 bar", "thumb": "up", "right": ["12 bar"],
        "unanswerable": False, "passages": [], "model": "pumps",
    }  # fmt: skip


def test_a_wrong_answer_is_corrected_or_not(page: Any, reader: StandIn, place: Path) -> None:
    reader.answers = {"tuned": "4000 m", "base": "x"}
    for number, act in enumerate((
        lambda: page.fill("#right textarea, #right input", "3776 m"),
        lambda: None,  # wrong, and the right one isn't known
        lambda: page.click("#none"),
    ), 1):  # fmt: skip
        ask(page, f"富士山の標高は? {number}")
        page.click("#down")
        page.wait_for_selector("#keep:visible")
        act()
        if page.locator("#keep").count():
            page.click("#keep", force=True) if number < 3 else None
        page.wait_for_selector("#keep", state="detached")
    assert [(line["thumb"], line["right"], line["unanswerable"]) for line in lines(place)] == [
        ("down", ["3776 m"], False), ("down", [], False), ("down", [], True)
    ]  # fmt: skip
    found = list(read_questions([str(place)], Questions(files=[str(place)])))
    assert [(q.question, q.answers) for q in found] == [
        ("富士山の標高は? 1", ("3776 m",)), ("富士山の標高は? 3", ()),
    ]  # fmt: skip


def test_a_refusal_is_no_accepted_answer(page: Any, reader: StandIn, place: Path) -> None:
    reader.answers["tuned"], reader.refusals = "not said", ("not said",)
    ask(page, "What colour is it?")
    assert "says that the passages don’t answer it" in page.locator(".facts").first.inner_text()
    page.click("#up")
    page.get_by_text("Thank you.").wait_for()
    assert [(line["right"], line["unanswerable"]) for line in lines(place)] == [([], True)]


def test_passages_may_be_pasted(page: Any, reader: StandIn, place: Path) -> None:
    page.click("#own button")
    page.fill("#pasted textarea", "It runs at 12 bar.\nAlways.\n\n  \nIt is red.")
    page.uncheck("#both input")
    ask(page, "How high do they say?")
    page.check("#both input")
    assert page.locator(".passages .text").all_inner_texts() == [
        "It runs at 12 bar.\nAlways.",
        "It is red.",
    ]
    assert page.locator(".said").all_inner_texts() == ["12 bar"]
    page.click("#up")
    page.get_by_text("Thank you.").wait_for()
    (question,) = read_questions([str(place)], Questions(files=[str(place)]))
    assert [p.text for p in question.passages] == ["It runs at 12 bar.\nAlways."]
    page.fill("#pasted textarea", "")


def test_without_an_index_passages_are_asked_for(use: Use, tmp_path: Path) -> None:
    """And whatever the model is called, and wherever it lies, that is text."""
    folder = tmp_path / "<img src=x onerror=window.hurt=1>"
    reader = StandIn(HOSTILE, retrieves=False, compares=False)
    with served(reader, folder / "f.jsonl") as address:
        page = use.open(address)
        assert page.text_content("h1") == HOSTILE
        assert page.text_content("#said code") == str(folder / "f.jsonl")
        assert page.title() == f"{HOSTILE} · ragtune"
        assert page.locator("#both").count() == 0
        ask(page, "How high?", until=".told")
        assert page.inner_text(".told") == (
            "There are no passages to answer from.\n"
            "Paste some: this model comes without an index that could be searched."
        )
        page.fill("#pasted textarea", "It runs at 12 bar.")
        ask(page, "How high?")
        assert page.locator("mark").all_inner_texts() == ["12 bar"]
        require_harmless(use, page)
        page.close()


def test_errors_are_messages_on_the_page(
    page: Any, reader: StandIn, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    page.click("#ask")
    page.get_by_text("There is no question.").wait_for()
    for error, said in (
        (UsageError("This question is too long.", "Ask it in fewer words."), "This question is too long.\nAsk it in fewer words."),
        (MemoryError("no more"), "There is too little memory: no more"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ):  # fmt: skip
        reader.error = error
        ask(page, "How high?", until=f".told >> text={said.splitlines()[0]}")
        assert page.inner_text(".told").startswith(said)
    reader.error = None
    ask(page, "And now?")  # it goes on
    place.mkdir()  # where the file should be
    page.click("#up")
    page.locator("#said .told").wait_for()
    assert "a folder has this name" in page.inner_text("#said")
    place.rmdir()
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def test_who_comes_second_waits_and_sees_so(
    page: Any, reader: StandIn, use: Use, serving: tuple[StandIn, str]
) -> None:
    reader.gate = threading.Event()
    first, second, third = page, use.open(serving[1]), use.open(serving[1])
    ask(first, "First?", until="#answers .said:text-is('12 b')")
    assert first.inner_text("#answers .said >> nth=0") == "12 b"  # as far as it is written
    ask(second, "Second?", until=".waiting")
    assert second.inner_text(".waiting") == "Another question is being answered. Yours is next."
    ask(third, "Third?", until=".waiting")
    third.get_by_text("2 questions are before yours.").wait_for()
    second.close()  # who goes is no longer waited for
    third.get_by_text("Another question is being answered.").wait_for()
    reader.gate.set()
    for one in (first, third):
        one.wait_for_selector("#up:visible")
    assert reader.most == 1
    assert "Second?" not in reader.asked
    third.close()


def test_text_stays_text(page: Any, reader: StandIn, place: Path) -> None:
    reader.found = (
        Passage(f"a {HOSTILE} b", HOSTILE, HOSTILE, Place(HOSTILE, 0, 1, None, HOSTILE)),
        *(Passage(text, name) for name, text in PAYLOADS.items()),
    )
    reader.answers = {"tuned": HOSTILE, "base": HOSTILE}
    ask(page, HOSTILE)
    assert page.locator(".said").all_text_contents() == [HOSTILE, HOSTILE]
    for where in ("b", "mark"):
        assert page.locator(f".passages {where}").first.text_content() == HOSTILE
    assert page.locator(".from small").first.text_content() == f"{HOSTILE}, {HOSTILE}"
    text = page.locator("#passages").inner_text()
    assert visible(text) == text  # what can't be seen is shown as what it is
    hidden = [t for t in PAYLOADS.values() if visible(t) != t]
    assert page.locator(".passages li:has(bdi.odd)").count() == len(hidden)
    page.click("#down")
    page.fill("#right textarea, #right input", HOSTILE)
    page.click("#keep")
    page.get_by_text("Thank you.").wait_for()
    assert lines(place)[0]["right"] == [HOSTILE]
    reader.error = UsageError(HOSTILE, HOSTILE)
    ask(page, HOSTILE, until=".told")
    assert page.locator(".told").text_content().count(HOSTILE) == 2


def test_a_phone_does_not_scroll_sideways_and_dark_is_dark(page: Any, reader: StandIn) -> None:
    reader.answers = {"tuned": "W" * 300, "base": "長い答え" * 60}
    reader.found = (*PASSAGES, Passage("y" * 400, "t" * 200, 1, Place("f" * 200, 0, 1)))
    page.set_viewport_size({"width": 360, "height": 740})
    ask(page, "q" * 300)
    page.click("#down")
    page.wait_for_selector("#keep:visible")
    colour = "getComputedStyle(document.body).backgroundColor"
    for scheme, expected in (("light", "rgb(247, 246, 243)"), ("dark", "rgb(19, 21, 25)")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"(wanted) => {colour} === wanted", arg=expected)
        page.wait_for_function("document.documentElement.scrollWidth === 360")


def test_the_keyboard_is_enough(page: Any, reader: StandIn) -> None:
    page.keyboard.type("By keys?")  # the field has the focus
    page.keyboard.press("Enter")
    wait_for_answers(page, "By keys?")
    for _ in range(5):  # the passages of one's own may be open
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "up":
            break
    assert page.evaluate("document.activeElement.id") == "up"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.get_by_text("Thank you.").wait_for()


def test_a_script_that_is_not_the_page_s_own_does_not_run(
    use: Use, serving: tuple[StandIn, str]
) -> None:
    """Even if a text came to be an element."""
    page = use.open(serving[1])
    page.evaluate("""() => {
        const one = document.createElement('div');
        one.innerHTML = '<img src=x onerror="window.late=1"><iframe src="https://evil.example"></iframe>';
        document.body.append(one);
        const script = document.createElement('script');
        script.textContent = 'window.late=1';
        document.body.append(script);
    }""")
    fetch = "fetch('https://evil.example').then(() => 'reached', (e) => e.name)"
    with page.expect_console_message(lambda one: "Content Security Policy" in one.text):
        assert page.evaluate(fetch) == "TypeError"
    assert page.evaluate("window.late") is None
    assert "Content Security Policy" in use.said[-1]


def test_with_a_password_the_browser_s_own_question_is_enough(
    chromium: Any, tmp_path: Path
) -> None:
    """Every request of the page brings what was typed once: scripts, styles, the stream of answers."""
    with served(StandIn(), tmp_path / "f.jsonl", "correct horse 電池") as address:
        credentials = {"username": "anybody", "password": "correct horse 電池"}
        context = chromium.new_context(http_credentials=credentials)
        use = Use(context)
        page = use.open(address)
        ask(page, "How high?")
        require_harmless(use, page)
        context.close()
