from shoestring import LLM

llm = LLM(model="mini", runner="auto")
answers = ["3*8*1", "3+8+1", "a red house"]
outputs = llm.score("make 24 from 3,8,1", answers)
scores = [output.outputs.score for output in outputs]
best = answers[scores.index(max(scores))]
print(scores, best)
