import tempfile
from pathlib import Path

import torch

from shoestring import LLM, LoRARequest, SamplingParams
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.hub import resolve
from shoestring.model.hf.peft import save_adapter
from shoestring.model.lora import LoraConfig, add_adapters


def train(folder: Path, seed: int) -> str:
    """An adapter, as some training would leave it."""
    model = load_model(Checkpoint.open(resolve("mini")))
    add_adapters(model, LoraConfig(rank=8), torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(seed))
    save_adapter(model, folder, base="mini")
    return str(folder)


with tempfile.TemporaryDirectory() as scratch:
    sql_path, poem_path = train(Path(scratch) / "sql", 1), train(Path(scratch) / "poem", 2)
    llm = LLM(model="mini", enable_lora=True, max_loras=2, max_lora_rank=8, max_cpu_loras=2)
    sampling_params = SamplingParams(temperature=0, max_tokens=8, stop=["[/assistant]"])
    prompts = ["Write a query: all users", "Write a query: all orders"]
    sql = LoRARequest("sql-lora", 1, sql_path)
    poem = LoRARequest(lora_name="poem", lora_int_id=2, lora_path=poem_path)
    plain = llm.generate(prompts, sampling_params)
    adapted = llm.generate(prompts, sampling_params, lora_request=sql)
    mixed = llm.generate(prompts * 3, sampling_params, lora_request=[None] * 2 + [sql] * 2 + [poem] * 2)
    chat = llm.chat([{"role": "user", "content": "a poem"}], sampling_params, lora_request=poem)
for output in mixed:
    print(output.prompt, output.outputs[0].text)
