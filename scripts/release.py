"""What a release needs of the files: one version everywhere, and its notes.

    python scripts/release.py check v1.2.3
    python scripts/release.py notes v1.2.3

`check` ends with exit code 1 unless the tag, ragtune/__init__.py and CITATION.cff name one version and
CHANGELOG.md has a section for it that isn't marked as unreleased. `notes` prints that section.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version() -> str:
    """The one that the package has; what is built takes it from the same place."""
    text = (ROOT / "src/ragtune/__init__.py").read_text("utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def cited() -> str:
    """The version that CITATION.cff names."""
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    return re.findall(r"^version: (\S+)$", text, re.MULTILINE)[0]


def section(changes: str, wanted: str) -> tuple[str, str] | None:
    """Heading and text of a version's section of the changelog."""
    for part in re.split(r"^## ", changes, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        if heading.split()[:1] == [wanted]:
            return heading, text.strip()
    return None


def problems(tag: str, changes: str) -> list[str]:
    """What is to be done before this tag may be released."""
    wanted = version()
    found = []
    if tag != f"v{wanted}":
        found.append(f"The tag is {tag}, but the version is {wanted}: the tag must be v{wanted}.")
    if cited() != wanted:
        found.append(f"CITATION.cff names version {cited()}, not {wanted}.")
    there = section(changes, wanted)
    if there is None or not there[1]:
        found.append(f"CHANGELOG.md says nothing of {wanted}: give it a section ## {wanted}.")
    elif "unreleased" in there[0].lower():
        found.append(f"CHANGELOG.md marks {wanted} as unreleased: write the date there.")
    return found


def main(action: str, tag: str) -> None:
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    if found := problems(tag, changes):
        sys.exit("\n".join(found))
    there = section(changes, tag.removeprefix("v"))
    if action == "notes" and there:
        print(there[1])


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "notes"):  # noqa: PLR2004 - an action and a tag
        sys.exit(__doc__)
    main(*sys.argv[1:])
