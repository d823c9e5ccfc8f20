// The answer that is being written: it is read from the service and grows in its chat, whatever page is shown.

import { events, send, ServiceError } from "./api";
import { keep } from "./page.svelte";
import { branch, newId, titleOf, type Chat, type Message } from "./tree";
import { word } from "./words.svelte";

/** Answers under way, by the id of their message. */
export const running = $state<Record<string, AbortController>>({});

export function add(chat: Chat, fields: Pick<Message, "role" | "text" | "parent">): Message {
  const id = newId();
  chat.messages[id] = { id, thinking: "", timeMs: Date.now(), ...fields };
  chat.leaf = id;
  return chat.messages[id]!;
}

/** Ask: a new message of the user after `parent`, and its answer. */
export async function ask(chat: Chat, text: string, parent: string | null): Promise<void> {
  if (!chat.title) chat.title = titleOf(text);
  await answer(chat, add(chat, { role: "user", text, parent }).id);
}

/** Answer the branch that ends with a message of the user. */
export async function answer(chat: Chat, parent: string): Promise<void> {
  const message = add(chat, { role: "assistant", text: "", parent });
  message.model = chat.settings.model;
  await write(chat, message, false);
}

/** Let an answer that ended early go on. */
export async function goOn(chat: Chat, message: Message): Promise<void> {
  await write(chat, message, true);
}

async function write(chat: Chat, message: Message, isContinued: boolean): Promise<void> {
  const controller = new AbortController();
  running[message.id] = controller;
  message.error = message.finish = undefined;
  keep(chat);
  const begin = performance.now();
  const since = () => (performance.now() - begin) / 1000;
  try {
    const reply = await send("POST", "/v1/chat/completions", body(chat, message, isContinued), controller.signal);
    for await (const event of events(reply)) take(message, event, since());
  } catch (error) {
    if (!controller.signal.aborted) message.error = sentence(error);
    message.finish ??= "stopped";
  } finally {
    message.totalS = since();
    delete running[message.id];
    keep(chat);
  }
}

function body(chat: Chat, message: Message, isContinued: boolean): object {
  const { model, system, thinking, temperature, maxTokens } = chat.settings;
  const earlier = branch({ ...chat, leaf: isContinued ? message.id : message.parent });
  const messages: object[] = earlier.map(({ role, text }) => ({ role, content: text }));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  return {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...(thinking === "auto" ? {} : { thinking: { type: thinking === "on" ? "enabled" : "disabled" } }),
    ...(temperature === null ? {} : { temperature }),
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
    ...(isContinued ? { continue_final_message: true, add_generation_prompt: false } : {}),
  };
}

/** Take one event into a message. */
function take(message: Message, event: any, seconds: number): void {
  if (event.error) throw new ServiceError(event.error.message, 500);
  const choice = event.choices?.[0];
  if (choice) {
    const { reasoning_content: thinking = "", content = "" } = choice.delta ?? {};
    if (thinking || content) message.firstS ??= seconds;
    if (thinking) message.thinking += thinking;
    if (content) {
      if (message.thinking && message.thinkingS === undefined) message.thinkingS = seconds;
      message.text += content;
    }
    if (choice.finish_reason) message.finish = choice.finish_reason;
  }
  if (event.usage) {
    message.promptTokens = event.usage.prompt_tokens;
    message.cachedTokens = event.usage.prompt_tokens_details?.cached_tokens ?? 0;
    message.answerTokens = event.usage.completion_tokens;
    message.thinkingTokens = event.usage.completion_tokens_details?.reasoning_tokens ?? 0;
  }
}

/** What went wrong, for the reader. */
export function sentence(error: unknown): string {
  if (!(error instanceof ServiceError) || error.status === 0) return word("unreachable");
  const wait = error.retryAfterS ? ` ${word("comeBack", error.retryAfterS)}` : "";
  return error.message + wait;
}
