from shoestring import LLM, SamplingParams, TextPrompt, TokensPrompt

llm = LLM(model="mini", max_num_seqs=4, max_num_batched_tokens=64, enable_chunked_prefill=True)
tokenizer = llm.get_tokenizer()
ids = [tokenizer.encode(f"make {total} from 3,8,1") for total in range(20)]
prompts = [TokensPrompt(prompt_token_ids=row) for row in ids] + [TextPrompt(prompt="make 7 from 3,8,1")]
outputs = llm.generate(prompts, sampling_params=SamplingParams(temperature=0, max_tokens=5))
total_tokens = sum(len(o.prompt_token_ids) + len(o.outputs[0].token_ids) for o in outputs)
texts = tokenizer.batch_decode([o.outputs[0].token_ids for o in outputs], skip_special_tokens=True)
print(total_tokens, texts)
