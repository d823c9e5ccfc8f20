// The worker that keeps the page's files, so that it opens without the service.

interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL: () => string }): { createScriptURL(url: string): string };
}

const PLACE = "/app/worker.js";

/** Start it, where the browser has workers: on this machine, and over HTTPS. */
export async function startWorker(): Promise<void> {
  const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
  const policy = trustedTypes?.createPolicy("worker", { createScriptURL: () => PLACE });
  await navigator.serviceWorker?.register(policy?.createScriptURL(PLACE) ?? PLACE, { scope: "/" });
}
