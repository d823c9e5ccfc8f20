// Chats of this browser, in IndexedDB; each account has a database of its own.

import type { Chat } from "./tree";

let name = "shoestring";

/** Keep the chats of one account apart from those of others who use this browser. */
export function chooseOwner(id: string): void {
  name = `shoestring ${id}`;
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("chats", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run<T>(mode: IDBTransactionMode, work: (chats: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction("chats", mode);
      const request = work(transaction.objectStore("chats"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** All chats, with their messages. */
export const readChats = (): Promise<Chat[]> => run("readonly", (chats) => chats.getAll());

export const readChat = (id: string): Promise<Chat | undefined> => run("readonly", (chats) => chats.get(id));

export const writeChat = (chat: Chat): Promise<IDBValidKey> =>
  run("readwrite", (chats) => chats.put(JSON.parse(JSON.stringify(chat))));

export const deleteChat = (id: string): Promise<undefined> => run("readwrite", (chats) => chats.delete(id));

/** Delete all chats that this browser keeps for an account. */
export function eraseChats(id: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(`shoestring ${id}`);
    request.onsuccess = () => resolve();
    request.onerror = () => reject(request.error);
  });
}
