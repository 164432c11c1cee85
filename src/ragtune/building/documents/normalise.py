"""Text as it is typed: radicals that PDF files hold in the place of letters become these letters."""

from __future__ import annotations

import re
import unicodedata

_SUPPLEMENT = (
    "⺁厂 ⺂乛 ⺃乚 ⺄乙 ⺅亻 ⺆冂 ⺇𠘨 ⺈刀 ⺉刂 ⺊卜 ⺋㔾 ⺌小 ⺍小 ⺎兀 ⺏尣 ⺐尢 ⺑𡯂 ⺒巳 ⺓幺 "
    "⺔彑 ⺕彐 ⺖忄 ⺗心 ⺘扌 ⺙攵 ⺛旡 ⺜日 ⺝月 ⺞歺 ⺟母 ⺠民 ⺡氵 ⺢氺 ⺣灬 ⺤爫 ⺥爫 ⺦丬 ⺧牛 "
    "⺨犭 ⺩王 ⺪𤴔 ⺫目 ⺬示 ⺭礻 ⺮𥫗 ⺯糹 ⺰纟 ⺱罓 ⺲罒 ⺳㓁 ⺴冗 ⺵𦉫 ⺶羊 ⺷𦍌 ⺸𦍋 ⺹耂 ⺺肀 "
    "⺻聿 ⺼肉 ⺽𦥑 ⺾艹 ⺿艹 ⻀艹 ⻁虎 ⻂衤 ⻃覀 ⻄西 ⻅见 ⻆角 ⻇𧢲 ⻈讠 ⻉贝 ⻊𧾷 ⻋车 ⻌辶 ⻍辶 "
    "⻎辶 ⻏邑 ⻐钅 ⻑長 ⻒镸 ⻓长 ⻔门 ⻕𨸏 ⻖阝 ⻗雨 ⻘青 ⻙韦 ⻚页 ⻛风 ⻜飞 ⻝食 ⻞𩙿 ⻟飠 ⻠饣 "
    "⻡𩠐 ⻢马 ⻣骨 ⻤鬼 ⻥鱼 ⻦鸟 ⻧卤 ⻨麦 ⻩黄 ⻪黾 ⻫斉 ⻬齐 ⻭歯 ⻮齿 ⻯竜 ⻰龙 ⻱龜 ⻲亀 ⻳龟"
)  # fmt: skip
"""Unicode's CJK Radicals Supplement, each with its Equivalent_Unified_Ideograph. NFKC knows two of them."""

_JAPANESE = {"⼾": "戸", "⿊": "黒"}
"""The two by which Japanese fonts (Adobe-Japan1: one glyph for both) mean another letter than NFKC's 戶, 黑.
A page may be too short to tell Chinese from Japanese; Chinese files with these two were not met."""

_RADICALS = str.maketrans(
    {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0x2F00, 0x2FD6)}
    | {pair[0]: pair[1] for pair in _SUPPLEMENT.split()}
    | _JAPANESE
)
_RADICAL = re.compile("[\u2e80-\u2fd5]")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def normalise(text: str) -> str:
    """A text in which no radical stands for a letter, each line ends in LF, and each character can be written.

    Nothing else is changed: no width, no form, no blank. To be called before a place in the text is noted,
    because CR LF becomes one character.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _RADICAL.search(text):
        text = text.translate(_RADICALS)
    return _NO_TEXT.sub("\ufffd", text)
