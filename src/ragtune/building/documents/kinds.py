"""Kinds of files: by their ending, and by their first bytes where these say something else."""

from __future__ import annotations

import io
import re
import zipfile
import zlib

from ragtune.building.documents.document import UnreadableError

READ_WHOLE = {
    ".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".docx": "docx", ".pptx": "pptx", ".xlsx": "xlsx",
}  # fmt: skip
"""By their endings, the files that are read as a whole, in a process of their own."""
MAX_WHOLE = 256 << 20
"""Bytes of such a file."""
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
RECORDS = (".jsonl", ".jsonl.gz", ".ndjson", ".parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
OLD = {
    ".doc": ".docx", ".dot": ".docx", ".rtf": ".docx", ".odt": ".docx", ".docm": ".docx",
    ".xls": ".xlsx", ".ods": ".xlsx", ".xlsm": ".xlsx", ".xlsb": ".xlsx",
    ".ppt": ".pptx", ".pps": ".pptx", ".odp": ".pptx", ".pptm": ".pptx",
}  # fmt: skip
"""What is not read, and what an office program saves it as."""
KNOWN = "Read are .md .txt .html .pdf .docx .pptx .xlsx .csv .tsv .jsonl .parquet, and .zip .tar .tar.gz."

_BEGINNINGS = (
    (b"%PDF-", "a PDF file", ".pdf"),
    (b"\x1f\x8b", "packed by gzip", ".gz"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"{\\rtf", "RTF", ".rtf"),
    (b"\x89PNG\r\n", "a picture (PNG)", ".png"),
    (b"\xff\xd8\xff", "a picture (JPEG)", ".jpg"),
    (b"GIF8", "a picture (GIF)", ".gif"),
    (b"SQLite format 3\0", "an SQLite database", ".sqlite"),
    (b"Rar!\x1a\x07", "a RAR archive", ".rar"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", ".7z"),
    (b"\x7fELF", "a program", ""),
)
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PARTS = (
    ("word/document.xml", "a Word document", ".docx"),
    ("ppt/presentation.xml", "a PowerPoint presentation", ".pptx"),
    ("xl/workbook.xml", "an Excel workbook", ".xlsx"),
    ("META-INF/container.xml", "an EPUB book", ".epub"),
    ("content.xml", "an OpenDocument file", ".odt"),
)
_STREAMS = (
    ("WordDocument", "an old Word document", ".doc"),
    ("PowerPoint Document", "an old PowerPoint presentation", ".ppt"),
    ("Workbook", "an old Excel workbook", ".xls"),
    ("Book", "an old Excel workbook", ".xls"),
)
_HTML = re.compile(
    rb"\s*(<\?xml[^>]*>\s*)?(<!--(?:(?!-->).)*-->\s*)*<(!doctype\s+html|html)[\s>]",
    re.IGNORECASE | re.DOTALL,
)


def refuse_old(suffix: str, name: str) -> UnreadableError | None:
    """Why a file of an old or open kind of office document is not read, or None."""
    new = OLD.get(suffix)
    if new is None:
        return None
    return UnreadableError(
        f"{name}: {suffix} files are not read.",
        f"Open it and save it as {new}; many at once: `soffice --convert-to {new[1:]} *{suffix}`.",
    )


def require_kind(content: bytes, kind: str, name: str) -> None:
    """Raise if a file is of another kind than its ending says.

    Args:
        content: all of the file.
        kind: of READ_WHOLE.
        name: of the file.

    Raises:
        UnreadableError: it is; what it is, and what to do.
    """
    if not content.strip(b"\0 \t\r\n"):
        raise UnreadableError(f"{name} is empty.", "Remove it, or put there what belongs there.")
    if content.startswith(_OLE) and b"E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0" in content:
        raise UnreadableError(
            f"{name} is encrypted: it opens only with a password.", "Save it without one."
        )
    what, suffix = _look(content)
    wrong = (
        bool(what) and suffix != ".html"
        if kind in ("text", "markdown", "html")
        else suffix != f".{kind}"
    )
    if not wrong:
        return
    new = OLD.get(suffix)
    if new:
        advice = f"Open it and save it as {new}."
    elif suffix in READ_WHOLE or suffix in (*RECORDS, *ARCHIVES):
        advice = f"Give it the ending {suffix}."
    else:
        advice = f"Remove it, or put there the file that was meant. {KNOWN}"
    raise UnreadableError(
        f"{name} is {what or f'no .{kind} file'}, whatever its name says.", advice
    )


def _look(content: bytes) -> tuple[str, str]:
    """What a file is by its first bytes, and the ending of such files; "" if they don't say."""
    for beginning, what, suffix in _BEGINNINGS:
        if content.startswith(beginning):
            return what, suffix
    if content.startswith(_ZIP):
        return _in_zip(content)
    if content.startswith(_OLE):
        streams = (found for found in _STREAMS if found[0].encode("utf-16-le") in content)
        return next(streams, ("", "an old office document", ".doc"))[1:]
    if _HTML.match(content[:2000]):
        return "a page of HTML", ".html"
    # Some writers put a line before it, and readers look so far.
    return ("a PDF file", ".pdf") if b"%PDF-" in content[:1024] else ("", "")


def _in_zip(content: bytes) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
    # What zipfile raises of damaged files; NotImplementedError is of versions and methods that it doesn't know.
    except (zipfile.BadZipFile, OSError, ValueError, zlib.error, NotImplementedError):
        return "a damaged zip file", ""
    for part, what, suffix in _PARTS:
        if part in names:
            return what, suffix
    # Some writers name the main part otherwise; the folder is the same.
    for folder, what, suffix in (
        (part.partition("/")[0] + "/", what, s) for part, what, s in _PARTS[:3]
    ):
        if any(name.startswith(folder) for name in names):
            return what, suffix
    return "a zip archive", ".zip"
