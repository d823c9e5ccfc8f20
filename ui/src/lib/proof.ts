// A proof of work in ALTCHA's form: a number whose key, derived with the challenge's salt, begins as asked.

interface Challenge {
  parameters: {
    algorithm: string;
    nonce: string;
    salt: string;
    cost: number;
    keyLength: number;
    keyPrefix: string;
  };
  signature: string;
}

const bytes = (hex: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (buffer: ArrayBuffer): string =>
  Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The solution of a challenge, as `proof` of a sign-up; it takes some seconds. */
export async function solve(challenge: Challenge): Promise<string> {
  const { nonce, salt, cost, keyLength, keyPrefix } = challenge.parameters;
  const prefix = bytes(nonce);
  for (let counter = 0; ; counter++) {
    const password = new Uint8Array(prefix.length + 4);
    password.set(prefix);
    new DataView(password.buffer).setUint32(prefix.length, counter);
    const key = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
    const rule = { name: "PBKDF2", hash: "SHA-256", salt: bytes(salt), iterations: cost };
    const derivedKey = hex(await crypto.subtle.deriveBits(rule, key, keyLength * 8));
    if (derivedKey.startsWith(keyPrefix))
      return btoa(JSON.stringify({ challenge, solution: { counter, derivedKey } }));
  }
}
