import json

from shoestring import LLM, SamplingParams
from shoestring.sampling_params import GuidedDecodingParams

schema = {
    "type": "object",
    "properties": {"brand": {"enum": ["A", "B"]}},
    "required": ["brand"],
    "additionalProperties": False,
}
llm = LLM(model="mini", max_model_len=256)
results = []
for structure in (
    GuidedDecodingParams(choice=["Positive", "Negative"]),
    GuidedDecodingParams(regex=r"\w{2,5}@\w{2,5}\.com", backend="outlines"),
    GuidedDecodingParams(json=schema, disable_fallback=True),
):
    sampling_params = SamplingParams(temperature=0, max_tokens=80, guided_decoding=structure)
    outputs = llm.generate("Classify this: good", sampling_params)
    results.append(outputs[0].outputs[0].text)
car = json.loads(results[-1])
