"""Who answers: a model in this process, or (remote/client.py) one behind a server; both look the same."""

import hashlib
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Protocol

from shoestring.engine.llm import LLM
from shoestring.engine.request import Request, RequestOutput, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.remote.client import Answer, Ask
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.tokenizer.questions import PromptStyle, prompt_ids
from shoestring.tokenizer.special import THINK
from shoestring.tokenizer.thinking import ends_in_thinking

SETTINGS = EngineSettings(max_num_seqs=256, speculation="off")
"""Of an engine that only answers many questions: with so many at once a draft costs more than it saves."""
AHEAD = 2
"""Answers asked for at a time, as a multiple of the sequences that the engine runs at once."""


class Teacher(Protocol):
    """A source of answers; engine.remote.Remote is one."""

    name: str
    """For provenance: which model, and from where."""
    spent: float
    """Money until now; whoever resumes a collection sets it."""

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """Answers as they come, and None now and then, so that the caller can look around; may be closed."""
        ...


class LocalTeacher:
    """A model that this process runs; the same seed gives the same answers, however often interrupted."""

    def __init__(
        self, llm: LLM, name: str, *, params: SamplingParams, thinking: bool | None = None, form: str = ""
    ) -> None:
        """`params` says how to sample (its seed is the collection's); `thinking` is for the chat template.

        A `form` with {question} in it takes the template's place: see PromptStyle.format.
        """
        self._form = form
        self.llm, self.name, self.spent = llm, name, 0.0
        self._params, self._options = (
            params,
            ChatOptions(chat_template_kwargs=None if thinking is None else {"thinking": thinking}),
        )

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """See Teacher.answers; a problem whose prompt does not fit fails alone."""
        dispatcher, waiting = self.llm.dispatcher, iter(asks)
        room = AHEAD * self.llm.engine.settings.max_num_seqs
        open_asks: dict[str, Ask] = {}
        outputs: deque[RequestOutput] = deque()
        try:
            while True:
                while sum(ask.n for ask in open_asks.values()) < room and (ask := next(waiting, None)):
                    try:
                        request = self._request(ask)
                        dispatcher.add([request], outputs.append)
                    except ConfigError as error:
                        yield Answer(id=ask.id, fault=str(error))
                        continue
                    open_asks[request.request_id] = ask
                if not open_asks:
                    return
                dispatcher.step()
                while outputs:
                    output = outputs.popleft()
                    yield from self._answers(open_asks.pop(output.request_id), output)
                yield None
        finally:
            dispatcher.abort(open_asks)

    def _request(self, ask: Ask) -> Request:
        ids = self._prompt(ask)
        digest = hashlib.blake2b(f"{self._params.seed}:{ask.id}".encode(), digest_size=7).digest()
        seed = int.from_bytes(digest, "little") + ask.start  # answer k of an ask draws with seed + k
        params = replace(self._params, n=ask.n, seed=seed, output_kind="final_only")
        return Request(request_id=f"collect:{ask.id}", prompt_token_ids=ids, sampling_params=params)

    def _prompt(self, ask: Ask) -> tuple[int, ...]:
        tokenizer = self.llm.get_tokenizer()
        if self._form:
            question = str(ask.messages[-1]["content"])
            return prompt_ids(question, tokenizer, None, PromptStyle(format=self._form)).ids
        return read_chat(ask.messages, tokenizer, self.llm.template, self._options).token_ids

    def _answers(self, ask: Ask, output: RequestOutput) -> Iterable[Answer]:
        in_thinking = ends_in_thinking(output.prompt_token_ids, self.llm.get_tokenizer())
        for completion in output.outputs:
            yield Answer(
                id=ask.id,
                text=(THINK if in_thinking else "") + completion.text,
                finish_reason=completion.finish_reason or "",
                tokens=len(completion.token_ids),
            )
