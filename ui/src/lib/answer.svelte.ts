// Answers: the service writes them, whether this page is there or not; the page reads along.

import { untrack } from "svelte";
import { call, events, send, ServiceError } from "./api";
import { keep, putFirst, readMessages, tell } from "./chats.svelte";
import { memory } from "./memory.svelte";
import { branch, newId, newMessage, promptText, titleOf, type Attachment, type Chat, type Message } from "./tree";
import { word } from "./words.svelte";

const LONGEST_PAUSE_MS = 5000;
const MISSES = 2;

const sleep = (ms: number): Promise<void> => new Promise((wake) => setTimeout(wake, ms));

/** Answers that this page reads, by the id of their message. */
export const running = $state<Record<string, { place: number | null; isLost: boolean }>>({});

/** Ask: a new message of the user after `parent`, and the answer of each model. */
export async function ask(chat: Chat, text: string, parent: string | null, attachments: Attachment[] = []): Promise<void> {
  if (!chat.title) chat.title = titleOf(text || attachments[0]!.name);
  const question = add(chat, newMessage({ role: "user", content: text, attachments, parent }));
  await answer(chat, question);
}

/** Answer a message of the user, by each model of the chat. */
export async function answer(chat: Chat, question: Message): Promise<void> {
  const created_ms = Date.now();
  const models = [...new Set([chat.settings.model, ...chat.settings.models])];
  const ids = models.map(newId).sort(); // answers of the same moment are shown in the order of their ids
  const answers = models.map((model, index) =>
    add(chat, newMessage({ id: ids[index], role: "assistant", parent: question.id, model, created_ms, is_running: true })),
  );
  chat.leaf = answers[0]!.id;
  const requests = answers.map((message) => request(chat, message, question.id));
  await begin(chat, answers, requests, [question]);
}

/** Let an answer that ended early go on, as a new version of it. */
export async function goOn(chat: Chat, message: Message): Promise<void> {
  const { content, reasoning_content, parent, model } = message;
  const more = { ...request(chat, message, message.id), continue_final_message: true, add_generation_prompt: false };
  const next = add(chat, newMessage({ role: "assistant", content, reasoning_content, parent, model, is_running: true }));
  await begin(chat, [next], [more], []);
}

/** Stop an answer; what there is of it stays. */
export async function stop(message: Message): Promise<void> {
  await call("DELETE", `/answers/${message.id}`).catch(() => undefined);
}

/** Read along with the answers of a chat that another page has asked for, or this one before it was loaded. */
export function resume(chat: Chat): void {
  for (const message of Object.values(chat.messages ?? {}))
    if (message.is_running && !(message.id in untrack(() => running))) untrack(() => void read(chat, message));
}

/** Put a message into its chat; returns it as the page follows it. */
function add(chat: Chat, message: Message): Message {
  chat.messages![message.id] = message;
  chat.leaf = message.id;
  return chat.messages![message.id]!;
}

async function begin(chat: Chat, answers: Message[], requests: object[], earlier: Message[]): Promise<void> {
  for (const message of answers) running[message.id] = { place: null, isLost: false };
  try {
    await keep(chat, ...earlier, ...answers);
    await Promise.all(
      answers.map((message, index) =>
        call("POST", "/answers", {
          id: message.id,
          chat: chat.place === "server" ? chat.id : null,
          beginning: { content: message.content, reasoning_content: message.reasoning_content },
          request: requests[index],
        }),
      ),
    );
  } catch (error) {
    for (const message of answers) fail(message, error);
    await keep(chat, ...answers).catch(() => undefined);
    return;
  }
  tell(chat);
  await Promise.all(answers.map((message) => read(chat, message)));
}

function fail(message: Message, error: unknown): void {
  message.error = sentence(error);
  message.finish_reason ??= "interrupted";
  message.is_running = false;
  delete running[message.id];
}

