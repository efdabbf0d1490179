/**
 * What a client may do that costs us and helps nobody. Each connection has two accounts; whoever overdraws one is told to calm down and disconnected.
 * The rates are far above what real clients do (grpc-go, grpc-java, grpc-js, curl), and what does real work earns more of both.
 */

/** Frames that are no work: the account at the start and at most, and what comes back with time and with work. */
const FRAMES_MAX = 10_000;
const FRAMES_PER_SECOND = 1000;
const FRAMES_PER_WORK = 4;
/** Calls that are taken back right after they were made (CVE-2023-44487), and streams that we had to reset because of what came on them. */
const RESETS_MAX = 1000;
const RESETS_PER_SECOND = 100;
/** A call that lived for this long was no such thing. */
export const QUICK_RESET_MS = 1000;

/** What frames cost. */
export const FrameCost = {
  /** PRIORITY, unknown types, DATA with next to nothing in it, WINDOW_UPDATE, frames for streams that are no more; less than {@link FRAMES_PER_WORK}. */
  small: 1,
  /** PING without need: wants an answer. One that follows something we sent is small. */
  ping: 10,
  /** SETTINGS: wants an answer, and may make us look at every stream. */
  settings: 100,
} as const;

/** DATA with less than this in it, and not the last, is next to nothing. */
export const SMALL_DATA_BYTES = 64;

export class AbuseAccounts {
  #frames = FRAMES_MAX;
  #resets = RESETS_MAX;

  /** False when that was too much. */
  spendFrame(cost: number): boolean {
    this.#frames -= cost;
    return this.#frames >= 0;
  }

  spendReset(): boolean {
    this.#resets -= 1;
    return this.#resets >= 0;
  }

  /** A whole message came, or data went out. */
  worked(): void {
    if (this.#frames < FRAMES_MAX) this.#frames += FRAMES_PER_WORK;
  }

  /** A call was answered. */
  answered(): void {
    if (this.#resets < RESETS_MAX) this.#resets += 1;
    this.worked();
  }

  elapsed(ms: number): void {
    this.#frames = Math.min(FRAMES_MAX, this.#frames + (FRAMES_PER_SECOND * ms) / 1000);
    this.#resets = Math.min(RESETS_MAX, this.#resets + (RESETS_PER_SECOND * ms) / 1000);
  }
}
