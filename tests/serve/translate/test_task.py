from shoestring.serve.translate.languages import source_language, target_language
from shoestring.serve.translate.task import Task, detection, instruction

TASK = Task(
    target=target_language("DE"),
    source=source_language("EN"),
    formality="less",
    glossary={"Artist": "Maler", "prize": "Gewinn"},
    context="A letter.",
    instructions=("Be brief.",),
)


def test_the_model_is_told_all_that_is_wished():
    words = instruction(TASK, "An ARTIST", num_lines=2, has_tags=True)
    for part in ("from English into German", "2 lines", "<t1>", "informally", "Artist = Maler", "Be brief."):
        assert part in words
    assert "context: A letter." in words
    assert "prize" not in words
    plain = instruction(Task(target=TASK.target), "x", num_lines=1, has_tags=False)
    assert not any(part in plain for part in ("lines", "<t1>", "from", "terms", "context"))
    assert "Improve" in instruction(
        Task(target=TASK.target, is_rephrasing=True), "x", num_lines=1, has_tags=False
    )
    assert "EN, DE" in detection("EN, DE")


def test_a_whole_text_may_be_an_entry_of_the_glossary():
    assert TASK.entry("artist") == "Maler"
    assert TASK.entry("artists") is None
    assert TASK.terms("the artists' prize") == {"Artist": "Maler", "prize": "Gewinn"}
