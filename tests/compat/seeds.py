from shoestring import LLM, SamplingParams

llm = LLM(model="mini", seed=0, enforce_eager=True)


def sample(seed):
    params = SamplingParams(temperature=1.5, max_tokens=12, seed=seed, n=2)
    return [completion.text for completion in llm.generate("make 24 from 3,8,1", params)[0].outputs]


first, second, other = sample(42), sample(42), sample(43)
free = [sample(-1), sample(None), sample(-1)]
