"""Each of the 25 instructions: texts that follow it, and texts that come close."""

import time

import pytest

from shoestring.tasks.instructions.checks import CHECKS, check_of, follows, follows_loosely

EN = "The cat is on the table and it does not want to leave."
CASES = {
    "keywords:existence": ({"keywords": ["cat", "Table"]}, [EN], ["the cat", "", "c a t table"]),
    "keywords:frequency": (
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["cat Cat", "a catcat"],
        ["cat", "dog"],
    ),
    "keywords:forbidden_words": (
        {"forbidden_words": ["cat", "dog"]},
        ["category", "a bird"],
        ["a Cat.", "dog!"],
    ),
    "keywords:letter_frequency": (
        {"letter": "e", "let_frequency": 3, "let_relation": "less than"},
        ["e E", "x"],
        ["eEe", "eeee"],
    ),
    "language:response_language": (
        {"language": "de"},
        ["Das ist nicht die Katze und der Hund."],
        [EN, "это не то"],
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "at least"},
        ["one two three", "don't go"],
        ["one two", "one-two"],
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 2, "relation": "less than"},
        ["One.", "Dr. Smith is in."],
        ["One. Two.", "One? Two! Three."],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["a\n***\nb", "a *** b", "***\na\n***\nb\n***"],
        ["a", "a\n\nb", "a\n***\n***\nb", "a *** b *** c"],
    ),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First.\n\nThen it ends.", "a\n\n\n\nthen, b", 'a\n\n"Then" b'],
        ["Then.\n\nFirst.", "Then.", "a\n\nb\n\nThen", "a\n\nThenceforth"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.S."},
        ["Hi.\nP.S. bye", "p. s. bye", "Hi. P.S. bye"],
        ["PS bye", "Hi"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["[name] [address]", "[a][b][c]"],
        ["[a", "[a] b]"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["* a\n* b", "- a\n- b\nend", "  * a\n  - b"],
        ["* a", "* a\n* b\n* c", "a * b * c", "**a**\n**b**"],
    ),
    "detectable_format:title": (
        {},
        ["<<A title>>\ntext", "x <<y>> z"],
        ["<A>", "<<>>", "<<a\nb>>", "<< >>"],
    ),
    "detectable_format:constrained_response": (
        {},
        ["My answer is yes.", "Well. My answer is maybe. Sorry."],
        ["yes", "my answer is yes.", "My answer is yes"],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and *b*", "**a** **b**"],
        ["*a*", "**a**", "* a\n* b", "** ** **"],
    ),
    "detectable_format:multiple_sections": (
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 a SECTION 2 b SECTION 3 c"],
        ["SECTION 1\na", "Section 1 a Section 2", "SECTION a SECTION b"],
    ),
    "detectable_format:json_format": (
        {},
        ['{"a": 1}', '```json\n{"a": [1, 2]}\n```', "[1]", "```\n{}\n```"],
        ["{'a': 1}", 'Here: {"a": 1}', "{", "text"],
    ),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Say it."},
        ["Say it. OK", " say IT.\n\nOK"],
        ["OK. Say it.", "Say"],
    ),
    "combination:two_responses": (
        {},
        ["a\n******\nb", "a******b"],
        ["a", "a******a", "a***b"],
    ),
    "change_case:english_capital": (
        {},
        [EN.upper(), "HELLO"],
        [EN, "HELLO a", "DAS IST NICHT DER HUND"],
    ),
    "change_case:english_lowercase": (
        {},
        [EN.lower(), "hi!"],
        [EN, "hello A", "das ist nicht der hund"],
    ),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA", "I AM"],
        ["NASA", "Nasa Esa", ""],
    ),
    "startend:end_checker": (
        {"end_phrase": "That is all."},
        ["Well. That is all.", 'x "That is all."', "THAT IS ALL.\n"],
        ["That is all. OK", "That is all"],
    ),
    "startend:quotation": ({}, ['"Hello."', ' "a" and "b" \n'], ["Hello", '"Hello', "'Hello'", '"']),
    "punctuation:no_comma": ({}, ["no marks here.", "a; b"], ["a, b", ","]),
}


def test_there_are_25_instructions_and_each_has_a_case():
    assert len(CHECKS) == 25
    assert CASES.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_is_checked(name):
    arguments, right, wrong = CASES[name]
    check = check_of(name, arguments)
    assert [text for text in right if not follows(text, check)] == []
    assert [text for text in wrong if follows(text, check)] == []


def test_an_empty_text_follows_nothing():
    assert not follows(" \n", check_of("punctuation:no_comma", {}))


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("startend:quotation", {}, 'Sure, here it is:\n"Hello."'),
        ("startend:quotation", {}, '"Hello."\nI hope that helps!'),
        ("startend:quotation", {}, '**"Hello."**'),
        ("punctuation:no_comma", {}, "Yes, of course:\nno marks here"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "**Say it.** OK"),
    ],
)
def test_the_loose_check_forgives_the_first_and_last_line_and_stars(name, arguments, text):
    check = check_of(name, arguments)
    assert not follows(text, check)
    assert follows_loosely(text, check)
    assert not follows_loosely("a, b, c", check)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("keywords:unknown", {}, "no instruction is called"),
        ("keywords:existence", {}, "keywords"),
        ("keywords:existence", {"keyword": "x"}, "keyword"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "more than"}, "more than"),
        ("length_constraints:number_words", {"num_words": "x", "relation": "at least"}, "number_words"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, words):
    with pytest.raises(ValueError, match=words):
        check_of(name, arguments)


@pytest.mark.parametrize(
    "unit", [".", "*", "[", "<<", '"', "\n", " ", "a ", "{", "-\n", "SECTION ", "P.S.", "******", "A"]
)
def test_hostile_texts_are_checked_in_seconds(unit):
    text = unit * (300_000 // len(unit))
    start = time.process_time()
    for name, (arguments, _, _) in CASES.items():
        check = check_of(name, arguments)
        follows(text, check), follows_loosely(text, check)
    assert time.process_time() - start < 20