/** Read an answer to its end, through lost connections. */
async function read(chat: Chat, message: Message): Promise<void> {
  running[message.id] ??= { place: null, isLost: false };
  const reader = new Reader(message);
  let misses = 0; // another tab may have kept the message, and not asked yet
  for (let pause = 500; message.is_running; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
    try {
      const reply = await send("GET", `/answers/${message.id}?after=${reader.last}`);
      running[message.id]!.isLost = false;
      pause = 500;
      await reader.take(reply);
    } catch (error) {
      const isMissing = error instanceof ServiceError && error.status === 404;
      if (isMissing && ++misses > MISSES) await missing(chat, message);
      else if (isMissing) await sleep(pause);
      else if (error instanceof ServiceError && error.status !== 0) fail(message, error);
      else {
        running[message.id]!.isLost = true;
        await sleep(pause);
      }
    }
  }
  delete running[message.id];
  if (chat.place !== "server") await keep(chat, message);
  else void sync(chat, message);
}

/** An answer that the service does not know any more: its message in the chat has what there is of it. */
async function missing(chat: Chat, message: Message): Promise<void> {
  const text = message.content;
  message.is_running = false;
  message.finish_reason ??= "interrupted";
  if (chat.place !== "server") return;
  await readMessages(chat, true);
  // A killed service may have kept a little less than the reader has seen.
  const kept = chat.messages![message.id]!;
  kept.is_running = false;
  if (text.startsWith(kept.content) && text.length > kept.content.length) {
    kept.content = text;
    await keep(chat, kept);
  }
}

/** The chat's place in the list, after an answer. */
async function sync(chat: Chat, message: Message): Promise<void> {
  putFirst(chat);
  tell(chat);
  if (message.error) await keep(chat).catch(() => undefined);
}

/** The events of an answer, put into its message from the first one on. */
class Reader {
  last = 0;

  constructor(private readonly message: Message) {
    message.content = message.reasoning_content = "";
  }

  async take(reply: Response): Promise<void> {
    for await (const { id, data } of events(reply)) {
      if (id) this.last = id;
      if (data === null) {
        this.message.is_running = false;
        this.message.finish_reason ??= "stop";
      } else this.event(data);
    }
  }

  private event(event: any): void {
    const { message } = this;
    if (event.error) throw new ServiceError(event.error.message, 500);
    const state = running[message.id];
    if (state) state.place = event.object === "place" ? event.place : null;
    const choice = event.choices?.[0];
    if (choice) {
      message.reasoning_content += choice.delta?.reasoning_content ?? "";
      message.content += choice.delta?.content ?? "";
      if (choice.finish_reason) message.finish_reason = choice.finish_reason;
    }
    if (event.figures) message.figures = event.figures;
  }
}

/** The request of an answer: the branch that ends with `leaf`, and the chat's settings. */
export function request(chat: Chat, message: Message, leaf: string): Record<string, unknown> & { messages: object[] } {
  const { system, thinking, effort, temperature, top_p, max_tokens } = chat.settings;
  const messages: object[] = branch(chat, leaf).map((each) => ({ role: each.role, content: promptText(each) }));
  const instructions = [system.trim(), memory.prompt()].filter(Boolean).join("\n\n");
  if (instructions) messages.unshift({ role: "system", content: instructions });
  return {
    model: message.model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...(thinking === "auto" ? {} : { thinking: { type: thinking === "on" ? "enabled" : "disabled" } }),
    ...(effort === null ? {} : { reasoning_effort: effort }),
    ...(temperature === null ? {} : { temperature }),
    ...(top_p === null ? {} : { top_p }),
    ...(max_tokens === null ? {} : { max_tokens }),
  };
}

/** The sentence that says to the reader what went wrong. */
export function sentence(error: unknown): string {
  if (!(error instanceof ServiceError) || error.status === 0) return word("unreachable");
  const wait = error.retryAfterS ? ` ${word("comeBack", error.retryAfterS)}` : "";
  return error.message + wait;
}
