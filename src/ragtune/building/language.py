"""Which language texts are in: by the scripts that they are written in, and by their commonest words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice

UNKNOWN = "und"
"""Undetermined, as ISO 639 has it: a language that isn't known here, or several of which none prevails."""
_TEXTS, _CHARACTERS = 1000, 2000
"""So many texts are looked at, and so much of each."""

_SCRIPTS = {
    "ja": "ぁ-ゖァ-ヺｦ-ﾝ",
    "ko": "\u1100-\u11ff\uac00-\ud7a3",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "ru": "\u0400-\u04ff",
    "ar": "\u0620-\u064a\u066e-\u06d3",
    "el": "\u0370-\u03ff",
    "he": "\u05d0-\u05ea",
    "hi": "\u0900-\u0963",
    "bn": "\u0980-\u09e3",
    "ta": "\u0b80-\u0bef",
    "te": "\u0c00-\u0c63",
    "th": "\u0e01-\u0e4e",
    "ka": "\u10a0-\u10ff",
    "hy": "\u0530-\u058f",
    "latin": "a-zA-ZÀ-ÖØ-öø-\u024f\u1e00-\u1eff",
}
"""Letters, and the language that is mostly written in them."""
_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}

_OF_OTHERS = {
    "ru": frozenset("іїєґўјљњћђџѓќәғқңөұүһ"),
    "ar": frozenset("پچژگکیٹڈڑےھ"),
    "latin": frozenset(
        "ąćęłńśźżčďěňřšťůžđāēģīķļņūėįųơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ"
    ),
}
"""Letters that the languages known here don't have: of Ukrainian, Persian, Polish …"""
_RUSSIAN = frozenset("ыэ")
"""Letters that every longer Russian text has, and Bulgarian none."""
_FOREIGN = 0.01
"""Share of such letters from which on a text is in another language; names have a few."""

_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to in is that it was for on are as with his they at be this have from or by not but "
        "what all were when we there can an your which their said if will each about how up out them then she",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
        "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben",
        "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont "
        "la avec son cette ont ses mais comme ou aux été elle nous leur vous d l c qu n s être",
        "es": "de la que el en y a los del se las por un para con no una su al lo como más pero sus le ya o "
        "este sí porque esta entre cuando muy sin sobre también hasta hay donde desde fue es son",
        "it": "di e il la che in a per è un del non si le con una i da sono della dei al come nel alla più ma "
        "anche gli o dal questo delle nella ha lo se ed ai essere stato loro degli era sul",
        "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das "
        "tem à seu sua ou ser quando muito há nos já está também só pelo pela até isso são foram",
        "nl": "de en van het een in is dat op te zijn met voor niet aan er om ook als dan maar bij uit nog "
        "naar heeft hij ze wordt door over werd deze die worden tot wel je was geen al meer hun",
        "da": "og i at det er en til på som med af for den der de ikke et har han var fra kan jeg vil også "
        "efter blev sig ved hun om eller mere hvor nu over skal men meget være bliver nogle blevet mellem",
        "sv": "och i att det som en på är av för med den till inte har de ett om var han från jag vi kan men "
        "så ska eller när under vid också hon efter där finns blev ut sin detta mycket alla mot bara sig",
        "no": "og i det er på som en til å av for at med de den ikke et har han fra var kan jeg vil også om "
        "etter ble seg ved hun eller mer hvor nå over skal men mye være blir noen blitt mellom ut",
        "fi": "ja on ei että se hän oli mutta myös ovat kun tai niin kuin sen mukaan ole jos nyt vain sekä jo "
        "ollut voi olla joka mitä noin hänen sitä tämä jotka vuonna kanssa joka tämän niiden siitä",
        "hu": "a az és hogy nem is egy van meg ez csak de már volt mint még vagy ha el azt kell lehet minden "
        "ki mert után majd által nagy ezt aki ami amely szerint között így sem pedig volt ennek",
        "ro": "de și în a la cu pe un o care din nu să se mai pentru este sunt că au fost ca sau prin după lui "
        "ale dar fi cel într ar al între lor cum doar acest această fost le era unei ei",
        "tr": "ve bir bu da için de ile çok daha olarak gibi en ne olan kadar sonra o var ise değil ama her "
        "olduğu diye yeni ya tarafından ancak veya ki mi göre zaman şey olur olduğunu büyük içinde arasında",
        "ca": "de la i el que a en les els del per un una amb és no es al dels va com més seva als seu són o "
        "però ha aquest aquesta també fou fins entre molt on qual seus",
        "la": "et in est ut ad non cum sed qui quod quis nisi sit ex esse si per ab aut autem",
        "id": "yang dan di dengan untuk pada dari ini dalam adalah itu tidak ke sebagai oleh ia juga atau akan "
        "mereka telah dapat ada bahwa saat setelah tahun karena menjadi",
    }.items()
}
"""Each list holds the words that nearly every text of some length has; those of languages that share many
stand here so that one isn't taken for the other."""
_LANGUAGES_OF = {
    word: [language for language, words in _WORDS.items() if word in words]
    for word in frozenset[str]().union(*_WORDS.values())
}
_WORD = re.compile(r"[^\W\d_]+")
_COMMON, _AHEAD = 0.08, 1.1
"""Share of the words of a text that must be among a language's, and by what factor more than another's."""
_DIFFERENT = 3
"""So many of a language's words must be there."""
_FEW = 20
"""Texts of fewer words are judged together, as one."""
UNPARTED = ("ja", "zh", "ko", "th")
"""Of the languages that are found: without blanks between words, or with words that take many endings."""
_MOST = 0.4
_ENOUGH = 0.1
"""Share from which on a language prevails. For those that don't part words less is enough: what finds them
finds Latin words, too, but no other index finds anything in them."""
_KANA = 0.05
"""Kana to a Han character, from which on a text is Japanese."""
_LONG = 200
"""Letters."""


