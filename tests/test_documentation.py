"""The site in both languages: it builds without a fault, finds Japanese words within sentences, fetches nothing."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import subprocess
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "documentation.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HITS = """() => {
  const found = [];
  const walk = node => node.querySelectorAll('*').forEach(e => {
    if (e.shadowRoot) walk(e.shadowRoot);
    if (e.tagName === 'MARK' && e.closest('a')) found.push(e.closest('a').href);
  });
  walk(document);
  return found;
}"""
"""The addresses that the search shows: they lie in a shadow tree."""
TYPED = """() => {
  let here = document.activeElement;
  while (here?.shadowRoot) here = here.shadowRoot.activeElement;
  return here?.tagName === 'INPUT';
}"""
"""Whether what is typed comes to a field: the search has the focus a moment after it is opened."""


def load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("documentation", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    assert load().build(root) == []
    return root / "site"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_both_languages_are_built_without_a_fault(site: Path) -> None:
    for folder, language in ((site, "en"), (site / "ja", "ja")):
        page = (folder / "recipe/index.html").read_text("utf-8")
        assert f'<html lang="{language}"' in page
        assert "fonts.googleapis" not in page
        assert (folder / "report.png").is_file()
        assert (folder / "recipes/quickstart.yaml").is_file()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright here")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize(
    ("start", "word", "page"),
    [
        ("", "hard negatives", "documents/"),
        ("ja/", "検索器", "ja/documents/"),
        ("ja/", "語幹", "ja/documents/"),
    ],
)
def test_a_word_is_found_and_nothing_is_fetched_from_elsewhere(
    browser: Any, address: str, start: str, word: str, page: str
) -> None:
    """The Japanese words stand within sentences, where no blank parts them from what is around."""
    asked: list[str] = []
    said: list[str] = []
    tab = browser.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(address + start)
    tab.locator(".md-search__button").first.click()
    tab.wait_for_function(TYPED)
    tab.keyboard.type(word)
    # What is found of the first letters is another page's, perhaps.
    found = f"(page) => ({HITS})().some(found => found.startsWith(page))"
    tab.wait_for_function(found, arg=address + page)
    tab.close()
    assert not said
    assert all(url.startswith((address, f"blob:{address}", "data:")) for url in asked)


def test_each_language_leads_to_the_other(browser: Any, address: str) -> None:
    tab = browser.new_page()
    for here, there in (("recipe/", "ja/"), ("ja/recipe/", "")):
        tab.goto(address + here)
        links = tab.eval_on_selector_all("a[hreflang]", "found => found.map(a => a.href)")
        assert any(link.startswith(address + there) for link in links)
        assert len(links) == 2
    tab.close()


def test_the_builder_refuses_a_link_to_no_page(tmp_path: Path) -> None:
    module = load()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# A\n\n[gone](gone.md)\n", "utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: a\ndocs_dir: docs\n", "utf-8")
    done = subprocess.run(
        [module.sys.executable, "-m", "zensical", "build", "--strict", "-f", "mkdocs.yml"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0


def test_what_the_builder_lets_pass_is_found(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/index.html").write_text('<p id="there">', "utf-8")
    (tmp_path / "index.html").write_text(
        '<a href="b/#there"></a><a href="b/#gone"></a><a href="c.json"></a><a href="https://a.org/"></a>'
        '<img src="d.png"><link rel="stylesheet" href="https://a.org/e.css"><script src="//a.org/f.js"></script>',
        "utf-8",
    )
    (tmp_path / "g.css").write_text("@import url(https://a.org/h.css)", "utf-8")
    assert load().faults(tmp_path) == [
        "index.html: fetches //a.org/f.js",
        "index.html: fetches https://a.org/e.css",
        "index.html: b/#gone leads nowhere",
        "index.html: c.json leads nowhere",
        "index.html: d.png leads nowhere",
        "g.css: fetches https://a.org/h.css",
    ]


def test_a_page_that_no_navigation_names_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load()
    (tmp_path / "docs/ja").mkdir(parents=True)
    for name in ("index.md", "new.md", "ja/index.md"):
        (tmp_path / "docs" / name).touch()
    for name in module.CONFIGURATIONS.values():
        (tmp_path / name).write_text("nav:\n  - index.md\n  - Old: old.md\n", "utf-8")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert list(module.unlisted()) == [
        "mkdocs.yml: new.md is not in nav",
        "mkdocs.yml: there is no old.md",
        "mkdocs.ja.yml: there is no old.md",
    ]


def test_links_of_a_page_stay_within_the_site() -> None:
    text = "[a](../bench/a.json) ![b](../../b.png) [c](c.md#d) [e](https://a.org/../f)"
    assert (
        load().within(text) == "[a](bench/a.json) ![b](b.png) [c](c.md#d) [e](https://a.org/../f)"
    )


def test_a_bar_in_the_code_of_a_table_needs_no_backslash_on_the_site() -> None:
    within = load().within
    assert (
        within("| a | `<\\|x\\|>` | b \\| c |\n`d \\| e`") == "| a | `<|x|>` | b \\| c |\n`d \\| e`"
    )
