"""List the files that a request, a training batch, a question and an opened checkpoint pass, in order.

    python tools/walks.py [request batch question checkpoint] [--functions] [--json]

Each walk is taken with a tiny random model while every call is watched. A file of the package is a stop when
one of its functions is called with the thing as an argument, alone or in a list: the text of the prompt, the
checkpoint's folder or a file in it, the arrays of a batch, token ids, or an object of one of the FORMS.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = f"{ROOT}/shoestring/"
FORMS = {
    "request": ("Prompt", "Request"),
    "batch": ("Batch", "MicroBatch"),
    "question": ("Problem", "Example", "QuestionPrompt", "Request", "Answer"),
    "checkpoint": ("Checkpoint",),
}
"""The classes whose objects are the thing on one part of its way."""
PROMPT = "1+2=3 so 4*5=20"
MOST_ITEMS = 1000


@dataclass
class Walk:
    """The stops of one thing through the package, in the order of their first calls."""

    forms: tuple[str, ...]
    folder: str = ""
    """A path that is the thing, as is any inside it."""
    values: set[Any] = field(default_factory=set)
    """A text, or tuples of token ids, that are the thing."""
    stops: dict[str, list[str]] = field(default_factory=dict)
    """Functions called with the thing, by file."""
    _arrays: dict[int, Any] = field(default_factory=dict)
    _codes: set[CodeType] = field(default_factory=set)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Notes the calls that are made inside the block."""
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or code in self._codes or not code.co_filename.startswith(PACKAGE):
            return
        if code.co_name.startswith("<"):  # comprehensions and lambdas belong to the function around them
            return
        if any(self._is_form(frame.f_locals.get(name)) for name in parameter_names(code)):
            self._codes.add(code)
            self.stops.setdefault(code.co_filename.removeprefix(PACKAGE), []).append(code.co_qualname)

    def _is_form(self, value: Any, depth: int = 0) -> bool:
        kind = type(value).__name__
        if kind in self.forms:
            self._remember(value)
            return True
        if is_array(value):
            return memory(value) in self._arrays
        if (kind == "str" or is_ids(value)) and value in self.values:
            return True
        if self.folder and kind in ("str", "PosixPath") and str(value).startswith(self.folder):
            return True
        if depth < 2 and isinstance(value, (list, tuple, dict)) and len(value) < MOST_ITEMS:
            items = value.values() if isinstance(value, dict) else value
            return any(self._is_form(item, depth + 1) for item in items)
        return False

    def _remember(self, form: Any) -> None:
        """A form is also its token ids, and a batch its arrays and the tensors on them."""
        for name in field_names(form):
            value = getattr(form, name, None)
            if type(value).__name__ in self.forms:
                self._remember(value)
            elif is_array(value):
                self._arrays[memory(value)] = value  # held, so that nothing else comes to lie there
            elif is_ids(value):
                self.values.add(value)


def parameter_names(code: CodeType) -> tuple[str, ...]:
    """Names of a function's parameters, *args and **kwargs included."""
    extra = bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + extra]


def field_names(value: Any) -> Iterator[str]:
    """Names of the fields of a dataclass or named tuple; none of anything else."""
    return iter(getattr(value, "__dataclass_fields__", getattr(value, "_fields", ())))


def is_ids(value: Any) -> bool:
    """Return whether a value is a tuple of token ids."""
    return type(value) is tuple and len(value) > 0 and all(type(item) is int for item in value)


def is_array(value: Any) -> bool:
    """Return whether a value is an array of sequences: a single flat row, as kernels take it, is no batch."""
    return type(value).__name__ in ("Tensor", "ndarray") and value.ndim == 2


def memory(array: Any) -> int:
    """The address where an array's memory begins: the same for a numpy array and all tensors on it."""
    is_tensor = type(array).__name__ == "Tensor"
    return int(array.untyped_storage().data_ptr() if is_tensor else array.ctypes.data)


# --- the walks ----------------------------------------------------------------------------------------------