@dataclass(frozen=True, slots=True)
class Languages:
    """What was found."""

    main: str
    """UNKNOWN where none prevails."""
    shares: dict[str, float]
    """Of the letters that were looked at, by language; the largest first."""

    def in_words(self) -> str:
        """Such as `ja (82 %), en (18 %)`."""
        named = [f"{_name(code)} ({share:.0%})" for code, share in self.shares.items()]
        return ", ".join(named[:3]) or "no letters"


def _name(code: str) -> str:
    return "not known" if code == UNKNOWN else code


def find_language(texts: Iterable[str]) -> str:
    """The language of texts (ja, en, de, …), or UNKNOWN; the same for the same texts."""
    return find_languages(texts).main


def find_languages(texts: Iterable[str]) -> Languages:
    """The languages of texts, by how much of them is in each.

    The first 2,000 characters of the first 1,000 texts are looked at. UNKNOWN is no language: nothing is
    taken for English because nothing else was found.
    """
    found: Counter[str] = Counter()
    short: list[str] = []
    for text in islice(texts, _TEXTS):
        start = text[:_CHARACTERS].lower()
        judged = _judged(start, _FEW)
        if judged is None:
            short.append(start)
        else:
            found += judged
    found += _judged(" ".join(short), 0) or Counter()
    shares = {code: count / found.total() for code, count in found.most_common()}
    return Languages(_main(shares), shares)


def _main(shares: dict[str, float]) -> str:
    unparted = (code for code in shares if code in UNPARTED and shares[code] >= _ENOUGH)
    most = (code for code in shares if shares[code] >= _MOST)
    return next(unparted, None) or next(most, UNKNOWN)


@cache
def _script(sign: str) -> str:
    """The script of a letter; "" of all other signs."""
    return next((name for name, of in _LETTERS.items() if of.match(sign)), "")


def _judged(text: str, few: int) -> Counter[str] | None:
    """The language of a text in small letters, with the number of its letters.

    None where fewer words than `few` would have to tell it.
    """
    signs = Counter(text)
    letters: Counter[str] = Counter()
    for sign, count in signs.items():
        letters[_script(sign)] += count
    del letters[""]
    total = letters.total()
    if not total:
        return Counter()
    kana, han = letters["ja"], letters["zh"]
    if kana + han >= _ENOUGH * total and kana + han >= letters["ko"]:
        return Counter({"ja" if kana >= _KANA * han else "zh": total})
    script = letters.most_common(1)[0][0]
    if _is_foreign(script, signs, letters[script]):
        return Counter({UNKNOWN: total})
    if script != "latin":
        return Counter({script: total})
    words = Counter(_WORD.findall(text))
    return None if words.total() < few else Counter({_by_words(words): total})


def _is_foreign(script: str, signs: Counter[str], letters: int) -> bool:
    """Whether a text is in a script of a language known here, but in another language."""
    others = sum(signs[sign] for sign in _OF_OTHERS.get(script, ()))
    no_russian = script == "ru" and letters >= _LONG and signs.keys().isdisjoint(_RUSSIAN)
    return others > _FOREIGN * letters or no_russian


def _by_words(words: Counter[str]) -> str:
    common, different = Counter[str](), Counter[str]()
    for word, count in words.items():
        for language in _LANGUAGES_OF.get(word, ()):
            common[language] += count
            different[language] += 1
    (best, most), (_, second) = [*common.most_common(2), ("", 0), ("", 0)][:2]
    sure = most >= _COMMON * words.total() and most >= _AHEAD * second
    return best if sure and different[best] >= _DIFFERENT else UNKNOWN
