"""The engine: requests in, and each step schedules, runs, samples and commits a batch of their sequences."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from shoestring.engine.adaptive import AdaptiveSpeculation, Speculation
from shoestring.engine.cohort.cohort import Cohort, Leaving
from shoestring.engine.constrain.engine_grammars import Grammars
from shoestring.engine.draw import SampledTokens
from shoestring.engine.output import CompletionState, RequestState
from shoestring.engine.paged_cache import CachePlan, PagedCache, cache_specs, plan_cache
from shoestring.engine.pages import PagePool
from shoestring.engine.request import (
    Request,
    RequestOutput,
    check_request,
)
from shoestring.engine.routed_experts import RoutedExperts
from shoestring.engine.runner import Runner, StepResult
from shoestring.engine.sampler import Sampler
from shoestring.engine.scheduler import Batch, ScheduledSequence, Scheduler
from shoestring.engine.sequence import Failures, Sequence, message
from shoestring.engine.settings import (
    EngineCounters,
    EngineSettings,
    Latencies,
    check_settings,
    count_drafts,
    count_end,
    eos_ids,
    with_current,
)
from shoestring.engine.speculate import MTPDrafter, PromptLookup
from shoestring.errors import ConfigError
from shoestring.kernels import Routing
from shoestring.model.memory import pages_for
from shoestring.model.transformer import Transformer
from shoestring.threads import Threads
from shoestring.tokenizer.bpe import Tokenizer

if TYPE_CHECKING:
    from shoestring.engine.constrain.grammars import Matcher

__all__ = ["Engine", "EngineCounters", "EngineSettings"]

log = logging.getLogger(__name__)


class Engine:
    """One model that serves many requests at once. Not thread-safe: one thread calls all of it."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer | None = None, settings: EngineSettings | None = None
    ) -> None:
        """Raises ConfigError for settings that do not fit the model or the memory."""
        self.model, self.tokenizer, self.settings = model, tokenizer, settings or EngineSettings()
        check_settings(self.settings, model.config)
        self.eos_ids = eos_ids(model.config, tokenizer)
        plan = plan_cache(model.config, self.settings, dtype=model.compute_dtype, device=model.device)
        self.max_model_len = plan.max_model_len
        self.scheduler = _scheduler(plan.num_pages, self.settings)
        self.runner = _runner(model, tokenizer, plan, self.settings)
        self.adapters = self.runner.adapters
        self.sampler = Sampler(eos_ids=self.eos_ids, token_text=_token_text(tokenizer))
        self.speculation = _speculation(plan.speculation, self.settings, self.runner, self.scheduler)
        self.threads = Threads()
        self._requests: dict[str, RequestState] = {}
        self._completions: dict[Sequence, CompletionState] = {}
        self._cohort: Cohort | None = None
        self._changes: dict[str, RequestState] = {}
        self._counters = EngineCounters(pages_total=plan.num_pages)
        self.grammars = Grammars(tokenizer, model.config.vocab_size, self.eos_ids)
        self.latencies = Latencies(self.settings.num_speculative_tokens)

    def add_request(self, request: Request) -> None:
        """Queue a request; raises ConfigError for one that cannot be served, and then queues nothing."""
        self.add_requests([request])

    def add_requests(self, requests: Collection[Request]) -> None:
        """Queue requests; raises ConfigError for the first that cannot be served, and then queues none."""
        states: dict[str, RequestState] = {}
        matchers: dict[Sequence, Matcher] = {}
        for request in requests:
            if request.request_id in self._requests or request.request_id in states:
                raise ConfigError(
                    f"request_id {request.request_id!r} is still in use by an unfinished request"
                )
            states[request.request_id] = state = self._open(request)
            sequences = [completion.sequence for completion in state.completions]
            matchers.update(zip(sequences, self.grammars.matchers(request.sampling_params), strict=False))
        for state in states.values():
            for completion in state.completions:
                self._completions[completion.sequence] = completion
                self.scheduler.add(completion.sequence)
        self._requests |= states
        self.sampler.matchers.update(matchers)
        self._counters.requests += len(states)

    @torch.inference_mode()
    def step(self) -> list[RequestOutput]:
        """Run one batch; returns the outputs of requests that changed, finished ones for the last time.

        What a request's own part raises (its grammar, text, drafts, ...) ends it alone, with "error".
        """
        begin = time.perf_counter()
        if (cohort := self._next_cohort()) is not None:
            self._step_cohort(cohort)
        elif (batch := self.scheduler.next_batch()).items:
            result = self.runner.run(batch)
            add_prompt_logprobs(self, batch, result)
            new_ids = self._accept(batch, self.sampler.sample(result.logits_NW, batch))
            self.scheduler.commit(batch, new_ids)
            self._retire(item.sequence for item in batch.items)
            model_s = time.perf_counter() - begin
            self.scheduler.pace.record(batch, model_s)
            self._speculate(batch, result.hidden_ND, new_ids, model_s)
            self._counters.steps += 1
        self._end(self.scheduler.failures.drain())
        outputs = self._report()
        self._counters.busy_s += time.perf_counter() - begin
        self.threads.follow()
        return outputs

    def abort(self, request_id: str) -> None:
        """Stop a request and free its pages now; the next step reports it, finished with "abort".

        An id that is not in use, or of a finished request, changes nothing.
        """
        state = self._requests.get(request_id)
        if state is None or state.finished:
            return
        self._dissolve()
        for completion in state.completions:
            if completion.finish_reason is None:
                self._remove(completion.sequence)
                completion.finish("abort")
        self._counters.aborted += 1
        self._changes[request_id] = state

    def has_unfinished(self) -> bool:
        """Return whether step() has a batch to run or an output to report."""
        return bool(self._requests)

    def weights_changed(self) -> None:
        """Empty the cache after the weights changed; unfinished requests are computed again."""
        self._dissolve()
        self.scheduler.restart()

    @property
    def counters(self) -> EngineCounters:
        """A copy of the current totals."""
        return with_current(self._counters, self.scheduler)

    def _open(self, request: Request) -> RequestState:
        """The request with its n completions, checked and not yet queued."""
        if request.adapter and request.adapter not in self.adapters:
            raise ConfigError(f"there is no adapter {request.adapter!r}; put its model in Engine.adapters")
        max_length = check_request(request, self.model.config, self.max_model_len, self.tokenizer)
        return RequestState.start(request, max_length, self.tokenizer, self.eos_ids)

    def _accept(self, batch: Batch, results: dict[Sequence, SampledTokens]) -> dict[Sequence, list[int]]:
        """Append each sequence's tokens to its completion, which may end there; returns those appended."""
        new_ids: dict[Sequence, list[int]] = {}
        failures, now, has_grammars = Failures(), time.monotonic(), len(self.sampler.matchers) > 0
        for item in batch.items:
            if (result := results.get(item.sequence)) is None:
                continue
            state = self._requests[item.sequence.request.request_id]
            self._changes[state.request.request_id] = state
            if result.error is not None:
                failures[item.sequence] = result.error
                continue
            try:
                completion = self._completions[item.sequence]
                new_ids[item.sequence] = token_ids = completion.accept(result)
                matcher = self.sampler.matchers.get(item.sequence) if has_grammars else None
                if matcher is not None and completion.finish_reason is None and matcher.is_stopped:
                    completion.finish("stop")
                if token_ids:
                    self.latencies.add_tokens(state, completion, len(token_ids), now)
                    state.record_token_time(now)
                self._counters.generated_tokens += len(token_ids)
                if item.drafts:
                    count_drafts(self._counters, state, len(item.drafts), len(token_ids))
            except Exception as error:
                failures.add(item.sequence, error)
        self._end(failures)
        return new_ids

    def _next_cohort(self) -> Cohort | None:
        """The cohort that the next step is of, if any; one that cannot go on is dissolved here."""
        if self._cohort is None or not self._cohort.goes_on:
            self._dissolve()
            if self.speculation is None:
                matchers = self.sampler.matchers
                self._cohort = Cohort.form(self.scheduler, self.runner, self._completions, matchers)
        return self._cohort

    def _step_cohort(self, cohort: Cohort) -> None:
        begin, last_s, size = time.perf_counter(), cohort.last_token_s, len(cohort)
        leaving = cohort.step()
        count = size - sum(tokens.error is not None for tokens in leaving.values())
        self.latencies.between_tokens_s.add(cohort.last_token_s - last_s, count)
        self._counters.generated_tokens += count
        self._counters.steps += 1
        self.scheduler.counters.computed_tokens += count
        self._settle(cohort, leaving)
        self.scheduler.pace.add(size, 0, time.perf_counter() - begin)

    def _dissolve(self) -> None:
        """Give the sequences of the cohort their tokens; there is no cohort then."""
        if self._cohort is not None:
            self._settle(self._cohort, self._cohort.dissolve())
            self._cohort = None

    def _settle(self, cohort: Cohort, leaving: Leaving) -> None:
        """Give sequences that leave the cohort their tokens, and finish those that end."""
        failures = Failures()
        for sequence, tokens in leaving.items():
            state = self._requests[sequence.request.request_id]
            self._changes[state.request.request_id] = state
            try:
                completion = self._completions[sequence]
                completion.extend(tokens)
                completion.last_token_s = cohort.last_token_s
                state.record_token_time(cohort.last_token_s)
                self.scheduler.append(sequence, tokens.ids)
                if tokens.error is not None:
                    failures[sequence] = tokens.error
            except Exception as error:
                failures.add(sequence, error)
        self._end(failures)
        self._retire(leaving)

    def _retire(self, sequences: Iterable[Sequence]) -> None:
        """Free the pages of those that are finished."""
        failures = Failures()
        for sequence in sequences:
            completion = self._completions.get(sequence)
            if completion is None or completion.finish_reason is None:
                continue
            try:
                if self.runner.routed_experts is not None:
                    completion.routed_experts = self.runner.routed_experts.of(sequence)
            except Exception as error:
                failures.add(sequence, error)
            self._remove(sequence)
        self._end(failures)

    def _end(self, failures: Failures) -> None:
        """Finish the completions that failed, with "error"."""
        for sequence, error in failures.items():
            state = self._requests[sequence.request.request_id]
            state.completions[sequence.index].fail(error)
            self._changes[state.request.request_id] = state
            self._remove(sequence)
            log.warning("request %s failed: %s", state.request.request_id, error)

    def _remove(self, sequence: Sequence) -> None:
        self.scheduler.finish(sequence)
        self.sampler.matchers.pop(sequence, None)
        self._completions.pop(sequence, None)

    def _speculate(
        self, batch: Batch, hidden_ND: Tensor, new_ids: dict[Sequence, list[int]], model_s: float
    ) -> None:
        if self.speculation is not None:
            tokens = sum(len(ids) for ids in new_ids.values())
            filter_drafts = self.sampler.filter_drafts
            self.speculation.prepare(batch, hidden_ND, filter_drafts, tokens=tokens, model_s=model_s)
            self._end(self.speculation.failures.drain())

    def _report(self) -> list[RequestOutput]:
        """The outputs of the requests that changed and are due; a finished request is removed."""
        outputs, waiting = [], {}
        interval_s = self.settings.stream_interval_s
        tick = time.monotonic() // interval_s if interval_s else None  # one for all: they come together
        for request_id, state in self._changes.items():
            if not state.is_due(tick):
                waiting[request_id] = state
                continue
            if state.finished or state.request.sampling_params.output_kind != "final_only":
                try:
                    outputs.append(state.output())
                except Exception as error:
                    log.error("request %s failed", request_id, exc_info=error)
                    for completion in state.completions:
                        self._remove(completion.sequence)
                    outputs.append(state.error_output(message(error)))
            if state.finished:
                del self._requests[request_id]
                count_end(self._counters, self.latencies, state)
        self._changes = waiting
        return outputs


