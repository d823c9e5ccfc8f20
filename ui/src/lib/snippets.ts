// Programs that ask this server, ready to be run.

export interface Snippet {
  name: string;
  text: string;
}

/** The same question in four ways, for a model of this server; `key` is empty where none is asked. */
export function snippets(origin: string, model: string, key: string): Snippet[] {
  const secret = key || "none";
  const question = "2+3=";
  const header = key ? ` \\\n  -H "Authorization: Bearer ${key}"` : "";
  const script = `const reply = await fetch("${origin}/v1/chat/completions", {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${key ? `\n    Authorization: "Bearer ${key}",` : ""}
  },
  body: JSON.stringify({
    model: "${model}",
    messages: [{ role: "user", content: "${question}" }],
  }),
});
console.log((await reply.json()).choices[0].message.content);`;
  const openai = `from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key="${secret}")
reply = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "${question}"}],
)
print(reply.choices[0].message.content)`;
  const anthropic = `from anthropic import Anthropic

client = Anthropic(base_url="${origin}", api_key="${secret}")
reply = client.messages.create(
    model="${model}",
    max_tokens=256,
    messages=[{"role": "user", "content": "${question}"}],
)
print("".join(block.text for block in reply.content if block.type == "text"))`;
  const curl = `curl ${origin}/v1/chat/completions${header} \\
  -H "Content-Type: application/json" \\
  -d '{"model": "${model}", "messages": [{"role": "user", "content": "${question}"}]}'`;
  return [
    { name: "curl", text: curl },
    { name: "openai-python", text: openai },
    { name: "anthropic-python", text: anthropic },
    { name: "JavaScript", text: script },
  ];
}
