import { rpcError } from "../api/index.ts";
import type { LogIndex, Revision } from "../base/ids.ts";
import type { Random } from "../base/random.ts";
import type { Identity } from "./auth-store.ts";
import type { CancelSignal, TokenGrant, TokenProvider } from "./tokens.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PREFIX_LETTERS = 16;
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

interface Holder {
  readonly username: string;
  deadlineMs: number;
}

/**
 * Tokens as random text, known to every member because the login went through the log, and forgotten with the process. The number behind the dot is the
 * login's index in the log: a member that has not got so far waits before it calls the token unknown.
 */
export class SimpleTokens<Signal extends CancelSignal> implements TokenProvider<Signal> {
  readonly #options: SimpleTokensOptions<Signal>;
  /** In the order of last use, which is the order of the deadlines. */
  readonly #holders = new Map<string, Holder>();

  constructor(options: SimpleTokensOptions<Signal>) {
    this.#options = options;
  }

  get size(): number {
    return this.#holders.size;
  }

  identify(token: string, signal: Signal | undefined): Identity | Promise<Identity> {
    const identity = this.#lookUp(token);
    if (identity !== undefined) return identity;
    const index = indexOf(token);
    if (index === undefined || index <= this.#options.appliedIndex()) throw rpcError("invalid-auth-token");
    return this.#lookUpAfter(token, index, signal);
  }

  async #lookUpAfter(token: string, index: LogIndex, signal: Signal | undefined): Promise<Identity> {
    await this.#options.waitApplied(index, signal);
    const identity = this.#lookUp(token);
    if (identity === undefined) throw rpcError("invalid-auth-token");
    return identity;
  }

  #lookUp(token: string): Identity | undefined {
    const holder = this.#holders.get(token);
    if (holder === undefined) return undefined;
    const now = this.#options.nowMs();
    this.#holders.delete(token);
    if (now >= holder.deadlineMs) return undefined;
    holder.deadlineMs = now + this.#options.ttlMs;
    this.#holders.set(token, holder);
    return { username: holder.username, revision: this.#options.revision() };
  }

  prefix(): string {
    let text = "";
    for (let n = 0; n < PREFIX_LETTERS; n++) text += LETTERS.charAt(this.#options.random.below(LETTERS.length));
    return text;
  }

  remember(grant: TokenGrant): void {
    // Logged in through a member that is configured for other tokens.
    if (grant.prefix === "") return;
    const now = this.#options.nowMs();
    this.#dropOld(now);
    this.#holders.set(textOf(grant), { username: grant.username, deadlineMs: now + this.#options.ttlMs });
  }

  issue(grant: TokenGrant): string {
    return textOf(grant);
  }

  forgetUser(username: string): void {
    for (const [token, holder] of this.#holders) if (holder.username === username) this.#holders.delete(token);
  }

  forgetAll(): void {
    this.#holders.clear();
  }

  #dropOld(now: number): void {
    const most = this.#options.tokensMax ?? TOKENS_MAX;
    for (const [token, { deadlineMs }] of this.#holders) {
      if (deadlineMs > now && this.#holders.size < most) return;
      this.#holders.delete(token);
    }
  }
}

function textOf({ prefix, index }: TokenGrant): string {
  return `${prefix}.${index}`;
}

/** The index in a token of the right form. */
function indexOf(token: string): LogIndex | undefined {
  const dot = token.indexOf(".");
  if (dot < 0 || !/^\d{1,16}$/.test(token.slice(dot + 1))) return undefined;
  const index = Number(token.slice(dot + 1));
  return Number.isSafeInteger(index) ? index : undefined;
}
