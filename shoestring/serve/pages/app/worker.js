// Keeps the page's own files, so that it opens without the service and chats of this browser can be read.
// Nothing else passes here: no answer, no call, nothing that a person wrote. The build fills in the two lists.

const VERSION = "shoestring 7114e46261feff82";
const FILES = ["Account.css","Account.js","Admin.css","Admin.js","Api.css","Api.js","ChatFiles.css","ChatFiles.js","ChatMenu.css","ChatMenu.js","Code.js","Copy.js","Entry.css","Entry.js","Inspect.css","Inspect.js","Markdown2.js","Markdown3.js","Memory.css","Memory.js","Models.css","Models.js","Part.css","Part.js","Prices.css","Prices.js","Shortcuts.css","Shortcuts.js","Shown.css","Shown.js","Snippets.js","Thinking.css","Thinking.js","Training.css","Training.js","Translate.css","Translate.js","Usage.css","Usage.js","answer.svelte.js","app.js","disclose-version.js","download.js","exports.js","format.js","icon-192.png","icon-512.png","icon-full-512.png","icon.svg","legacy.js","manifest.webmanifest","markdown.js","math.js","offline.js","page.svelte.js","poll.svelte.js","share.css","share.js","theme.js","words-de-account.js","words-de-admin.js","words-de-api.js","words-de-chat.js","words-de-keeping.js","words-de-memory.js","words-de-models.js","words-de-pages.js","words-de-thinking.js","words-de-training.js","words-de-translate.js","words-en-account.js","words-en-admin.js","words-en-api.js","words-en-chat.js","words-en-keeping.js","words-en-memory.js","words-en-models.js","words-en-pages.js","words-en-thinking.js","words-en-training.js","words-en-translate.js","words-fr-account.js","words-fr-admin.js","words-fr-api.js","words-fr-chat.js","words-fr-keeping.js","words-fr-memory.js","words-fr-models.js","words-fr-pages.js","words-fr-thinking.js","words-fr-training.js","words-fr-translate.js","words-zh-account.js","words-zh-admin.js","words-zh-api.js","words-zh-chat.js","words-zh-keeping.js","words-zh-memory.js","words-zh-models.js","words-zh-pages.js","words-zh-thinking.js","words-zh-training.js","words-zh-translate.js","words.svelte.js"];
const OWN = new Set(["/", ...FILES.map((name) => `/app/${name}`)]);

self.addEventListener("install", (event) => {
  const requests = [...OWN].map((path) => new Request(path, { cache: "no-cache" }));
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const forget = (names) => Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name)));
  event.waitUntil(caches.keys().then(forget).then(() => self.clients.claim()));
});

// The service comes first, so that its files are never older than it is.
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const { origin, pathname } = new URL(url);
  if (method !== "GET" || origin !== self.location.origin || !OWN.has(pathname)) return;
  event.respondWith(fetch(event.request).catch(async (error) => (await caches.match(pathname)) ?? Promise.reject(error)));
});
