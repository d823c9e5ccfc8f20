"""Gain of speculative decoding: MTP drafts, prompt lookup, and no drafts, on a trained model.

    python bench/speculation.py [--model runs/demo/model] [--streams 1] [--tokens 128] [--json FILE]

Prints acceptance, tokens per step and tokens/s in comparison with no drafts, for greedy and for seeded
sampling, and checks that all tokens are the same. Exit code 3 when one differs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

PROMPT = 64


def run(model, prompts, arguments, *, speculation, depth, temperature):
    """Run all prompts: the tokens of every request, and the figures."""
    from shoestring.engine.engine import Engine, EngineSettings
    from shoestring.engine.request import Request, SamplingParams

    settings = EngineSettings(
        max_num_seqs=arguments.streams,
        max_num_batched_tokens=max(512, arguments.streams),
        max_model_len=min(1024, model.config.max_position_embeddings),
        speculation=speculation,
        num_speculative_tokens=depth,
        adaptive_speculation=False,
        enable_prefix_caching=False,
    )
    engine = Engine(model, None, settings)
    for i, ids in enumerate(prompts):
        params = SamplingParams(temperature=temperature, seed=i, max_tokens=arguments.tokens, ignore_eos=True)
        engine.add_request(Request(request_id=str(i), prompt_token_ids=ids, sampling_params=params))
    tokens, begin = {}, time.perf_counter()
    while engine.has_unfinished():
        tokens |= {out.request_id: out.outputs[0].token_ids for out in engine.step() if out.finished}
    seconds, counters = time.perf_counter() - begin, engine.counters
    figures = {
        "speculation": speculation,
        "num_speculative_tokens": depth if speculation != "off" else 0,
        "temperature": temperature,
        "acceptance": counters.acceptance,
        "tokens_per_step": counters.generated_tokens / counters.steps / min(arguments.streams, len(prompts)),
        "tokens_per_s": counters.generated_tokens / seconds,
    }
    return tokens, figures


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("runs/demo/model"))
    parser.add_argument("--quantization", choices=("int8", "int4"))
    parser.add_argument("--text", type=Path, nargs="+", default=[Path("README.md"), Path("docs/LOG.md")])
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference
    from shoestring.tokenizer.bpe import Tokenizer

    tokenizer = Tokenizer.load(arguments.model)
    ids = [i for path in arguments.text for i in tokenizer.encode(Path(path).read_text(encoding="utf-8"))]
    step = max(PROMPT, (len(ids) - PROMPT) // arguments.prompts)
    prompts = [ids[first : first + PROMPT] for first in range(0, len(ids) - PROMPT, step)][
        : arguments.prompts
    ]
    model = load_for_inference(Checkpoint.open(arguments.model), arguments.quantization)
    kinds = [("mtp", 1), ("mtp", 2)] if model.config.num_nextn_predict_layers else []
    rows, is_same = [], True
    run(model, prompts[:2], arguments, speculation="off", depth=1, temperature=0.0)  # the first run is slow
    for temperature in (0.0, 0.8):
        expected, base = run(model, prompts, arguments, speculation="off", depth=1, temperature=temperature)
        rows.append(base | {"speed_up": 1.0})
        for speculation, depth in [*kinds, ("prompt_lookup", 3)]:
            settings = {"speculation": speculation, "depth": depth, "temperature": temperature}
            tokens, figures = run(model, prompts, arguments, **settings)
            is_same = is_same and tokens == expected
            rows.append(figures | {"speed_up": figures["tokens_per_s"] / base["tokens_per_s"]})
    for row in rows:
        print(
            "{speculation:14} depth {num_speculative_tokens} temperature {temperature}: "
            "acceptance {acceptance:.2f}, "
            "{tokens_per_step:.2f} tokens per step, {tokens_per_s:.0f} tokens/s, {speed_up:.2f}x".format(
                **row
            )
        )
    print("all tokens are the same" if is_same else "TOKENS DIFFER")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if is_same else 3


if __name__ == "__main__":
    sys.exit(main())
