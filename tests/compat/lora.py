from shoestring import LLM, LoRARequest, SamplingParams

llm = LLM(model="mini", enable_lora=False)
request = LoRARequest("sql-lora", 1, "/nowhere/sql-lora")
outputs = llm.generate("a", SamplingParams(max_tokens=2), lora_request=None)
refusals = []
for call in (
    lambda: llm.generate(["a"], SamplingParams(max_tokens=2), lora_request=request),
    lambda: llm.chat([{"role": "user", "content": "a"}], lora_request=request),
    lambda: LLM(model="mini", enable_lora=True, max_loras=1, max_lora_rank=8),
):
    try:
        call()
    except Exception as error:
        refusals.append(error)
