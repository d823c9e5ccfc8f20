"""Teachers, the sources of replies: a model in this process, or (remote/collector.py) one on a server."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from shoestring.engine.llm import LLM
from shoestring.engine.request import Request, RequestOutput, SamplingParams, derived_seed
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.remote.collector import ChatReply, ChatRequest
from shoestring.tokenizer.overlong import OVERLONG, Overlong, PromptMaker
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.tokenizer.questions import PromptStyle, Question, QuestionPrompt, last_text, prompt_ids
from shoestring.tokenizer.special import THINK
from shoestring.tokenizer.thinking import ends_in_thinking

SETTINGS = EngineSettings(max_num_seqs=256, speculation="off")
"""The engine's for collecting: with so many sequences at once a draft costs more than it saves."""
AHEAD = 2
"""Replies requested at a time, as a multiple of the sequences that the engine runs at once."""


class Teacher(Protocol):
    """A source of replies: LocalTeacher, or remote.collector.ChatCollector."""

    name: str
    """The model and its place, for the report."""
    total_cost: float
    """Money until now; a collection that is resumed sets it."""

    def replies(self, requests: Iterable[ChatRequest]) -> Generator[ChatReply | None, None, None]:
        """Replies as they come, and None now and then, so that the caller may stop; it may be closed."""
        ...


class LocalTeacher:
    """A model that this process runs; the same seed gives the same replies, however often interrupted."""

    def __init__(
        self,
        llm: LLM,
        name: str,
        *,
        params: SamplingParams,
        thinking: bool | None = None,
        form: str = "",
        overlong: Overlong = "filter",
    ) -> None:
        """`params` are for sampling, with the collection's seed; `thinking` is for the chat template.

        A `form` with {question} in it takes the template's place: see PromptStyle.format. `overlong` is the
        policy for prompts that do not fit into the model's context.
        """
        self.llm, self.name, self.total_cost = llm, name, 0.0
        self._params, self._form = params, form
        kwargs = None if thinking is None else {"thinking": thinking}
        self._options = ChatOptions(chat_template_kwargs=kwargs)
        self._prompts = PromptMaker(
            make=self._make_prompt,
            tokenizer=llm.get_tokenizer(),
            context=llm.max_model_len,
            max_tokens=params.max_tokens or llm.max_model_len,
            overlong=overlong,
            setting="collect.overlong",
        )

    def replies(self, requests: Iterable[ChatRequest]) -> Generator[ChatReply | None, None, None]:
        """See Teacher.replies; a request whose prompt does not fit fails alone.

        Raises ConfigError for such a prompt where the policy is "error".
        """
        dispatcher, waiting = self.llm.dispatcher, iter(requests)
        most_open = AHEAD * self.llm.engine.settings.max_num_seqs
        open_requests: dict[str, ChatRequest] = {}
        outputs: deque[RequestOutput] = deque()
        try:
            while True:
                while sum(r.n for r in open_requests.values()) < most_open and (chat := next(waiting, None)):
                    prompt = self._prompts.prompt(chat.messages, chat.id)
                    if prompt is None:
                        yield ChatReply(id=chat.id, fault=OVERLONG)
                        continue
                    request = self._request(chat, prompt)
                    try:
                        dispatcher.add([request], outputs.append)
                    except ConfigError as error:
                        yield ChatReply(id=chat.id, fault=str(error))
                        continue
                    open_requests[request.request_id] = chat
                if not open_requests:
                    return
                dispatcher.step()
                while outputs:
                    output = outputs.popleft()
                    yield from self._replies(open_requests.pop(output.request_id), output)
                yield None
        finally:
            self._prompts.warn()
            dispatcher.abort(open_requests)

    def _request(self, chat: ChatRequest, prompt: QuestionPrompt) -> Request:
        assert self._params.seed is not None
        seed = derived_seed(self._params.seed, chat.id) + chat.start  # reply k draws with seed + k
        params = replace(self._params, n=chat.n, seed=seed, output_kind="final_only")
        return Request(request_id=f"collect:{chat.id}", prompt_token_ids=prompt.ids, sampling_params=params)

    def _make_prompt(self, messages: Question) -> QuestionPrompt:
        assert not isinstance(messages, str)
        tokenizer = self.llm.get_tokenizer()
        if self._form:
            return prompt_ids(last_text(messages), tokenizer, None, PromptStyle(format=self._form))
        prompt = read_chat(messages, tokenizer, self.llm.template, self._options)
        return QuestionPrompt(prompt.token_ids, opening="")

    def _replies(self, chat: ChatRequest, output: RequestOutput) -> Iterator[ChatReply]:
        """One reply for each completion; thinking that the prompt opened is part of it."""
        in_thinking = ends_in_thinking(output.prompt_token_ids, self.llm.get_tokenizer())
        for completion in output.outputs:
            yield ChatReply(
                id=chat.id,
                text=(THINK if in_thinking else "") + completion.text,
                finish_reason=completion.finish_reason or "",
                tokens=len(completion.token_ids),
            )
