// @anthropic-ai/sdk against the server whose root URL is the first argument.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const [root] = process.argv.slice(2);
const client = new Anthropic({ baseURL: root, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Use 3, 5, 7 to make 22." }];
const ask = { model: "mini", messages, max_tokens: 2048 };
const input_schema = {
  type: "object",
  properties: { x: { type: "string", enum: ["left", "right"] } },
  required: ["x"],
  additionalProperties: false,
};
const tools = [{ name: "look", description: "Look.", input_schema }];

const whole = await client.messages.create({ ...ask, thinking: { type: "enabled", budget_tokens: 1024 } });
assert.deepEqual(whole.content.map((block) => block.type), ["thinking", "text"]);
assert.equal(whole.stop_reason, "end_turn");

const stream = client.messages.stream({ ...ask, thinking: { type: "enabled", budget_tokens: 1024 } });
let thinking = "";
stream.on("thinking", (delta) => (thinking += delta));
const final = await stream.finalMessage();
assert.equal(thinking, final.content[0].thinking);
assert.ok(final.usage.output_tokens > 0);

const forced = { tools, tool_choice: { type: "any", disable_parallel_tool_use: true } };
const called = await client.messages.stream({ ...ask, ...forced }).finalMessage();
assert.equal(called.stop_reason, "tool_use");
const use = called.content.at(-1);
assert.ok(["left", "right"].includes(use.input.x));
const history = [
  ...messages,
  { role: "assistant", content: called.content },
  { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "4" }] },
];
assert.ok((await client.messages.create({ ...ask, tools, tool_choice: { type: "none" }, messages: history })).id);

const schema = { type: "object", properties: { right: { type: "boolean" } }, required: ["right"], additionalProperties: false };
const formed = await client.messages.create({ ...ask, output_config: { format: { type: "json_schema", schema } } });
assert.equal(typeof JSON.parse(formed.content.at(-1).text).right, "boolean");

assert.ok((await client.messages.countTokens({ model: "mini", messages })).input_tokens > 5);
await assert.rejects(client.messages.create({ ...ask, model: "gpt-9" }), Anthropic.NotFoundError);
await assert.rejects(client.messages.create({ ...ask, max_tokens: 0 }), Anthropic.BadRequestError);
console.log("7 parts passed");
