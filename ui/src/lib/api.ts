// Calls to the service that this page comes from; an error is one sentence for the reader.

export class ServiceError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly retryAfterS: number | null = null,
  ) {
    super(message);
  }
}

/** Characters of a body that browsers send to its end for a page that is left: 64 KiB in UTF-8. */
const KEPT_ALIVE = 15_000;

export interface Person {
  id: string;
  email: string | null;
  role: "user" | "admin";
  has_codes: boolean;
}

export interface Model {
  id: string;
  max_model_len: number;
}

/** The JSON that a route answers; null for an empty answer. */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const reply = await send(method, path, body);
  return (reply.status === 204 ? null : await reply.json()) as T;
}

/** The reply of a route that did not refuse. Throws ServiceError. */
export async function send(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<Response> {
  const isRaw = body instanceof Blob || body instanceof FormData;
  const isJson = body !== undefined && !isRaw;
  const text = isJson ? JSON.stringify(body) : "";
  let reply: Response;
  try {
    reply = await fetch(path, {
      method,
      signal,
      headers: isJson ? { "Content-Type": "application/json" } : {},
      body: isRaw ? body : text || undefined,
      keepalive: method === "PUT" && text.length < KEPT_ALIVE, // it is sent although the page goes
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServiceError("", 0);
  }
  if (reply.ok) return reply;
  const wait = Number(reply.headers.get("retry-after"));
  const content = await reply.json().catch(() => null);
  throw new ServiceError(content?.error?.message ?? content?.message ?? reply.statusText, reply.status, wait || null);
}

/** The events of a stream, with their numbers; [DONE] is null. */
export async function* events(reply: Response): AsyncGenerator<{ id: number | null; data: any }> {
  const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id: number | null = null;
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith("id: ")) id = Number(line.slice(4));
      if (!line.startsWith("data: ")) continue;
      const data = line.slice(6).trim();
      yield { id, data: data === "[DONE]" ? null : JSON.parse(data) };
      if (data === "[DONE]") return;
    }
  }
}

export interface Here {
  has_accounts: boolean;
  person: Person | null;
  has_chats: boolean;
}

/** Who is here, and whether the service keeps chats. */
export const whoIsHere = (): Promise<Here> => call("GET", "/auth/here");
