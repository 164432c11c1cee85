"""Audit what ragtune depends on: known vulnerabilities (asks a service) and licences (asks nobody).

    python scripts/audit.py vulnerabilities
    python scripts/audit.py licences

`vulnerabilities` runs pip-audit --strict over the installed dependencies. Exit code 0: all were checked
and none has a known fault; 1: one has; 3: nothing was checked (no pip-audit, or its service can't be
reached), which is no pass. `licences` lists every dependency's licence. Exit code 1: one is unknown or
is not known to go together with Apache-2.0, and is not listed below as looked at.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NOTHING_CHECKED = 3
TIMEOUT = 600.0
"""Seconds for the service."""

COMPATIBLE = (
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "HPND", "ISC",
    "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
)  # fmt: skip
"""SPDX names of licences under which code may be used by a program under Apache-2.0."""

WORDS = {
    "apache": "Apache-2.0", "bsd": "BSD-3-Clause", "mit": "MIT", "isc": "ISC", "mpl": "MPL-2.0",
    "mozilla": "MPL-2.0", "psf": "PSF-2.0", "python software foundation": "PSF-2.0", "hpnd": "HPND",
    "historical permission": "HPND", "unlicense": "Unlicense", "zlib": "Zlib",
}  # fmt: skip
"""How packages without an SPDX expression say it."""

LOOKED_AT = {
    "nvidia-": "NVIDIA's own terms: libraries of CUDA, which torch brings on GPU machines; not ours to pass on",
    "cuda-": "NVIDIA's own terms, as above",
    "fpdf2": "LGPL-3.0: makes PDF files for tests and samples, is imported as it is and not passed on",
    "pypdfium2": "BSD-3-Clause and Apache-2.0; PDFium and what is in it: BSD, MIT, zlib, FreeType, IJG, "
    "libtiff and others of that kind, whose texts lie in it",
    "atheris": "Apache-2.0, by the LICENSE in it; its metadata say nothing",
}
"""Beginnings of names of packages whose licence a person has read, and what was found."""


def dependencies(root: str = "ragtune") -> Iterator[importlib.metadata.Distribution]:
    """The installed packages that a package needs, those of its extras included, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending: list[tuple[str, frozenset[str]]] = [
        (root, frozenset(importlib.metadata.metadata(root).get_all("Provides-Extra") or ()))
    ]
    seen = set(pending)
    while pending:
        name, extras = pending.pop()
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra, or for another system
        found[canonicalize_name(name)] = package
        for text in package.requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or any(
                wanted.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            ):
                following = (canonicalize_name(wanted.name), frozenset(wanted.extras))
                if following not in seen:
                    seen.add(following)
                    pending.append(following)
    found.pop(root, None)
    yield from (found[name] for name in sorted(found))


def licence(metadata: Any) -> str:
    """What a package says of its licence: an SPDX expression, classifiers, or a word; '' if nothing."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in metadata.get_all("Classifier") or ()
        if c.startswith("License :: ") and not c.lower().endswith(" approved")
    ]
    if classifiers:
        return " AND ".join(classifiers)
    said = (metadata.get("License") or "").strip().splitlines()
    return said[0] if said else ""


def is_compatible(said: str) -> bool:
    """Whether every part of a licence goes together with Apache-2.0; of an OR, one side is enough."""
    said = re.sub(r" WITH [\w.-]+", "", said.replace("(", " ").replace(")", " "))
    if said.strip() in COMPATIBLE:
        return True
    if " OR " in said:
        return any(is_compatible(side) for side in said.split(" OR "))
    parts = [part.strip() for part in re.split(r" AND |,|;", said) if part.strip()]
    return bool(parts) and all(_known(part) for part in parts)


def _known(part: str) -> bool:
    if part in COMPATIBLE:
        return True
    if re.search(r"\bA?GPL|general public|proprietary|commercial", part, re.IGNORECASE):
        return False
    return any(re.search(rf"\b{word}\b", part, re.IGNORECASE) for word in WORDS)


def licences(packages: Iterator[importlib.metadata.Distribution]) -> int:
    """List the licences; the exit code."""
    wrong = []
    for package in packages:
        name, said = package.metadata["Name"], licence(package.metadata)
        looked = next((text for start, text in LOOKED_AT.items() if name.startswith(start)), None)
        print(
            f"{name:32} {package.version:16} {said or 'unknown'}{f'  ({looked})' if looked else ''}"
        )
        if looked is None and not is_compatible(said):
            wrong.append(f"{name} ({said or 'unknown'})")
    if wrong:
        print(f"\nNot known to go together with Apache-2.0: {', '.join(wrong)}.", file=sys.stderr)
        print(
            "Read them, and add what was found to LOOKED_AT in scripts/audit.py.", file=sys.stderr
        )
    return int(bool(wrong))


def vulnerabilities(packages: Iterator[importlib.metadata.Distribution]) -> int:
    """Ask pip-audit's service about every dependency; the exit code."""
    if importlib.util.find_spec("pip_audit") is None:
        return _nothing("pip-audit is not installed (pip install pip-audit)")
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        # A local version, such as torch's +cpu, is one that no service knows.
        lines = [f"{p.metadata['Name']}=={p.version.partition('+')[0]}\n" for p in packages]
        listed.write_text("".join(lines), encoding="utf-8")
        command = [
            sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip",
            "--progress-spinner=off", "--format=json", "-r", str(listed),
        ]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603 - this very Python
                command, check=False, capture_output=True, text=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return _nothing(f"the service gave no answer in {TIMEOUT:g} s")
    try:
        checked = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError, TypeError):
        said = done.stderr.strip().splitlines() or ["no answer"]
        return _nothing(said[-1][:300])
    if len(checked) < len(lines) or any("vulns" not in entry for entry in checked):
        return _nothing(f"of {len(lines)} packages only {len(checked)} were looked up")
    faults = [(e["name"], e["version"], v["id"]) for e in checked for v in e["vulns"]]
    for name, version, fault in faults:
        print(f"{name} {version}: {fault}")
    print(f"{len(checked)} dependencies checked, {len(faults)} known vulnerabilities.")
    return int(bool(faults) or done.returncode != 0)


def _nothing(why: str) -> int:
    print(f"NOTHING WAS CHECKED: {why}. This is no pass.", file=sys.stderr)
    return NOTHING_CHECKED


def main(arguments: list[str]) -> int:
    commands = {"licences": licences, "vulnerabilities": vulnerabilities}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    return commands[arguments[0]](dependencies())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
