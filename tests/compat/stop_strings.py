from shoestring import LLM, SamplingParams

llm = LLM(model="mini")
whole = llm.generate("make 24 from 3,8,1", SamplingParams(temperature=0, max_tokens=12))[0].outputs[0]
stop = whole.text[4:6]
cut = llm.generate("make 24 from 3,8,1", SamplingParams(temperature=0, max_tokens=12, stop=stop))[0].outputs[
    0
]
params = SamplingParams(temperature=0, max_tokens=12, stop=[stop, "\n\n\n"], include_stop_str_in_output=True)
kept = llm.generate("make 24 from 3,8,1", params)[0].outputs[0]
print(repr(cut.text), cut.finish_reason, cut.stop_reason)
