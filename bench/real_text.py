"""Quantization of a real model on real text: KL and bits per byte, beside llama.cpp's types.

    shoestring pull smollm2; python bench/real_text.py [--model smollm2] [--text FILE ...]

Prints, for int8 and int4 of this package as its engine computes them, the mean KL divergence (nats per token)
from the float32 model's next-token distributions and the bits per byte of the text, over windows of 256
tokens. Beside them Q8_0, Q4_1 and Q4_0: the same weights quantized by llama.cpp's own Python library and
multiplied in float32, which is better for them than llama.cpp's products with 8-bit activations. The text is
by default the reference of the Python language that comes with Python. Exit code 3 when int4 diverges more
than Q4_0, or int8 more than twice as much as Q8_0. Needs the gguf library.
"""

import argparse
import json
import math
import platform
import sys
from pathlib import Path

import torch

WINDOW, WINDOWS = 256, 12
TYPES = ("Q4_0", "Q4_1", "Q8_0")


def default_text():
    """The Python language reference."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def processor():
    """Name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def log_probs(model, rows):
    """Of the next token at every place of every window, as the engine computes them."""
    with torch.inference_mode():
        return [model(torch.tensor([ids]), model.new_cache(1, len(ids)))[0].log_softmax(-1) for ids in rows]


def llama_cpp_weights(model, kind):
    """Replace all matrices but the embedding, which keeps 8 bits, by what a GGUF type stands for."""
    import gguf

    for name, parameter in model.named_parameters():
        if parameter.dim() != 2:
            continue
        form = gguf.GGMLQuantizationType["Q8_0" if "embed_tokens" in name or "lm_head" in name else kind]
        values = gguf.quants.dequantize(gguf.quants.quantize(parameter.detach().numpy(), form), form)
        parameter.data.copy_(torch.from_numpy(values.reshape(parameter.shape)))
    return model


def figures(reference, other, rows, num_bytes):
    """KL divergence in nats per token and bits per byte."""
    pairs = zip(reference, other, strict=True)
    kl = [float((p.exp() * (p - q)).sum(-1).mean()) for p, q in pairs]
    nats = sum(
        -float(q[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum())
        for q, ids in zip(other, rows, strict=True)
    )
    return {"kl_nats": sum(kl) / len(kl), "bits_per_byte": nats / math.log(2) / num_bytes}


def measure(folder, rows, num_bytes):
    """Figures of every form of the weights: yields (name, figures)."""
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model
    from shoestring.model.packed.quantize import load_for_inference

    checkpoint = Checkpoint.open(folder)
    reference = log_probs(load_for_inference(checkpoint), rows)
    yield "float32", figures(reference, reference, rows, num_bytes)
    for kind in ("int4", "int8"):
        model = load_for_inference(checkpoint, kind)
        yield kind, figures(reference, log_probs(model, rows), rows, num_bytes)
    for kind in TYPES:
        model = llama_cpp_weights(load_model(checkpoint), kind)
        yield kind, figures(reference, log_probs(model, rows), rows, num_bytes)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--text", type=Path, nargs="+")
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from shoestring.model.hf.hub import resolve
    from shoestring.tokenizer.bpe import Tokenizer

    folder = resolve(arguments.model)
    texts = [path.read_text(encoding="utf-8") for path in arguments.text or []] or [default_text()]
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("\n\n".join(texts)[: 40 * WINDOW * arguments.windows])
    rows = [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW, WINDOW)][: arguments.windows]
    num_bytes = sum(len(tokenizer.decode(row[1:]).encode()) for row in rows)
    print(f"{arguments.model}, {len(rows)} windows of {WINDOW} tokens, {num_bytes:,} bytes; {processor()}")
    results = {}
    for kind, row in measure(folder, rows, num_bytes):
        results[kind] = row
        numbers = f"{row['bits_per_byte']:.5f} bits per byte, KL {row['kl_nats']:.5f} nats per token"
        print(f"{kind:8} {numbers}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    kl = {kind: row["kl_nats"] for kind, row in results.items()}
    is_met = kl["int4"] <= kl["Q4_0"] and kl["int8"] <= 2 * kl["Q8_0"]
    print("met" if is_met else "MISSED")
    return 0 if is_met else 3


if __name__ == "__main__":
    sys.exit(main())
