from shoestring import LLM, SamplingParams

prompts = ["make 24 from 3,8,1", "make 12 from 4,8,6", "make 6 from 7,8,9", "The future of AI is"]
sampling_params = SamplingParams(temperature=0.8, top_p=0.95)

llm = LLM(model="mini", dtype="auto", gpu_memory_utilization=0.9, tensor_parallel_size=1)
outputs = llm.generate(prompts, sampling_params)
for output in outputs:
    print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")
