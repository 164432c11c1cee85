"""What strangers' texts could try on a terminal or a page; used wherever such texts are shown."""

from __future__ import annotations

PAYLOADS = {
    "clear": "\x1b[2J\x1b[H",
    "colour": "\x1b[38;5;123mred",
    "up": "\x1b[99A\x1b[2K",
    "title": "\x1b]0;owned\x07",
    "title, ST": "\x1b]2;owned\x1b\\",
    "link": "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "picture": "\x1b]1337;File=inline=1:AAAA\x07",
    "sixel": "\x1bPq#0;2;0;0;0\x1b\\",
    "report": "\x1b[6n\x1b[c\x1b[>c",
    "reset": "\x1bc",
    "charset": "\x1b(0qqq\x0e",
    "alternate screen": "\x1b[?1049h",
    "mouse": "\x1b[?1003h",
    "C1 CSI": "\x9b2J",
    "C1 OSC": "\x9d0;owned\x9c",
    "C1 NEL": "a\x85b",
    "bell": "\x07\x07",
    "backspace": "good\x08\x08\x08\x08evil",
    "return": "good\revil",
    "form feed": "a\x0c\x0bb",
    "NUL and DEL": "a\x00\x7f\x1ab",
    "override": "user\u202etxt.exe\u202c",
    "embedding": "\u202a\u202bx\u202c\u202d",
    "isolates": "\u2066\u2067\u2068x\u2069",
    "marks": "a\u200e\u200f\u061cb",
    "zero width": "pass\u200bword\u200c\u200d\u2060\ufeff",
    "tags": "hi\U000e0001\U000e0069\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065\U000e007f",
    "selectors": "x\ufe01\ufe02\ufe03\U000e0100\U000e0101",
    "separators": "one\u2028two\u2029three",
    "interlinear": "\ufff9base\ufffaabove\ufffb",
    "fillers": "\u115f\u1160\u3164\uffa0\u034f\u17b4\u180e\xad",
    "private": "\ue000\uf8ff\U000f0001",
    "unassigned": "\u0378\uffff\U0001fffe",
    "invisible operators": "f\u2061x\u2062y\u2063\u2064\u206a",
    "markup": "[/red] [link=https://evil.example]x[/link] [bold]b[/] [reverse]r",
    "forged line": "x\nError: all is lost\n! a warning",
    "emoji code": ":skull: file:100:",
}  # fmt: skip
"""By what they do. The last three hold no odd character: what they hold must be shown as it is."""

WRITING = (
    "東京は、日本の首都である。「百科」・ＡＢＣ　全角 ｶﾅ",
    "葛\U000e0100飾区",
    "👩‍🔬 👨‍👩‍👧‍👦 ❤️ 🏳️‍🌈 👍🏽 👩🏽‍🚀 🇯🇵 1️⃣",
    "e\u0301 \u304b\u3099 ñ Z\u0323\u0307",
    "می‌خواهم العربية عِبْרִית",
    "क्‍ष മലയാളം",
    "a\u00a0b\u2009c “quoted” – … ⏎ ━│ −1 ✓",
    "\ttab\nline",
)
"""What is shown as it is."""
