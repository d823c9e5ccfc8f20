from shoestring import LLM, SamplingParams

llm = LLM(model="mini", tokenizer_mode="auto", revision=None, seed=0)
tokenizer = llm.get_tokenizer()
conversation = [{"role": "user", "content": "make 24 from 3,8,1"}]
text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
ids = tokenizer.apply_chat_template(conversation, tokenize=True, add_generation_prompt=True)
sampling_params = SamplingParams(temperature=0, max_tokens=32, stop_token_ids=[tokenizer.eos_token_id])
by_text = llm.generate([text], sampling_params)[0]
by_ids = llm.generate({"prompt_token_ids": ids}, sampling_params)[0]
by_chat = llm.chat(conversation, sampling_params)[0]
encoded = tokenizer.encode(text, add_special_tokens=False)
print(tokenizer.decode(by_text.outputs[0].token_ids, skip_special_tokens=True))
