import type { Revision } from "../base/ids.ts";
import type { Identity } from "./auth-store.ts";

/** What this root needs of an AbortSignal; any AbortSignal fits. */
export interface CancelSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
}

/** The token that an applied Authenticate stands for. */
export interface TokenGrant {
  readonly username: string;
  /** What the entry carried: {@link TokenProvider.prefix} of the member that took the request. */
  readonly prefix: string;
  /** The entry's. */
  readonly index: number;
  /** The auth revision when the entry was applied. */
  readonly revision: Revision;
}

/** How one member knows callers by their tokens. */
export interface TokenProvider<Signal extends CancelSignal = CancelSignal> {
  /**
   * Whose token this is. Throws or rejects with invalid-auth-token. A promise is only given when something has to be waited for.
   * The signal ends the waiting; the promise then rejects with its reason.
   */
  identify(token: string, signal: Signal | undefined): Identity | Promise<Identity>;
  /** What is replicated with an Authenticate; empty when tokens need no memory. @throws auth-failed when nobody can get a token */
  prefix(): string;
  /** An Authenticate was applied, on this or another member. */
  remember(grant: TokenGrant): void;
  /** The token itself, for the caller. @throws verify-only-key */
  issue(grant: TokenGrant): string | Promise<string>;
  /** The user's tokens are void from now on. */
  forgetUser(username: string): void;
  /** All tokens are void from now on. */
  forgetAll(): void;
}
