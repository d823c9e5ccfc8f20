// npm openai against two servers: at the second root URL is a model that ends its tool calls.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [root, calling] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${root}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Use 3, 5, 7 to make 22." }];
const chat = { model: "mini", messages, temperature: 0, max_tokens: 120 };
const parameters = {
  type: "object",
  properties: { x: { type: "string", enum: ["left", "right"] } },
  required: ["x"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "look", parameters } }];
const forced = { tools, tool_choice: "required", parallel_tool_calls: false };
const schema = { type: "object", properties: { right: { type: "boolean" } }, required: ["right"], additionalProperties: false };

const whole = await client.chat.completions.create(chat);
assert.equal(whole.choices[0].finish_reason, "stop");
assert.ok(whole.choices[0].message.reasoning_content);

const streamed = await client.chat.completions.stream(chat).finalChatCompletion();
assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content);

const called = await client.chat.completions.stream({ ...chat, ...forced }).finalChatCompletion();
assert.equal(called.choices[0].finish_reason, "tool_calls");
const [call] = called.choices[0].message.tool_calls;
assert.ok(["left", "right"].includes(JSON.parse(call.function.arguments).x));

const caller = new OpenAI({ baseURL: `${calling}/v1`, apiKey: "none", maxRetries: 0 });
const runner = caller.chat.completions.runTools({
  ...chat,
  tools: [{ type: "function", function: { name: "look", parameters, parse: JSON.parse, function: () => "4" } }],
});
assert.equal(typeof (await runner.finalContent()), "string");

const format = { type: "json_schema", json_schema: { name: "verdict", schema, strict: true } };
const verdict = await client.chat.completions.parse({ ...chat, response_format: format });
assert.equal(typeof verdict.choices[0].message.parsed.right, "boolean");

const ask = { model: "mini", input: "Use 3, 5, 7 to make 22.", temperature: 0, max_output_tokens: 200, reasoning: { effort: "high" } };
const response = await client.responses.create(ask);
const final = await client.responses.stream(ask).finalResponse();
assert.equal(final.output_text, response.output_text);
assert.deepEqual(response.output.map((item) => item.type), ["reasoning", "message"]);

await assert.rejects(client.chat.completions.create({ ...chat, model: "gpt-9" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...chat, temperature: 9 }), OpenAI.BadRequestError);
const leaving = await client.chat.completions.create({ ...chat, stream: true });
for await (const chunk of leaving) {
  assert.ok(chunk.id);
  leaving.controller.abort();
}
console.log("9 parts passed");
