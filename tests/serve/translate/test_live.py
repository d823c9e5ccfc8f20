import asyncio

from shoestring.serve.caller import LOCAL
from shoestring.serve.service import Service
from shoestring.serve.translate.live import Live
from shoestring.serve.translate.request import TranslationFields
from shoestring.serve.translate.translation import Translation
from tests.serve.phrasebook import Phrasebook

FIELDS = TranslationFields(source_lang="EN", target_lang="DE")


def collected(pause_s):
    """The events of a text in two pieces, for a reader that takes its time."""

    async def collect():
        translation = Translation(Service({"phrasebook": Phrasebook(400)}), None)
        events = []
        async for event in Live(translation, LOCAL, "A proton beam is long.\n" * 4).events(FIELDS):
            events.append(event)
            await asyncio.sleep(pause_s)
        return events

    return asyncio.run(collect())


def test_a_slow_reader_gets_fewer_events_and_the_same_text():
    fast, slow = collected(0), collected(0.05)
    for events in (fast, slow):
        texts = {event["piece"]: event["text"] for event in events if event.get("is_final")}
        assert "".join(texts[number] for number in sorted(texts)) == "A Protonenstrahl is long.\n" * 4
        assert len(texts) == events[0]["pieces"] > 1
    assert len(slow) < len(fast)


def test_a_reader_that_leaves_ends_the_work():
    async def leave():
        book = Phrasebook()
        events = Live(Translation(Service({"phrasebook": book}), None), LOCAL, "a b").events(FIELDS)
        await anext(events)
        await events.aclose()
        return len(asyncio.all_tasks())

    assert asyncio.run(leave()) == 1
