from shoestring import LLM

llm = LLM(model="mini", trust_remote_code=False, enforce_eager=True, max_model_len=512)
sampling_params = llm.get_default_sampling_params()
sampling_params.max_tokens = 64
sampling_params.temperature = 0.5

conversation = [
    {"role": "system", "content": "You solve puzzles."},
    {"role": "user", "content": "make 24 from 3,8,1"},
]
outputs = llm.chat(conversation, sampling_params, use_tqdm=False)
conversations = [conversation for _ in range(3)]
many = llm.chat(messages=conversations, sampling_params=sampling_params, use_tqdm=True)
for output in outputs + many:
    print(f"Prompt: {output.prompt!r}, Generated text: {output.outputs[0].text!r}")
