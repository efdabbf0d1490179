import type { Revision } from "../base/ids.ts";
import type { Identity } from "./auth-store.ts";

/** What this root needs of an AbortSignal; any AbortSignal fits. */
export interface CancelSignal {
  readonly aborted: boolean;
  readonly reason: unknown;
}

/** An applied Authenticate. */
export interface TokenGrant {
  readonly username: string;
  /** What the entry carried: {@link TokenSecret.replicated}. */
  readonly replicated: string;
  /** The entry's. */
  readonly index: number;
  /** The auth revision when the entry was applied. */
  readonly revision: Revision;
}

/** The random part of a token in the making. */
export interface TokenSecret {
  /** For the caller alone. */
  readonly secret: string;
  /** What goes through the log: enough to recognise the secret, but not to guess it. Empty when tokens need no memory. */
  readonly replicated: string;
}

/** How one member knows callers by their tokens. */
export interface TokenProvider<Signal extends CancelSignal = CancelSignal> {
  /**
   * Whose token this is. Throws or rejects with invalid-auth-token. A promise is only given when something has to be waited for.
   * The signal ends the waiting; the promise then rejects with its reason.
   */
  identify(token: string, signal: Signal | undefined): Identity | Promise<Identity>;
  /** Before an Authenticate is proposed. @throws auth-failed when nobody can get a token */
  prepare(): TokenSecret;
  /** An Authenticate was applied, on this or another member. */
  remember(grant: TokenGrant): void;
  /** The token itself, for the caller, once the Authenticate with this secret is applied. @throws verify-only-key */
  issue(grant: TokenGrant, secret: string): string | Promise<string>;
  /** The user's tokens are void from now on. */
  forgetUser(username: string): void;
  /** All tokens are void from now on. */
  forgetAll(): void;
}