def add_prompt_logprobs(engine: Engine, batch: Batch, result: StepResult) -> None:
    """Add prompt logprobs and experts of requests that ask, as far as the batch computes their prompts."""
    begin = 0
    for item in batch.items:
        rows, begin = slice(begin, begin + item.count), begin + item.count
        sequence = item.sequence
        if not sequence.needs_whole_prompt:
            continue
        try:
            state = engine._requests[sequence.request.request_id]
            entries = state.prompt_logprobs
            assert entries is not None
            first = len(entries) - 1  # the position that predicts the next one
            end = min(item.start + item.count + 1, sequence.num_prompt_tokens)
            ids = sequence.token_ids[first + 1 : end]
            start, count = max(first - item.start, 0), sequence.params.prompt_logprobs or 0
            states_ND = result.hidden_ND[rows][start : start + len(ids)]
            entries += engine.sampler.prompt_logprobs(states_ND, ids, count, engine.runner.logits)
            if sequence.request.prompt_experts and result.routings:
                known = len(state.prompt_experts)
                state.prompt_experts += _prompt_experts(result.routings, item, rows, known)
        except Exception as error:
            engine.scheduler.failures.add(sequence, error)


def _prompt_experts(
    routings: Mapping[int, Routing], item: ScheduledSequence, rows: slice, num_known: int
) -> Tensor:
    """(T, MoE layers, K) of the prompt's tokens of a sequence that this batch computes and were not known."""
    end = min(item.start + item.count, item.sequence.num_prompt_tokens) - item.start
    new = slice(rows.start + num_known - item.start, rows.start + end)
    experts_TLK = torch.stack([routing.experts_NK[new] for routing in routings.values()], dim=1)
    return experts_TLK.to(torch.int16).cpu()


