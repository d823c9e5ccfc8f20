"""Fields of config.json that leave a model's outputs as they are: at any value, or at one value."""

import re
from typing import Any

_ANY_VALUE_TEXT = """
    auto_map aux_loss_alpha seq_aux ep_size pretraining_tp quantization_config gradient_checkpointing
    neftune_noise_alpha

    architectures model_type torch_dtype dtype use_cache name_or_path attn_implementation
    experts_implementation

    return_dict return_dict_in_generate output_hidden_states output_attentions output_router_logits
    output_scores torchscript use_bfloat16 tf_legacy_loss tie_last_hidden_states id2label label2id num_labels
    problem_type finetuning_task task_specific_params tokenizer_class prefix is_decoder
    remove_invalid_values keys_to_ignore_at_inference

    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p min_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size bad_words_ids encoder_no_repeat_ngram_size num_return_sequences
    suppress_tokens begin_suppress_tokens exponential_decay_length_penalty

    sliding_window max_window_layers
    max_sequence_length max_seq_length max_seq_len model_max_length seq_length seq_len
"""
# In this order: training settings (quantization_config is read beside the weights); where and how the file
# was saved; what every PreTrainedConfig wrote at some time; how to sample, from before
# generation_config.json; a window that is off (`use_sliding_window` is checked); lengths of the training.

_ANY_VALUE = frozenset(_ANY_VALUE_TEXT.split())

_ANY_VALUE_PATTERN = re.compile(
    r"_.*|.*\..*"  # private attributes of the program that saved it, and "transformers.js_config"
    r"|(unsloth|transformers|peft|axolotl|mergekit|onnx)_.*"
    r"|is_[a-z0-9]+_config"  # nanotron: is_llama_config, is_qwen2_config
    r"|.*_loss_(coef|coefficient|alpha|weight|factor)"
    r"|.*_token_(id|ids|index)|(bos|eos|pad|unk|sep|cls|mask)_token"
    r"|.*(flash_att|xformers|memory_efficient|checkpointing).*|fused?_.*"
)
"""Names of fields by and for other programs: settings of training and of speed, ids that no layer reads."""

_NOTES = re.compile(
    r"(.*_)?(version|revision|commit|hash|license|authors?|date|url|website|description|comments?|languages?)"
)
"""Names of notes for people: inert when the value is a text."""

_VALUES: list[tuple[tuple[Any, ...], str]] = [
    (("silu", "swish"), "hidden_act"),
    ((0,), "attention_dropout chunk_size_feed_forward"),
    ((True,), "is_causal use_rope use_rms_norm gated_mlp"),
    (
        (False,),
        "mlp_bias rope_interleaved use_mrope is_encoder_decoder add_cross_attention tie_encoder_decoder",
    ),
    (
        (1,),
        "partial_rotary_factor rotary_pct rotary_percent rope_pct rope_percent rope_ratio"
        " rope_condense_ratio",
    ),
    (
        (1,),
        "logits_scaling logit_scale embedding_multiplier scale_emb residual_multiplier lm_head_multiplier",
    ),
    ((None,), "cross_attention_hidden_size per_layer_config"),
    (({},), "pruned_heads"),
    (("rope", "rotary"), "position_embedding_type"),
]

SINGLE_VALUED = {name: values for values, names in _VALUES for name in names.split()}
"""Fields that have these values in every model that this code runs."""


def is_inert(name: str, value: Any) -> bool:
    """Return whether a field that nothing reads changes no output: its name says so, or it is off."""
    if name in _ANY_VALUE or _ANY_VALUE_PATTERN.fullmatch(name):
        return True
    if isinstance(value, str) and _NOTES.fullmatch(name):
        return True
    return not value  # null, false, 0, and empty texts, lists and objects
