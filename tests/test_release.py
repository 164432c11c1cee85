"""What a release consists of beside the code: one version, extras as documented, the workflow, the citation."""

from __future__ import annotations

import datetime as dt
import re
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

import ragtune

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
INSTALLING = (ROOT / "docs/installing.md").read_text("utf-8")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    sys.modules.pop("release", None)
    import release

    return release


def test_the_version_has_one_place(release: types.ModuleType) -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"] == {"path": "src/ragtune/__init__.py"}
    assert ragtune.__version__ == release.version() == release.cited()
    named = set(re.findall(r"ragtune-(\d[\w.]*)-py3", INSTALLING))
    assert named == {ragtune.__version__}


CHANGES = "# Changes\n\n## Unreleased\n\n- New.\n\n## {} ({})\n\n- First.\n\n### Inside\n\n## 0.0.1\n\n- Old.\n"


def test_what_keeps_a_tag_from_being_released(
    release: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ragtune.__version__
    good = CHANGES.format(version, "2026-12-01")
    assert release.problems(f"v{version}", good) == []
    assert release.section(good, version) == (f"{version} (2026-12-01)", "- First.\n\n### Inside")
    assert "the tag must be" in release.problems("v9.9.9", good)[0]
    assert (
        "as unreleased" in release.problems(f"v{version}", CHANGES.format(version, "unreleased"))[0]
    )
    assert "says nothing of" in release.problems(f"v{version}", CHANGES.format("3.0", "x"))[0]
    monkeypatch.setattr(release, "cited", lambda: "7.0")
    assert release.problems(f"v{version}", good) == [
        f"CITATION.cff names version 7.0, not {version}."
    ]


def test_the_notes_are_the_changelogs(
    release: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    changes = CHANGES.format(ragtune.__version__, "2026-12-01")
    (tmp_path / "CHANGELOG.md").write_text(changes, "utf-8")
    monkeypatch.setattr(release, "version", lambda: ragtune.__version__)
    monkeypatch.setattr(release, "cited", lambda: ragtune.__version__)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    release.main("notes", f"v{ragtune.__version__}")
    assert capsys.readouterr().out == "- First.\n\n### Inside\n"
    with pytest.raises(SystemExit, match="the tag must be"):
        release.main("check", "v8")


def test_the_workflow_releases_a_tag_that_was_tried() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    found = yaml.safe_load(text)
    assert found[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes `on` for a truth
    jobs = found["jobs"]
    assert [jobs[name].get("needs") for name in ("build", "try", "publish")] == [
        None, "build", "try"
    ]  # fmt: skip
    assert found["permissions"] == {"contents": "read"}
    assert jobs["publish"]["permissions"] == {"contents": "write"}
    assert {str(one) for one in jobs["try"]["strategy"]["matrix"]["python"]} == {
        name.rsplit(" ", 1)[1]
        for name in PROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", name)
    }
    steps = [step for job in jobs.values() for step in job["steps"]]
    for step in steps:
        assert step.keys() <= {"uses", "with", "run", "env"}
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
        # What a tag is called is data: it goes through the environment, never into a command.
        assert "${{" not in step.get("run", "")
    secrets = re.findall(r"\$\{\{ *(secrets\.\w+)", text)
    assert secrets == ["secrets.PYPI_TOKEN"]
    commands = "\n".join(step.get("run", "") for step in steps)
    for needed in (
        "release.py check",
        "make dist",
        "ragtune init --recipe",
        "twine upload",
        "gh release create",
    ):
        assert needed in commands
    makefile = (ROOT / "Makefile").read_text("utf-8").partition("\ndist:")[2]
    assert "hatchling build" in makefile
    assert "twine check --strict" in makefile


def test_the_citation_is_of_this_package() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert found.keys() <= {
        "cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "keywords",
        "date-released", "doi", "repository-code", "url",
    }  # fmt: skip
    assert {"cff-version", "message", "title", "authors"} <= found.keys()
    assert found["cff-version"] == "1.2.0"
    assert found["title"] == PROJECT["project"]["name"]
    assert found["license"] == PROJECT["project"]["license"]
    assert found["authors"]
    assert all(
        one.keys() <= {"name", "family-names", "given-names", "orcid"} for one in found["authors"]
    )
    assert isinstance(found.get("date-released", dt.date.min), dt.date)


def test_the_bug_form_asks_for_the_versions() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text("utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    ids = [one["id"] for one in form["body"] if one["type"] != "markdown"]
    assert ids == ["what", "recipe", "versions"]
    assert any(one["attributes"].get("label") == "ragtune --version" for one in form["body"])


def test_every_extra_is_in_the_table() -> None:
    table = INSTALLING.partition("## Extras")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert listed == list(PROJECT["project"]["optional-dependencies"])
