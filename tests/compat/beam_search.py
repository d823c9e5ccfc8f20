from shoestring import LLM
from shoestring.sampling_params import BeamSearchParams

llm = LLM(model="mini")
params = BeamSearchParams(beam_width=3, max_tokens=6)
outputs = llm.beam_search([{"prompt": "make 24 from 3,8,1"}, {"prompt": "make 6 from 7,8,9"}], params)
for output in outputs:
    for sequence in output.sequences:
        print(sequence.cum_logprob, sequence.text)
