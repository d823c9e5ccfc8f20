// The AI SDK with two of its providers against two servers: at the second root URL is a model that ends its calls.
import assert from "node:assert/strict";
import { createDeepSeek } from "@ai-sdk/deepseek";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamObject, streamText, tool } from "ai";

const [root, calling] = process.argv.slice(2);
const providers = {
  "openai-compatible": (url) =>
    createOpenAICompatible({
      name: "shoestring",
      baseURL: `${url}/v1`,
      apiKey: "none",
      includeUsage: true,
      supportsStructuredOutputs: true,
    })("mini"),
  deepseek: (url) => createDeepSeek({ baseURL: url, apiKey: "none" })("deepseek-reasoner"),
};
const inputSchema = jsonSchema({
  type: "object",
  properties: { x: { type: "string", enum: ["left", "right"] } },
  required: ["x"],
  additionalProperties: false,
});
const schema = jsonSchema({
  type: "object",
  properties: { right: { type: "boolean" } },
  required: ["right"],
  additionalProperties: false,
});
const tools = { look: tool({ description: "Look.", inputSchema }) };

for (const [name, model] of Object.entries(providers)) {
  const ask = { model: model(root), prompt: "Use 3, 5, 7 to make 22.", maxOutputTokens: 200, maxRetries: 0 };
  if (name !== "deepseek") ask.temperature = 0; // that provider sends none while the model thinks

  const whole = await generateText(ask);
  assert.equal(whole.finishReason, "stop");
  assert.ok(whole.reasoningText, `${name} shows the thinking`);
  assert.ok(whole.usage.outputTokens > 0);

  const stream = streamText(ask);
  let text = "";
  for await (const delta of stream.textStream) text += delta;
  assert.ok(text);
  assert.ok(await stream.reasoningText);
  assert.ok((await stream.usage).outputTokens > 0);
  if (name !== "deepseek") assert.equal(text, whole.text);

  const forced = { ...ask, model: model(calling), tools, toolChoice: "required" };
  const called = await generateText(forced);
  assert.equal(called.finishReason, "tool-calls");
  assert.ok(["left", "right"].includes(called.toolCalls[0].input.x));
  const streamed = streamText(forced);
  await streamed.consumeStream();
  assert.deepEqual((await streamed.toolCalls).map((call) => call.input), called.toolCalls.map((call) => call.input));

  if (name !== "deepseek") {
    // This provider only writes the schema into the prompt, which a model that knows sums cannot follow.
    assert.equal(typeof (await generateObject({ ...ask, schema })).object.right, "boolean");
    const growing = streamObject({ ...ask, schema });
    for await (const part of growing.partialObjectStream) assert.equal(typeof part, "object");
    assert.equal(typeof (await growing.object).right, "boolean");
  }
  await assert.rejects(generateText({ ...ask, prompt: "1 ".repeat(20_000) }), APICallError.isInstance);
  console.log(`${name}: passed`);
}
