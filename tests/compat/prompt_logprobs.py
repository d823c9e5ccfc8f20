import math

from shoestring import LLM, SamplingParams

llm = LLM(model="mini", enable_prefix_caching=True)
sampling_params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1)
outputs = [llm.generate(["make 24 from 3,8,1"], sampling_params)[0] for _ in range(2)]
prompt_logprobs = outputs[0].prompt_logprobs
token_ids = outputs[0].prompt_token_ids
nll = -sum(entry[i].logprob for i, entry in zip(token_ids[1:], prompt_logprobs[1:], strict=True))
perplexity = math.exp(nll / (len(token_ids) - 1))
print(perplexity)
