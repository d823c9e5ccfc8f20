"""A backend without a model that translates: it knows a few phrases, and says all others again."""

import re

from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.reply import Delta, Usage, Work

BEAM = {
    "DE": "Protonenstrahl",
    "EN": "proton beam",
    "ES": "haz de protones",
    "FR": "faisceau de protons",
    "JA": "陽子ビーム",
}
"""One phrase in several languages."""
NAMES = {"German": "DE", "English": "EN", "Spanish": "ES", "French": "FR", "Japanese": "JA"}


class Phrasebook:
    """Answers the translator's requests; `spoil` changes what it says."""

    def __init__(self, max_model_len=8000):
        self.card = ModelCard(id="phrasebook", max_model_len=max_model_len, created_s=0)
        self.is_healthy = True
        self.requests = []
        self.spoil = lambda text, turns: text

    def start(self):
        pass

    async def close(self):
        pass

    async def prepare(self, request):
        self.requests.append(request)

        async def start():
            return self._deltas(self._answer(request))

        return Work(model="phrasebook", prompt_tokens=10, max_tokens=20, start=start)

    async def _deltas(self, text):
        usage = Usage(prompt_tokens=10, completion_tokens=2)
        half = len(text) // 2
        for part in (text[:half], text[half:]):
            yield Delta(text=part, usage=usage)
        yield Delta(finish_reason="stop", usage=usage)

    def _answer(self, request):
        system, first, *others = request.messages
        text = first["content"]
        if system["content"].startswith("Name the language"):
            return next((code for code, phrase in BEAM.items() if phrase in text), "EN")
        target = re.search(r" into (\w+)", system["content"])
        code = NAMES.get(target[1]) if target else None
        for phrase in BEAM.values() if code else ():
            text = text.replace(phrase, BEAM[code])
        return self.spoil(text, len(others))
