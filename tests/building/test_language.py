"""Which language texts are in: found, or left open; never taken for English because nothing was found."""

from __future__ import annotations

import pytest

from ragtune.building.language import UNKNOWN, find_language, find_languages

# Article 1 (of the languages with long words, more) of the Universal Declaration of Human Rights.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "da": "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med fornuft og samvittighed, og de bør handle mod hverandre i en broderskabets ånd. Ingen må udsættes for vilkårlig indblanding af nogen art efter denne erklæring.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och bör handla gentemot varandra i en anda av broderskap.",
    "no": "Alle mennesker er født frie og med samme menneskeverd og menneskerettigheter. De er utstyrt med fornuft og samvittighet og bør handle mot hverandre i brorskapets ånd. Ingen må utsettes for vilkårlig innblanding av noen art etter denne erklæring.",
    "fi": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä. Ketään ei saa pitää orjana tai orjuutettuna, ja kaikki orjuuden ja orjakaupan muodot on kiellettävä.",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek.",
    "ro": "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Ele sunt înzestrate cu rațiune și conștiință și trebuie să se comporte unele față de altele în spiritul fraternității.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler. Hiç kimse kölelik veya kulluk altında bulundurulamaz; kölelik ve köle ticareti her türlü şekliyle yasaktır.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا بروح الإخاء.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства. Каждый человек должен обладать всеми правами и всеми свободами, провозглашенными настоящей Декларацией, без какого бы то ни было различия. Это общий язык.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση.",
    "he": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "ca": "Tots els éssers humans neixen lliures i iguals en dignitat i en drets. Són dotats de raó i de consciència, i han de comportar-se fraternalment els uns amb els altres.",
    "id": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka dikaruniai akal dan hati nurani dan hendaknya bergaul satu sama lain dalam semangat persaudaraan.",
    "la": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi.",
}
OTHERS = {
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají spolu jednat v duchu bratrství.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình anh em.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства.",
    "bg": "Всички хора се раждат свободни и равни по достойнство и права. Те са надарени с разум и съвест и следва да се отнасят помежду си в дух на братство. Всеки човек има право на всички права и свободи, провъзгласени в тази Декларация, без никакви различия.",
    "fa": "تمام افراد بشر آزاد به دنیا می‌آیند و از لحاظ حیثیت و حقوق با هم برابرند. همه دارای عقل و وجدان هستند.",
    "names": "Alice Bob Carol Dave Eve Mallory Trent Peggy Victor Walter Oscar Grace Heidi Ivan Judy Niaj Olivia Pat Rupert Sybil Ted Uma Vera",
}


@pytest.mark.parametrize("language", list(ARTICLE))
def test_a_language_is_found_by_its_script_or_its_words(language: str) -> None:
    assert find_language([ARTICLE[language]]) == language


@pytest.mark.parametrize("language", list(OTHERS))
def test_what_is_not_known_is_not_taken_for_english_or_a_neighbour(language: str) -> None:
    assert find_language([OTHERS[language]]) == UNKNOWN


def test_languages_of_several_are_said_with_their_shares() -> None:
    found = find_languages([ARTICLE["en"]] * 3 + [ARTICLE["de"]])
    assert found.main == "en"
    assert found.in_words() == "en (75%), de (25%)"


def test_japanese_prevails_where_a_tenth_is_japanese() -> None:
    """An index for Japanese finds English words, an index for English no Japanese ones."""
    assert find_language([ARTICLE["en"]] * 3 + [ARTICLE["ja"]]) == "ja"
    assert find_language([ARTICLE["en"]] * 30 + [ARTICLE["ja"]]) == "en"


def test_none_prevails_of_many() -> None:
    found = find_languages([ARTICLE[code] for code in ("en", "de", "fr", "es")])
    assert found.main == UNKNOWN
    assert set(found.shares) == {"en", "de", "fr", "es"}


@pytest.mark.parametrize("texts", [[], [""], ["1234 5678", "…"], ["x"], ["OK"]])
def test_without_words_there_is_no_language(texts: list[str]) -> None:
    assert find_language(texts) == UNKNOWN
    assert find_languages(texts).in_words()


def test_short_texts_are_judged_together() -> None:
    words = ARTICLE["en"].split()
    assert find_language([" ".join(words[i : i + 5]) for i in range(0, len(words), 5)]) == "en"


def test_japanese_with_many_foreign_names_is_japanese() -> None:
    assert find_language(["TCP/IPとHTTPはInternet Protocol Suiteの一部である。"]) == "ja"


def test_only_a_sample_is_read_and_the_answer_is_the_same() -> None:
    def endless():
        while True:
            yield ARTICLE["ja"]

    assert find_languages(endless()) == find_languages(endless())
    assert find_language(["あ" * 10_000_000]) == "ja"


def test_the_shipped_samples() -> None:
    from ragtune.data.read import read_examples

    for name, language in (("jaquad.dev", "ja"), ("squad2.dev", "en")):
        texts = [p.text for e in read_examples(f"sample:{name}", "") for p in e.passages]
        assert find_language(texts) == language
        assert find_language([e.question for e in read_examples(f"sample:{name}", "")]) == language
