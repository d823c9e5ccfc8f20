from shoestring import LLM, SamplingParams

prefix = "You are an expert who solves puzzles with numbers, one step after the other. " * 6
prompts = ["make 24 from 3,8,1", "make 12 from 4,8,6", "make 6 from 7,8,9"]
sampling_params = SamplingParams(temperature=0.0, max_tokens=8)

llm = LLM(model="mini", enable_prefix_caching=True, gpu_memory_utilization=0.4)
llm.generate(prefix + prompts[0], sampling_params)
cached = llm.generate([prefix + prompt for prompt in prompts], sampling_params)
was_reset = llm.reset_prefix_cache()
again = llm.generate([prefix + prompt for prompt in prompts[:1]], sampling_params)
same = cached[0].outputs[0].text == again[0].outputs[0].text
print([output.num_cached_tokens for output in cached], was_reset, same)