def walk_request(folder: Path) -> Walk:
    """LLM.generate with one prompt."""
    from shoestring import LLM, SamplingParams

    llm = LLM(folder, device="cpu")
    walk = Walk(FORMS["request"], values={PROMPT})
    with walk.watched():
        llm.generate(PROMPT, SamplingParams(max_tokens=4, seed=1))
    return walk


def walk_batch(folder: Path) -> Walk:
    """One step of pretraining on a few documents."""
    from shoestring.data.corpus import DataConfig
    from shoestring.train.pretrain import pretrain
    from shoestring.train.pretrain_recipe import PretrainConfig

    texts = folder.parent / "texts"
    texts.mkdir(exist_ok=True)
    for number in range(20):
        (texts / f"{number}.txt").write_text(f"{number} " + " ".join(f"{i}+{number}" for i in range(50)))
    config = PretrainConfig(
        model=str(folder),
        tokenizer=str(folder),
        total_tokens=64,
        seq_len=16,
        batch_size=4,
        micro_batch_size=2,
        data=DataConfig(sources=(str(texts),), heldout_fraction=0.2),
    )
    walk = Walk(FORMS["batch"])
    with walk.watched():
        pretrain(config, cpu(), folder.parent / "pretrained", quiet=True)
    return walk


def walk_question(folder: Path) -> Walk:
    """One step of reinforcement learning on one task."""
    from shoestring.rl.grpo import grpo
    from shoestring.rl.recipe import GRPOConfig, TaskShare

    config = GRPOConfig(
        model=str(folder),
        tasks=(TaskShare(name="arithmetic"),),
        steps=1,
        num_prompts=2,
        num_generations=4,
        max_tokens=8,
    )
    walk = Walk(FORMS["question"])
    with walk.watched():
        grpo(config, cpu(), folder.parent / "reinforced", quiet=True)
    return walk


def walk_checkpoint(folder: Path) -> Walk:
    """load_engine on a plain checkpoint."""
    from shoestring.engine.load import load_engine
    from shoestring.model.hf.checkpoint import Checkpoint

    walk = Walk(FORMS["checkpoint"], folder=str(folder))
    with walk.watched():
        load_engine(Checkpoint.open(folder), cpu())
    return walk


WALKS: dict[str, Callable[[Path], Walk]] = {
    "request": walk_request,
    "batch": walk_batch,
    "question": walk_question,
    "checkpoint": walk_checkpoint,
}


def cpu() -> Any:
    import torch

    from shoestring.device import Runtime

    return Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)


def make_model(folder: Path) -> Path:
    """A random model of all of DeepSeek-V3's parts, with a tokenizer and a chat template."""
    import torch

    from shoestring.model.hf.folder import save_model
    from shoestring.model.presets import TINY
    from shoestring.model.transformer import Transformer, initialize
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

    tokenizer = Tokenizer.train([PROMPT], 320)
    words = folder / "tokenizer"
    words.mkdir()
    tokenizer.save(words)
    DeepSeekTemplate().save(words)
    shape = replace(
        TINY,
        vocab_size=320,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    model = initialize(Transformer(shape), torch.Generator().manual_seed(0))
    save_model(model, folder / "model", tokenizer_files=words)
    return folder / "model"


def take_walks(names: list[str]) -> dict[str, Walk]:
    """The walks of these names, each with a model of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_model(Path(name))
        return {name: WALKS[name](folder) for name in names}


def main(arguments: list[str]) -> int:
    """Print the stops of each walk; returns the exit status."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("walks", nargs="*", choices=[[], *WALKS], help="all of them unless some are named")
    parser.add_argument("--functions", action="store_true", help="the functions of each stop as well")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args(arguments)
    walks = take_walks(options.walks or list(WALKS))
    if options.json:
        print(json.dumps({name: walk.stops for name, walk in walks.items()}, indent=1))
        return 0
    for name, walk in walks.items():
        print(f"{name}: {len(walk.stops)} files")
        for file, functions in walk.stops.items():
            print(f"  {file}" + (f"  {', '.join(functions)}" if options.functions else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
