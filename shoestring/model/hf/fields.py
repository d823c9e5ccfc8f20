"""Fields of a Hugging Face config.json: each one is read, ignored because it changes nothing, or refused."""

import math
from typing import Any

from shoestring.errors import ConfigError

_INERT_TEXT = """
    auto_map aux_loss_alpha seq_aux ep_size pretraining_tp router_aux_loss_coef quantization_config

    architectures model_type torch_dtype dtype transformers_version use_cache _name_or_path name_or_path
    _commit_hash _attn_implementation attn_implementation _attn_implementation_autoset
    _experts_implementation experts_implementation unsloth_fixed unsloth_version

    return_dict return_dict_in_generate output_hidden_states output_attentions output_router_logits
    output_scores torchscript use_bfloat16 tf_legacy_loss tie_last_hidden_states id2label label2id num_labels
    problem_type finetuning_task task_specific_params tokenizer_class prefix is_decoder
    decoder_start_token_id sep_token_id remove_invalid_values

    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size bad_words_ids encoder_no_repeat_ngram_size num_return_sequences
    forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens
    exponential_decay_length_penalty

    sliding_window max_window_layers
"""
# In this order: DeepSeek's training settings (quantization_config is read beside the weights); where and how
# the file was saved; what every PreTrainedConfig wrote at some time; how to sample, from before
# generation_config.json; Qwen2's window, which is off (`use_sliding_window` is checked).

INERT = frozenset(_INERT_TEXT.split())
"""Fields of real checkpoints that do not change the model's outputs."""

SINGLE_VALUED: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_dropout": 0,
    "mlp_bias": False,
    "use_sliding_window": False,
    "use_mrope": False,
    "partial_rotary_factor": 1,
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "per_layer_config": None,
}
"""Fields that have one value in every model that this code runs."""

MAX_SIZE = 2**31 - 1
NO_DEFAULT: Any = object()
"""In place of a default: the field must be present."""


class Fields:
    """The fields of one JSON object, each read once; `finish` refuses the others. null means absent."""

    def __init__(self, data: dict[str, Any], where: str) -> None:
        self._unread_fields = dict(data)
        self.where = where

    def size(self, name: str, default: Any = NO_DEFAULT, *, least: int = 1, most: int = MAX_SIZE) -> Any:
        """A count, or `default` (which may be None) when the field is absent."""
        value = self._take(name, default)
        if value is not default and not (type(value) is int and least <= value <= most):
            self._refuse(name, value, f"must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: Any = NO_DEFAULT) -> Any:
        value = self._take(name, default)
        if value is default:
            return value
        if type(value) not in (int, float) or not math.isfinite(value):
            self._refuse(name, value, "must be a number")
        return float(value)

    def flag(self, name: str, default: Any = NO_DEFAULT) -> bool:
        value = self._take(name, default)
        if type(value) is not bool:
            self._refuse(name, value, "must be true or false")
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: Any = NO_DEFAULT) -> Any:
        value = self._take(name, default)
        if value not in choices:
            self._refuse(name, value, f"must be one of {', '.join(choices)}")
        return value

    def table(self, name: str) -> dict[str, Any]:
        value = self._take(name, {})
        if not isinstance(value, dict):
            self._refuse(name, value, "must be an object")
        return value

    def token_ids(self, name: str) -> int | tuple[int, ...] | None:
        """One token id, several, or none."""
        value = self._take(name, None)
        ids = value if isinstance(value, list) else [value]
        if value is not None and not (ids and all(type(i) is int and 0 <= i <= MAX_SIZE for i in ids)):
            self._refuse(name, value, "must be a token id or a list of them")
        return tuple(ids) if isinstance(value, list) else value

    def must_be(self, name: str, required_value: Any) -> None:
        """Refuse any value but `required_value`; the field may be absent."""
        value = self._take(name, required_value)
        if value != required_value:
            self._refuse(name, value, f"is not supported: only {required_value!r} is")

    def full_attention_everywhere(self) -> None:
        value = self._take("layer_types", [])
        if not isinstance(value, list) or any(kind != "full_attention" for kind in value):
            self._refuse("layer_types", value, "is not supported: only 'full_attention' is")

    def finish(self, inert: frozenset[str] = frozenset()) -> None:
        """Raise ConfigError for the first field that was not read and is not in `inert`."""
        for name, value in self._unread_fields.items():
            if name not in inert:
                self._refuse(
                    name,
                    value,
                    "is a field this code does not know; remove it from a copy of the file if it cannot "
                    "change the model's answers, else use software that supports it",
                )

    def _take(self, name: str, default: Any) -> Any:
        value = self._unread_fields.pop(name, None)
        if value is None:
            value = default
        if value is NO_DEFAULT:
            raise ConfigError(
                f"{self.where} lacks {name}; it is not the configuration of a model this code runs"
            )
        return value

    def _refuse(self, name: str, value: Any, rule: str) -> None:
        raise ConfigError(f"{self.where}: {name[:100]!r} = {repr(value)[:100]} {rule}")
