from shoestring import LLM, SamplingParams

llm = LLM(model="mini", max_logprobs=50)
outputs = {}
for count in (0, 5, 30, -1):
    sampling_params = SamplingParams(temperature=0.0, max_tokens=4, logprobs=count)
    outputs[count] = llm.generate("make 24 from 3,8,1", sampling_params)[0].outputs[0]
for token_id, logprobs in zip(outputs[5].token_ids, outputs[5].logprobs, strict=True):
    for candidate, logprob in logprobs.items():
        print(token_id, candidate, logprob.rank, logprob.decoded_token, logprob.logprob)
