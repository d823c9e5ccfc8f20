import json

from shoestring import LLM, SamplingParams
from shoestring.sampling_params import StructuredOutputsParams

schema = {
    "type": "object",
    "properties": {"brand": {"enum": ["A", "B"]}, "sporty": {"type": "boolean"}},
    "required": ["brand", "sporty"],
    "additionalProperties": False,
}
llm = LLM(model="mini", max_model_len=256)
results = {}
for name, structure in {
    "choice": StructuredOutputsParams(choice=["Positive", "Negative"]),
    "regex": StructuredOutputsParams(regex=r"\w{2,5}@\w{2,5}\.com"),
    "json": StructuredOutputsParams(json=schema),
}.items():
    sampling_params = SamplingParams(temperature=0, max_tokens=80, structured_outputs=structure)
    outputs = llm.generate(prompts="Classify this: good", sampling_params=sampling_params)
    results[name] = outputs[0].outputs[0].text
car = json.loads(results["json"])