def _scheduler(num_pages: int, settings: EngineSettings) -> Scheduler:
    return Scheduler(
        PagePool(num_pages),
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        enable_prefix_caching=settings.enable_prefix_caching,
        prompt_share=settings.prompt_share,
    )


def _runner(
    model: Transformer, tokenizer: Tokenizer | None, plan: CachePlan, settings: EngineSettings
) -> Runner:
    device, routed_experts = model.device, None
    if settings.enable_return_routed_experts and model.config.moe_layers:
        routed_experts = RoutedExperts(model.config, num_pages=plan.num_pages, device=device)
    specs = cache_specs(model.config, plan.num_layers)
    return Runner(
        model,
        PagedCache(specs, num_pages=plan.num_pages, dtype=model.compute_dtype, device=device),
        max_num_seqs=settings.max_num_seqs,
        max_pages=pages_for(plan.max_model_len),
        routed_experts=routed_experts,
        unused_ids=tokenizer.unused_ids(model.config.vocab_size) if tokenizer else (),
    )


def _token_text(tokenizer: Tokenizer | None) -> Callable[[int], str] | None:
    """The text of a token that logprobs show."""
    if tokenizer is None:
        return None
    return lambda token_id: tokenizer.token_bytes(token_id).decode("utf-8", errors="replace")


def _speculation(
    method: str, settings: EngineSettings, runner: Runner, scheduler: Scheduler
) -> Speculation | None:
    if method == "off":
        return None
    mtp = MTPDrafter(runner, scheduler.reserve) if method == "mtp" else None
    adaptive = AdaptiveSpeculation() if settings.adaptive_speculation else None
    count = settings.num_speculative_tokens
    return Speculation(mtp or PromptLookup(), num_speculative_tokens=count, adaptive=adaptive)
