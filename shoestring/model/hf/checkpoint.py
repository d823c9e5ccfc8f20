"""Checkpoint: an opened model folder whose config, tensors, tokenizer and template are each read once."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model import memory
from shoestring.model.config import ModelConfig
from shoestring.model.hf.config import CONFIG_NAME, MAX_CONFIG_BYTES, from_hf
from shoestring.model.hf.hub import commit
from shoestring.model.hf.quantization import (
    OTHER_FILES,
    BlockSize,
    read_fp8_block_size,
    read_quantization,
    require_plain,
)
from shoestring.model.hf.safetensors_file import TensorInfo
from shoestring.model.hf.shards import find_tensors, read_json
from shoestring.model.memory import Quantization

if TYPE_CHECKING:
    from shoestring.tokenizer.bpe import Tokenizer
    from shoestring.tokenizer.chat.template import Template

log = logging.getLogger(__name__)

GENERATION_FILE = "generation_config.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model folder in Hugging Face layout, and LoRA adapters that its weights get when they are read.

    Opening it reads nothing; each property reads its file once. A tokenizer, template and generation settings
    beside the last adapter take the place of the model's own.

    Properties raise CheckpointError for a file that is missing or damaged, ConfigError for a model that this
    code does not run, UnsafeFileError for a pickle, and TokenizerError. None of them imports PyTorch.
    """

    folder: Path
    adapters: tuple[Path, ...] = ()
    """Folders in PEFT's layout, merged in this order."""

    @classmethod
    def open(cls, path: str | Path) -> "Checkpoint":
        """Open a local folder; hub.resolve finds the folder of a name such as org/name."""
        return cls(Path(path))

    @cached_property
    def config(self) -> ModelConfig:
        """The model's shape, as config.json states it, with the end tokens of generation_config.json too."""
        data = self._config_json
        with self._folder_in_errors():
            config = from_hf(data)
        return config.with_end_tokens(self._generation_end_ids)

    @cached_property
    def model_config(self) -> ModelConfig:
        """The shape of the model that is loaded: `config` without MTP modules that the weights lack.

        Their absence is a warning, not an error: transformers drops MTP modules when it saves a V3 model.
        """
        config, modules = self.config, self.config.num_nextn_predict_layers
        if not modules or self.has_mtp:
            return config
        log.warning(
            "%s promises %d MTP module(s) and its weights hold none; loading the model without them",
            self._config_path,
            modules,
        )
        return replace(config, num_nextn_predict_layers=0)

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """The file, dtype, shape and position of every tensor by its name, from the weight files' headers."""
        return find_tensors(self.folder)

    @property
    def has_mtp(self) -> bool:
        """Return whether the weights contain an MTP module; DeepSeek stores them after the last layer."""
        first = self.config.num_hidden_layers
        layers = range(first, first + self.config.num_nextn_predict_layers)
        prefixes = tuple(f"model.layers.{index}." for index in layers)
        return any(name.startswith(prefixes) for name in self.tensors)

    @cached_property
    def quantization(self) -> Quantization | None:
        """The quantization of a packed checkpoint, which `shoestring quantize` wrote; None for any other."""
        settings = self._quantization_config
        with self._folder_in_errors():
            return read_quantization(settings)

    @cached_property
    def fp8_block_size(self) -> BlockSize | None:
        """The block size of FP8 weights; None if there is no quantization. Any other is refused."""
        settings = self._quantization_config
        with self._folder_in_errors():
            return read_fp8_block_size(settings)

    @cached_property
    def is_bfloat16(self) -> bool:
        """Return whether all matrices are stored in bfloat16; they keep it in memory."""
        return {info.dtype for info in self.tensors.values() if len(info.shape) == 2} == {"BF16"}

    def weight_bytes(self, quantization: Quantization | None = None) -> int:
        """Bytes of the weights in memory; without `quantization`, in the form they are stored in."""
        form = quantization or self.quantization
        if form is not None:
            return memory.weight_bytes(self.model_config, form)
        return memory.weight_bytes(self.model_config, bytes_per_weight=2 if self.is_bfloat16 else 4)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """The fields of generation_config.json, unchecked; empty without that file."""
        return read_json(self._generation_path) if self._generation_path.is_file() else {}

    @property
    def generation_folder(self) -> Path:
        """The folder of generation_config.json, if there is one."""
        return self._newest_with(GENERATION_FILE)

    @property
    def _generation_path(self) -> Path:
        return self.generation_folder / GENERATION_FILE

    @property
    def _generation_end_ids(self) -> tuple[int, ...]:
        """The eos_token_id of generation_config.json, one or a list; CheckpointError for anything else."""
        ids = self.generation.get("eos_token_id")
        values = () if ids is None else tuple(ids) if isinstance(ids, list) else (ids,)
        if not all(type(token_id) is int and token_id >= 0 for token_id in values):
            raise CheckpointError(
                f"{self._generation_path}: eos_token_id = {ids!r} is no id and no list of ids; "
                "repair or remove that file"
            )
        return values

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer and the chat template, if there are any."""
        from shoestring.tokenizer.bpe import TOKENIZER_FILE

        return self._newest_with(TOKENIZER_FILE)

    def _newest_with(self, name: str) -> Path:
        """The folder of the last adapter with a file of this name, else the model's."""
        folders = [folder for folder in self.adapters if (folder / name).is_file()]
        return folders[-1] if folders else self.folder

    @property
    def has_tokenizer(self) -> bool:
        from shoestring.tokenizer.bpe import TOKENIZER_FILE

        return (self.tokenizer_folder / TOKENIZER_FILE).is_file()

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer; TokenizerError if there is none."""
        from shoestring.tokenizer.bpe import Tokenizer

        return Tokenizer.load(self.tokenizer_folder)

    def check_vocabulary(self) -> None:
        """Raise TokenizerError when the tokenizer has ids without a row in the embedding."""
        if self.has_tokenizer:
            self.tokenizer.check_fits(self.config.vocab_size)

    @cached_property
    def has_template(self) -> bool:
        """Return whether there is a chat template; an error in it shows when `template` is read."""
        from shoestring.tokenizer import definition
        from shoestring.tokenizer.bpe import CONFIG_FILE
        from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE

        if (self.tokenizer_folder / TEMPLATE_FILE).is_file():
            return True
        path = self.tokenizer_folder / CONFIG_FILE
        return path.is_file() and bool(definition.read_json(path, CONFIG_FILE).get("chat_template"))

    @cached_property
    def template(self) -> "Template":
        """The chat template; TokenizerError if there is none."""
        from shoestring.tokenizer.chat.load import load_template

        return load_template(self.tokenizer_folder, self.tokenizer)

    @property
    def commit(self) -> str | None:
        """The commit of a snapshot in the hub's cache; None for any other folder."""
        return commit(self.folder)

    @property
    def _config_path(self) -> Path:
        return self.folder / CONFIG_NAME

    @cached_property
    def _config_json(self) -> dict[str, Any]:
        return read_json(self._config_path, max_bytes=MAX_CONFIG_BYTES)

    @property
    def _quantization_config(self) -> Any:
        """`quantization_config`; CheckpointError if another file describes quantized weights instead."""
        settings = self._config_json.get("quantization_config") if self._config_path.exists() else None
        if settings is None:
            for name in OTHER_FILES:
                path = self.folder / name
                if path.is_file():
                    require_plain(read_json(path, max_bytes=MAX_CONFIG_BYTES), path)
        return settings

    @contextmanager
    def _folder_in_errors(self) -> Iterator[None]:
        """Put the folder before messages that begin with "config.json"."""
        try:
            yield
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"{self.folder}/{error}") from None
