"""Accuracy of quantization, and agreement with llama.cpp and transformers, on one trained model.

    python bench/accuracy.py [--model runs/demo/model] [--text docs/LOG.md README.md] [--json FILE]

Prints the mean KL divergence (nats per token) between the next-token distributions of the float32 model and
of each quantized one, over windows of the given texts: int8 and int4 of this package, Q8_0 and Q4_0 of
llama.cpp for the same weights. Then 100 prompts are continued greedily by this engine in float32, by
llama.cpp with the F32 GGUF file and by transformers; where a token differs, the gap between the two best
logits is printed, since a tie is no disagreement. Needs llama-cpp-python and transformers. Exit code 3 when
int8 or int4 diverges more than llama.cpp's type of the same size, or a token differs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

WINDOW, PROMPTS, NEW_TOKENS = 256, 100, 32


class LlamaCpp:
    """llama.cpp with logits at every position."""

    def __init__(self, path):
        import llama_cpp as library

        self.library, self.silent = library, library.llama_log_callback(lambda *_: None)
        library.llama_log_set(self.silent, None)
        library.llama_backend_init()
        self.model = library.llama_model_load_from_file(
            str(path).encode(), library.llama_model_default_params()
        )
        params = library.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 512, 512, 2, 2
        # The default is float16 for keys and values, and float32 is compared here.
        params.type_k = params.type_v = library.GGML_TYPE_F32
        # Flash attention rounds to float16 internally; without it both agree to 1e-13 nats.
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = library.llama_init_from_model(self.model, params)
        self.batch = library.llama_batch_init(512, 0, 1)
        self.vocab_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))

    def logits(self, ids, start=0):
        """Logits (T, W), float32; `start` is the number of cached positions."""
        import numpy as np

        library = self.library
        if not start:
            library.llama_memory_clear(library.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, start + i, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = 0, True
        assert library.llama_decode(self.context, self.batch) == 0
        rows = [
            np.ctypeslib.as_array(library.llama_get_logits_ith(self.context, i), (self.vocab_size,)).copy()
            for i in range(len(ids))
        ]
        return torch.from_numpy(np.stack(rows))

    def greedy(self, ids, count):
        tokens, start, pending = [], 0, list(ids)
        while len(tokens) < count:
            best = int(self.logits(pending, start)[-1].argmax())
            start += len(pending)
            tokens.append(best)
            pending = [best]
        return tokens


def cached_logits(model, ids):
    """Logits as the engine computes them: with attention over cached latents."""
    with torch.inference_mode():
        return model(torch.tensor([ids]), model.new_cache(1, len(ids)))[0]


def windows(model_folder, texts):
    """Full rows of WINDOW ids."""
    from shoestring.tokenizer.bpe import Tokenizer

    tokenizer = Tokenizer.load(model_folder)
    ids = [i for path in texts for i in tokenizer.encode(Path(path).read_text(encoding="utf-8"))]
    return [ids[first : first + WINDOW] for first in range(0, len(ids) - WINDOW, WINDOW)]


def divergence(reference, other):
    """Mean KL divergence KL(reference, other) in nats."""
    p, q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def quantized_rows(folder, rows, scratch):
    """Mean divergence of each quantized model: [{engine, weights, kl_nats}]."""
    from shoestring.model.gguf.exporter import export_gguf
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    plain = load_for_inference(Checkpoint.open(folder))
    reference = [cached_logits(plain, ids) for ids in rows]
    results = []
    for kind in ("int8", "int4"):
        model = load_for_inference(Checkpoint.open(folder), kind)
        values = [divergence(r, cached_logits(model, ids)) for r, ids in zip(reference, rows, strict=True)]
        results.append({"engine": "ours", "weights": kind, "kl_nats": sum(values) / len(values)})
    for kind in ("f32", "q8_0", "q4_0"):
        export_gguf(Checkpoint.open(folder), scratch / f"{kind}.gguf", kind)
        model = LlamaCpp(scratch / f"{kind}.gguf")
        values = [divergence(r, model.logits(ids)) for r, ids in zip(reference, rows, strict=True)]
        results.append({"engine": "llama.cpp", "weights": kind, "kl_nats": sum(values) / len(values)})
    return results


def greedy_rows(folder, rows, scratch):
    """Number of prompts that the others continue differently, and the logit gaps there."""
    from transformers import AutoModelForCausalLM

    from shoestring.engine.engine import Engine, EngineSettings
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    prompts = [rows[i % len(rows)][: 8 + i % 40] for i in range(PROMPTS)]
    model = load_for_inference(Checkpoint.open(folder))
    engine = Engine(model, None, EngineSettings(max_num_seqs=16, max_model_len=512))
    params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    for i, ids in enumerate(prompts):
        engine.add_request(Request(request_id=str(i), prompt_token_ids=ids, sampling_params=params))
    ours = {}
    while engine.has_unfinished():
        ours |= {out.request_id: list(out.outputs[0].token_ids) for out in engine.step() if out.finished}
    theirs = {"llama.cpp": LlamaCpp(scratch / "f32.gguf").greedy}
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def transformers_greedy(ids, count):
        length = {"max_new_tokens": count, "min_new_tokens": count}
        with torch.inference_mode():
            mask = torch.ones(1, len(ids), dtype=torch.long)
            out = other.generate(torch.tensor([ids]), attention_mask=mask, do_sample=False, **length)
        return out[0, len(ids) :].tolist()

    theirs["transformers"] = transformers_greedy
    results = []
    for name, generate in theirs.items():
        gaps = []
        for i, ids in enumerate(prompts):
            tokens = generate(ids, NEW_TOKENS)
            if tokens != ours[str(i)]:
                place = next(k for k, (a, b) in enumerate(zip(tokens, ours[str(i)], strict=True)) if a != b)
                best = cached_logits(model, ids + tokens[:place])[-1].topk(2).values
                gaps.append(float(best[0] - best[1]))
        results.append({"engine": name, "prompts": len(prompts), "differ": len(gaps), "logit_gaps": gaps})
    return results


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("runs/demo/model"))
    parser.add_argument("--text", type=Path, nargs="+", default=[Path("README.md"), Path("docs/LOG.md")])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = windows(arguments.model, arguments.text)
    print(f"{len(rows)} windows of {WINDOW} tokens")
    with tempfile.TemporaryDirectory() as scratch:
        divergences = quantized_rows(arguments.model, rows, Path(scratch))
        for row in divergences:
            print(f"{row['engine']:12}{row['weights']:6} KL {row['kl_nats']:.3e} nats per token")
        agreement = greedy_rows(arguments.model, rows, Path(scratch))
    for row in agreement:
        print(
            f"{row['engine']}: {row['differ']} of {row['prompts']} prompts have other tokens than ours; "
            f"logit gaps there: {row['logit_gaps']}"
        )
    kl = {row["weights"]: row["kl_nats"] for row in divergences}
    is_met = (
        kl["int8"] <= kl["q8_0"] and kl["int4"] <= kl["q4_0"] and not any(row["differ"] for row in agreement)
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"divergence": divergences, "greedy": agreement}, indent=2) + "\n"
        )
    print("met" if is_met else "MISSED")
    return 0 if is_met else 3


if __name__ == "__main__":
    sys.exit(main())
