"""What quantization costs, and who agrees with whom: ours, llama.cpp and transformers on one trained model.

    python bench/accuracy.py [--model runs/demo/model] [--text docs/LOG.md README.md] [--json FILE]

Mean KL divergence (nats a token) of the float32 model's next-token distribution from each quantized one's,
over windows of the given texts: ours int8 and int4, llama.cpp's Q8_0 and Q4_0 of the same weights. Then 100
prompts, continued greedily by our engine in float32, by llama.cpp on the F32 GGUF and by transformers:
where a token differs, the gap between the two best logits is printed, since ties are no disagreement. Needs
llama-cpp-python and transformers. Exit code 3 when ours diverges more than llama.cpp's or a token differs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

WINDOW, PROMPTS, CONTINUED = 256, 100, 32


class LlamaCpp:
    """Logits of every position by llama.cpp."""

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
        # Its default keeps keys and values in float16, and float32 is what is compared here.
        params.type_k = params.type_v = library.GGML_TYPE_F32
        # Its flash attention rounds to float16 on the way; without it both agree to 1e-13 nats.
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = library.llama_init_from_model(self.model, params)
        self.batch = library.llama_batch_init(512, 0, 1)
        self.words = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))

    def logits(self, ids, start=0):
        """(T, W) float32; `start` continues what is cached."""
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
            np.ctypeslib.as_array(library.llama_get_logits_ith(self.context, i), (self.words,)).copy()
            for i in range(len(ids))
        ]
        return torch.from_numpy(np.stack(rows))

    def greedy(self, ids, count):
        chosen, start, pending = [], 0, list(ids)
        while len(chosen) < count:
            best = int(self.logits(pending, start)[-1].argmax())
            start += len(pending)
            chosen.append(best)
            pending = [best]
        return chosen


def cached_logits(model, ids):
    """Our logits the way the engine computes them: attention over kept latents."""
    with torch.inference_mode():
        return model(torch.tensor([ids]), model.new_cache(1, len(ids)))[0]


def windows(model_folder, texts):
    """Rows of WINDOW ids, all of them full."""
    from shoestring.tokenizer.bpe import Tokenizer

    tokenizer = Tokenizer.load(model_folder)
    ids = [i for path in texts for i in tokenizer.encode(Path(path).read_text(encoding="utf-8"))]
    return [ids[first : first + WINDOW] for first in range(0, len(ids) - WINDOW, WINDOW)]


def divergence(reference, other):
    """Mean KL(reference, other) in nats."""
    p, q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def quantized_rows(folder, rows, scratch):
    """[{engine, weights, kl_nats}], and the bits a weight takes."""
    from shoestring.model.gguf.exporter import export_gguf
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    plain = load_for_inference(Checkpoint.open(folder))
    reference = [cached_logits(plain, ids) for ids in rows]
    found = []
    for kind in ("int8", "int4"):
        model = load_for_inference(Checkpoint.open(folder), kind)
        values = [divergence(r, cached_logits(model, ids)) for r, ids in zip(reference, rows, strict=True)]
        found.append({"engine": "ours", "weights": kind, "kl_nats": sum(values) / len(values)})
    for kind in ("f32", "q8_0", "q4_0"):
        export_gguf(Checkpoint.open(folder), scratch / f"{kind}.gguf", kind)
        model = LlamaCpp(scratch / f"{kind}.gguf")
        values = [divergence(r, model.logits(ids)) for r, ids in zip(reference, rows, strict=True)]
        found.append({"engine": "llama.cpp", "weights": kind, "kl_nats": sum(values) / len(values)})
    return found


def greedy_rows(folder, rows, scratch):
    """How many of the prompts all three continue alike, and the gaps where they do not."""
    from transformers import AutoModelForCausalLM

    from shoestring.engine.engine import Engine, EngineSettings
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    prompts = [rows[i % len(rows)][: 8 + i % 40] for i in range(PROMPTS)]
    model = load_for_inference(Checkpoint.open(folder))
    engine = Engine(model, None, EngineSettings(max_num_seqs=16, max_model_len=512))
    params = SamplingParams(temperature=0, max_tokens=CONTINUED, ignore_eos=True)
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
    found = []
    for name, continued in theirs.items():
        differ = []
        for i, ids in enumerate(prompts):
            got = continued(ids, CONTINUED)
            if got != ours[str(i)]:
                at = next(k for k, (a, b) in enumerate(zip(got, ours[str(i)], strict=True)) if a != b)
                best = cached_logits(model, ids + got[:at])[-1].topk(2).values
                differ.append(float(best[0] - best[1]))
        found.append({"engine": name, "prompts": len(prompts), "differ": len(differ), "logit_gaps": differ})
    return found


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
            print(f"{row['engine']:12}{row['weights']:6} KL {row['kl_nats']:.3e} nats a token")
        agreement = greedy_rows(arguments.model, rows, Path(scratch))
    for row in agreement:
        print(
            f"{row['engine']}: {row['differ']} of {row['prompts']} prompts differ from ours "
            f"{row['logit_gaps']}"
        )
    kl = {row["weights"]: row["kl_nats"] for row in divergences}
    met = (
        kl["int8"] <= kl["q8_0"] and kl["int4"] <= kl["q4_0"] and not any(row["differ"] for row in agreement)
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"divergence": divergences, "greedy": agreement}, indent=2) + "\n"
        )
    print("met" if met else "MISSED")
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
