// Keeps the page's own files, so that it opens without the service and chats of this browser can be read.
// Nothing else passes here: no answer, no call, nothing that a person wrote. The build fills in the two lists.

const VERSION = "__VERSION__";
const FILES = __FILES__;
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
