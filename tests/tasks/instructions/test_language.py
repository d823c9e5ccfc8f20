"""The language of a text is told by its script, and within a script by words and letters."""

import pytest

from shoestring.tasks.instructions.language import is_in, languages

TEXTS = {
    "en": "The cat is on the table, and it does not want to leave for the rest of the day.",
    "es": "El gato está en la mesa y no quiere salir por el resto del día, pero es muy feliz.",
    "pt": "O gato está na mesa e não quer sair pelo resto do dia, mas é muito feliz com você.",
    "fr": "Le chat est sur la table et il ne veut pas partir pour le reste de la journée.",
    "de": "Die Katze ist auf dem Tisch und sie will nicht für den Rest des Tages gehen.",
    "it": "Il gatto è sul tavolo e non vuole uscire per il resto della giornata, ma è anche felice.",
    "pl": "Kot jest na stole i nie chce wyjść przez resztę dnia, ale jest bardzo szczęśliwy, że tak.",
    "vi": "Con mèo ở trên bàn và nó không muốn rời đi cho các ngày còn lại của tuần này.",
    "sw": "Paka yuko juu ya meza na hataki kuondoka kwa siku nzima, lakini ni mnyama mzuri sana.",
    "fi": "Kissa on pöydällä ja se ei halua lähteä, mutta hän on kuin kotonaan tämä päivä.",
    "ru": "Кошка сидит на столе, и она не хочет уходить до конца дня, но ей очень хорошо. Это мы, ты и вы.",
    "uk": "Кіт сидить на столі, і він не хоче йти до кінця дня, але йому дуже добре в її домі.",
    "bg": "Котката е на масата и не иска да излиза през целия ден, защото къщата ѝ е топла.",
    "ar": "القطة على الطاولة ولا تريد المغادرة لبقية اليوم.",
    "fa": "گربه روی میز است و نمی‌خواهد تا پایان روز برود، چون اینجا پر از چیزهای خوب است.",
    "ur": "بلی میز پر ہے اور وہ سارا دن یہاں سے نہیں جانا چاہتی، کیونکہ وہ بڑی خوش ہے۔",
    "hi": "बिल्ली मेज पर है और वह दिन भर कहीं नहीं जाना चाहती है, क्योंकि यह बहुत खुश है।",
    "mr": "मांजर टेबलवर आहे आणि ते दिवसभर जाणार नाही, कारण ते खूप आनंदी आहे.",
    "ne": "बिरालो टेबुलमा छ र यो दिनभर जान चाहँदैन, किनभने यो धेरै खुसी छ।",
    "bn": "বিড়ালটি টেবিলের উপর আছে।",
    "pa": "ਬਿੱਲੀ ਮੇਜ਼ ਤੇ ਹੈ।",
    "gu": "બિલાડી ટેબલ પર છે.",
    "ta": "பூனை மேசையில் உள்ளது.",
    "te": "పిల్లి బల్ల మీద ఉంది.",
    "kn": "ಬೆಕ್ಕು ಮೇಜಿನ ಮೇಲಿದೆ.",
    "ml": "പൂച്ച മേശപ്പുറത്താണ്.",
    "th": "แมวอยู่บนโต๊ะ",
    "ko": "고양이가 탁자 위에 있습니다.",
    "ja": "猫はテーブルの上にいます。",
    "zh": "猫在桌子上，它今天不想离开。",
    "he": "החתול על השולחן.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_text_is_in_its_language_and_in_few_others(code):
    assert code in languages(TEXTS[code])
    assert len(languages(TEXTS[code])) <= 2
    wrong = "en" if code != "en" else "fr"
    assert not is_in(TEXTS[code], wrong)


def test_a_text_without_words_may_be_in_any_language():
    assert is_in("42", "fr")
    assert is_in("", "th")
    assert is_in("Xylophon", "de")
    assert not is_in("Xylophon", "th")
