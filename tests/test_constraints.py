"""constraints.txt and every extra go together: one environment can have all of them at the versions that are tested."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "general": "make general",
    "cuda": "CUDA machines",
    "ray": "make cluster",
    "audit": "make audit",
}
"""Extras that CI does not install, and what does: of them only what is installed can be followed."""


def pinned() -> dict[str, Version]:
    """The versions of constraints.txt, by name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    found = {canonicalize_name(name): Version(version) for name, _, version in pairs}
    assert len(found) == len(pairs), "a package stands there twice"
    return found


def declared() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: "" without an extra, and each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    each = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in each.items()}


def applies(wanted: Requirement, extras: frozenset[str]) -> bool:
    return wanted.marker is None or any(
        wanted.marker.evaluate({"extra": extra}) for extra in (*extras, "")
    )


@functools.cache
def wanted_by_all() -> list[tuple[str, Requirement]]:
    """Every requirement that installing all extras together brings, and whose it is, as far as it is installed."""
    pending = [
        (f"ragtune[{extra}]" if extra else "ragtune", one)
        for extra, texts in declared().items()
        for one in texts
        if applies(one, frozenset())
    ]
    found: list[tuple[str, Requirement]] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        whose, one = pending.pop()
        found.append((whose, one))
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        inner = map(Requirement, package.requires or ())
        pending += [(f"{name} {package.version}", r) for r in inner if applies(r, extras)]
    return found


def refused(versions: dict[str, Version]) -> set[str]:
    """The requirements that these versions don't meet."""
    return {
        f"{whose} wants {name}{one.specifier}, constraints.txt has {versions[name]}"
        for whose, one in wanted_by_all()
        if (name := canonicalize_name(one.name)) in versions
        and not one.specifier.contains(versions[name], prereleases=True)
    }


def test_every_requirement_admits_the_pinned_version() -> None:
    """Gradio's pillow<13, too: with another package's pillow>=13 there would be no way to have both."""
    assert refused(pinned()) == set()


def test_a_conflict_would_be_noticed() -> None:
    if importlib.util.find_spec("gradio") is None:  # it takes seconds to import
        pytest.skip("no Gradio here")
    said = "\n".join(refused(pinned() | {"pillow": Version("13.0")}))
    assert re.search(
        r"^gradio \S+ wants pillow<13.0,>=8.0, constraints.txt has 13.0$", said, re.MULTILINE
    )


def test_what_ci_installs_is_pinned() -> None:
    """Each direct requirement of the package and of the extras that CI installs, and what these bring."""
    versions = pinned()
    direct = {
        canonicalize_name(one.name)
        for extra, texts in declared().items()
        if extra not in ELSEWHERE
        for one in texts
    }
    assert direct - versions.keys() == set()
    brought = {
        canonicalize_name(one.name)
        for whose, one in wanted_by_all()
        if re.match(r"(gradio|gradio-client|safehttpx|hf-gradio) ", whose)
    }
    assert brought - versions.keys() == set()
