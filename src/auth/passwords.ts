/** Passwords become bcrypt hashes, in the text form that etcd stores, so that backups carry them from one to the other. */
import { rpcError } from "../api/index.ts";
import { utf8Bytes } from "../base/bytes.ts";
import type { Random } from "../base/random.ts";

/** Where hashing happens: it takes long (tens of milliseconds and more, by the cost), so never on the thread that serves. */
export interface PasswordHasher {
  /** bcrypt's text for the password; `salt` has the form of {@link newSalt}. Rejects with an EtcdError, also when the signal ends it. */
  hash(password: string, salt: string, signal?: AbortSignal): Promise<string>;
  /** False for every hash that is none. */
  verify(password: string, hash: string, signal?: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}

/** What lies behind is not looked at by bcrypt, so longer passwords are refused. */
const PASSWORD_BYTES_MAX = 72;
const SALT_BYTES = 16;
const ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** @throws password-too-long */
export function checkPassword(password: string): void {
  if (utf8Bytes(password).length > PASSWORD_BYTES_MAX) throw rpcError("password-too-long");
}

/** A random salt with version and cost, as bcrypt writes it: `$2a$10$` and 22 chars. */
export function newSalt(random: Random, cost: number): string {
  const bytes: number[] = [];
  for (let n = 0; n < SALT_BYTES; n++) bytes.push(random.below(256));
  return `$2a$${String(cost).padStart(2, "0")}$${bcryptBase64(bytes)}`;
}

/** A hash that no password has, for those who are not there: failing takes as long as with a wrong password. */
export function impossibleHash(cost: number): string {
  return `$2a$${String(cost).padStart(2, "0")}$${".".repeat(53)}`;
}

/** Base64 with an alphabet of its own, unpadded. */
function bcryptBase64(bytes: readonly number[]): string {
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      text += ALPHABET.charAt((held >> bits) & 63);
    }
  }
  return bits === 0 ? text : text + ALPHABET.charAt((held << (6 - bits)) & 63);
}
