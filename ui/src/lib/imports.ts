// Chats from files: ours, Open WebUI's export, and ChatGPT's conversations.json.

import { FORMAT } from "./exports";
import { newChat } from "./chats.svelte";
import { newId, newMessage, titleOf, type Chat, type Message } from "./tree";

type Json = any;

/** The chats of a file. Throws SyntaxError for a file that has none. */
export function readFile(text: string): Chat[] {
  const content: Json = JSON.parse(text);
  const all: Json[] = Array.isArray(content) ? content : (content?.chats ?? [content]);
  const read = content?.format === FORMAT ? readOurs : reader(all[0]);
  const chats = read ? all.map(read).filter((chat) => Object.keys(chat.messages!).length > 0) : [];
  if (chats.length === 0) throw new SyntaxError("no chats");
  return chats;
}

function reader(first: Json): ((chat: Json) => Chat) | null {
  if (first?.mapping) return readChatGpt;
  if (first?.chat?.history?.messages || first?.history?.messages) return readOpenWebUi;
  return null;
}

const string = (value: Json): string => (typeof value === "string" ? value : "");
const id = (value: Json): string => (/^[\w-]{8,40}$/.test(string(value)) ? value : newId());
const ms = (seconds: Json): number => (Number.isFinite(seconds) ? Math.round(seconds * (seconds < 1e11 ? 1000 : 1)) : Date.now());

function readOurs(chat: Json): Chat {
  const empty = newChat(string(chat?.settings?.model), "browser");
  const messages = (Array.isArray(chat?.messages) ? chat.messages : []).filter((each: Json) => each?.id);
  return finished({
    ...empty,
    id: id(chat.id),
    title: string(chat.title),
    folder: chat.folder ? string(chat.folder) : null,
    is_pinned: chat.is_pinned === true,
    created_ms: ms(chat.created_ms),
    changed_ms: ms(chat.changed_ms),
    leaf: chat.leaf ?? null,
    settings: { ...empty.settings, ...chat.settings },
    messages: byId(messages.map((each: Json) => newMessage({ ...each, is_running: false }))),
  });
}

function readOpenWebUi(row: Json): Chat {
  const chat = row.chat ?? row;
  const known: Json[] = Object.values(chat.history.messages);
  const names = new Map(known.map((each) => [each.id, id(each.id)]));
  const messages = known
    .filter((each) => each.role === "user" || each.role === "assistant")
    .map((each) => {
      const { thinking, text } = splitThinking(string(each.content));
      return newMessage({
        id: names.get(each.id)!,
        parent: names.get(each.parentId) ?? null,
        role: each.role,
        content: text,
        reasoning_content: thinking,
        model: each.role === "assistant" ? string(each.model) || null : null,
        created_ms: ms(each.timestamp),
      });
    });
  return finished({
    ...newChat(string(chat.models?.[0]), "browser"),
    id: id(row.id ?? chat.id),
    title: string(row.title ?? chat.title),
    is_pinned: row.pinned === true,
    created_ms: ms(row.created_at),
    changed_ms: ms(row.updated_at),
    leaf: names.get(chat.history.currentId) ?? null,
    messages: byId(messages),
  });
}

/** Open WebUI keeps thinking in the text, as a <details type="reasoning"> with quoted lines. */
function splitThinking(content: string): { thinking: string; text: string } {
  const found = /<details[^>]*type="reasoning"[^>]*>\s*<summary>[^<]*<\/summary>([\s\S]*?)<\/details>\s*/.exec(content);
  if (!found) return { thinking: "", text: content };
  const quoted = found[1]!.trim().replaceAll(/^(?:>|&gt;) ?/gm, "");
  return { thinking: quoted, text: content.replace(found[0], "") };
}

function readChatGpt(conversation: Json): Chat {
  const nodes: Record<string, Json> = conversation.mapping;
  const names = new Map(Object.keys(nodes).map((key) => [key, id(key)]));
  const thoughts = new Map<string, string>();
  const messages: Message[] = [];
  for (const [key, node] of Object.entries(nodes)) {
    const role = node.message?.author?.role;
    const text = chatGptText(node.message?.content);
    const isShown = (role === "user" || role === "assistant") && text && !node.message.metadata?.is_visually_hidden_from_conversation;
    if (node.message?.content?.content_type === "thoughts") thoughts.set(key, chatGptThoughts(node.message.content));
    if (!isShown) continue;
    const { parent, thinking } = shownParent(nodes, node.parent, thoughts);
    messages.push(
      newMessage({
        id: names.get(key)!,
        parent: parent === null ? null : names.get(parent)!,
        role,
        content: text,
        reasoning_content: role === "assistant" ? thinking : "",
        model: role === "assistant" ? string(node.message.metadata?.model_slug) || null : null,
        created_ms: ms(node.message.create_time),
      }),
    );
  }
  const end = shownParent(nodes, conversation.current_node, thoughts).parent;
  return finished({
    ...newChat("", "browser"),
    id: id(conversation.conversation_id ?? conversation.id),
    title: string(conversation.title),
    created_ms: ms(conversation.create_time),
    changed_ms: ms(conversation.update_time),
    leaf: end === null ? null : names.get(end)!,
    messages: byId(messages),
  });
}

/** The nearest message that is shown, from a node upwards, and the thinking on the way. */
function shownParent(nodes: Record<string, Json>, from: string | null, thoughts: Map<string, string>): { parent: string | null; thinking: string } {
  const seen = new Set<string>();
  let thinking = "";
  for (let key = from ?? null; key !== null && nodes[key] && !seen.has(key); key = nodes[key].parent ?? null) {
    seen.add(key);
    const message = nodes[key].message;
    if (message?.content?.content_type === "thoughts") thinking = [thoughts.get(key) ?? chatGptThoughts(message.content), thinking].filter(Boolean).join("\n\n");
    const role = message?.author?.role;
    const isHidden = message?.metadata?.is_visually_hidden_from_conversation;
    if ((role === "user" || role === "assistant") && chatGptText(message.content) && !isHidden) return { parent: key, thinking };
  }
  return { parent: null, thinking };
}

const chatGptThoughts = (content: Json): string =>
  (content.thoughts ?? []).map((each: Json) => [each.summary, each.content].filter(Boolean).join("\n")).join("\n\n");

function chatGptText(content: Json): string {
  if (content?.content_type !== "text" && content?.content_type !== "multimodal_text") return "";
  return (content.parts ?? []).filter((part: Json) => typeof part === "string").join("\n");
}

const byId = (messages: Message[]): Record<string, Message> =>
  Object.fromEntries(messages.map((message) => [message.id, message]));

/** A chat whose messages hang together: a parent that is not there is none, and the leaf is there. */
function finished(chat: Chat): Chat {
  const messages = chat.messages!;
  const all = Object.values(messages);
  for (const message of all) if (message.parent !== null && !messages[message.parent]) message.parent = null;
  if (chat.leaf === null || !messages[chat.leaf]) chat.leaf = all.at(-1)?.id ?? null;
  chat.title ||= titleOf(all.find((message) => message.role === "user")?.content ?? "");
  chat.settings.model ||= all.findLast((message) => message.model)?.model ?? "";
  return chat;
}
