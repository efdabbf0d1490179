import { createHash } from "node:crypto";
import { rpcError } from "../api/index.ts";
import type { LogIndex, Revision } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Identity } from "./auth-store.ts";
import type { CancelSignal, TokenGrant, TokenProvider, TokenSecret } from "./tokens.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SECRET_LETTERS = 16;
/** Ours are much shorter. */
const TOKEN_CHARS_MAX = 256;
/** The tokens used longest ago go first. A login costs a password hash, so only many users within one lifetime come here. */
const TOKENS_MAX = 200_000;

export interface SimpleTokensOptions<Signal extends CancelSignal> {
  /** Monotonic. */
  readonly nowMs: () => number;
  readonly random: Random;
  /** How long a token lives after its last use on this member. */
  readonly ttlMs: number;
  /** The current auth revision: a simple token is as good as a login of now. */
  readonly revision: () => Revision;
  readonly appliedIndex: () => LogIndex;
  /** Resolves when that index is applied here. Rejects with an EtcdError; bounded in time and number by the owner. */
  readonly waitApplied: (index: LogIndex, signal: Signal | undefined) => Promise<void>;
  readonly tokensMax?: number;
}

/** What a token stands for. */
interface Holder {
  readonly key: string;
  readonly username: string;
  deadlineMs: number;
  /** The token, once it was used here. */
  token: string | undefined;
}

/**
 * Tokens as random text, known to every member because the login went through the log, and forgotten with the process. The number behind the dot is the
 * login's index in the log: a member that has not got so far waits before it calls the token unknown. In the log stands a digest of the random part, so that
 * whoever reads the log or a copy of it cannot pass for anybody. (In etcd it is the token itself.)
 */
export class SimpleTokens<Signal extends CancelSignal> implements TokenProvider<Signal> {
  readonly #options: SimpleTokensOptions<Signal>;
  /** By digest and index, in the order of last use, which is the order of the deadlines. */
  readonly #holders = new Map<string, Holder>();
  /** Those used here, by the token, to spare the digest. */
  readonly #byToken = new Map<string, Holder>();

  constructor(options: SimpleTokensOptions<Signal>) {
    this.#options = options;
  }

  get size(): number {
    return this.#holders.size;
  }

  identify(token: string, signal: Signal | undefined): Identity | Promise<Identity> {
    const known = this.#byToken.get(token);
    if (known !== undefined) return this.#use(known);
    const parts = partsOf(token);
    if (parts === undefined) throw rpcError("invalid-auth-token");
    const key = `${digest(parts.secret)}.${parts.index}`;
    const holder = this.#holders.get(key);
    if (holder !== undefined) return this.#use(holder, token);
    if (parts.index <= this.#options.appliedIndex()) throw rpcError("invalid-auth-token");
    return this.#lookUpAfter(token, key, parts.index, signal);
  }

  async #lookUpAfter(token: string, key: string, index: LogIndex, signal: Signal | undefined): Promise<Identity> {
    await this.#options.waitApplied(index, signal);
    const holder = this.#holders.get(key);
    if (holder === undefined) throw rpcError("invalid-auth-token");
    return this.#use(holder, token);
  }

  #use(holder: Holder, token = holder.token): Identity {
    const now = this.#options.nowMs();
    if (now >= holder.deadlineMs) {
      this.#forget(holder);
      throw rpcError("invalid-auth-token");
    }
    holder.deadlineMs = now + this.#options.ttlMs;
    this.#holders.delete(holder.key);
    this.#holders.set(holder.key, holder);
    if (token !== undefined && holder.token === undefined) {
      holder.token = token;
      this.#byToken.set(token, holder);
    }
    return { username: holder.username, revision: this.#options.revision() };
  }

  prepare(): TokenSecret {
    let secret = "";
    for (let n = 0; n < SECRET_LETTERS; n++) secret += LETTERS.charAt(this.#options.random.below(LETTERS.length));
    return { secret, replicated: digest(secret) };
  }

  remember({ username, replicated, index }: TokenGrant): void {
    // Logged in through a member that is configured for other tokens.
    if (replicated === "") return;
    const now = this.#options.nowMs();
    this.#dropOld(now);
    const key = `${replicated}.${index}`;
    this.#holders.set(key, { key, username, deadlineMs: now + this.#options.ttlMs, token: undefined });
  }

  issue({ index }: TokenGrant, secret: string): string {
    return `${secret}.${index}`;
  }

  forgetUser(username: string): void {
    for (const holder of this.#holders.values()) if (holder.username === username) this.#forget(holder);
  }

  forgetAll(): void {
    this.#holders.clear();
    this.#byToken.clear();
  }

  #forget(holder: Holder): void {
    this.#holders.delete(holder.key);
    if (holder.token !== undefined) this.#byToken.delete(holder.token);
  }

  #dropOld(now: number): void {
    const most = this.#options.tokensMax ?? TOKENS_MAX;
    for (const holder of this.#holders.values()) {
      if (holder.deadlineMs > now && this.#holders.size < most) return;
      this.#forget(holder);
    }
  }
}

function digest(secret: string): string {
  return createHash("sha256").update(secret).digest("base64url");
}

/** Undefined unless the token has the right form. */
function partsOf(token: string): { readonly secret: string; readonly index: LogIndex } | undefined {
  const dot = token.indexOf(".");
  if (dot < 0 || token.length > TOKEN_CHARS_MAX || !/^\d{1,16}$/.test(token.slice(dot + 1))) return undefined;
  const index = Number(token.slice(dot + 1));
  return Number.isSafeInteger(index) ? { secret: token.slice(0, dot), index } : undefined;
}
