from shoestring import LLM
from shoestring.sampling_params import SamplingParams

llm = LLM("mini", swap_space=4, max_num_seqs=16)
base = SamplingParams(
    n=2, temperature=0.9, top_k=50, min_p=0.05, repetition_penalty=1.1, max_tokens=8, stop=None
)
greedy = base.clone()
greedy.n = 1
greedy.temperature = 0.0
banned = SamplingParams(temperature=0, max_tokens=8, bad_words=["a", "the"], logit_bias={"20": -100.0})
allowed = SamplingParams(temperature=0, max_tokens=8, allowed_token_ids=[20, 21, 22], ignore_eos=True)
outputs = llm.generate(["make 24 from 3,8,1"] * 4, [base, greedy, banned, allowed])
for output in outputs:
    for completion in output.outputs:
        print(completion.index, completion.text, completion.finish_reason, completion.finished())
