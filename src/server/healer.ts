/**
 * Brings a member out of quarantine: it asks whoever leads to forget what this member said in its former life, hands the answer to raft, waits until raft has
 * everything up to the leader's fence, and ends the quarantine (docs/adr/0004-healing.md). Until then the member does nothing else.
 */
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { hexId, type LogIndex, type MemberId, type Term } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import type { Message } from "../raft/index.ts";
import type { RaftDriver } from "./raft-driver.ts";

/** What clients of a member in quarantine are told. */
export class HealingError extends EtcdError {
  constructor() {
    super("healing", GrpcCode.Unavailable, "holdfast: this member lost part of its data and is being healed by the other members");
    this.name = "HealingError";
  }
}

export interface HealerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** What was found at the start. */
  readonly reason: string;
  readonly electionMs: number;
  readonly driver: Pick<RaftDriver, "admit" | "healed" | "endQuarantine" | "status">;
  /** Who may lead. */
  peers(): readonly MemberId[];
  /** The request `progress-reset`. */
  ask(to: MemberId, signal: AbortSignal): Promise<Uint8Array>;
  /** Notes durably that the member is healed. */
  finish(): Promise<void>;
  onHealed(): void;
  onFatal(error: Error): void;
}

const STEP_MS = 50;
const REPORT_MS = 10_000;

export class Healer {
  readonly #options: HealerOptions;
  readonly #abort = new AbortController();
  #timer: Timer | undefined;
  /** Who seems to lead, and since when it has been heard. */
  #hint: { readonly from: MemberId; readonly term: Term; readonly atMs: number } | undefined;
  #admitted: { readonly leader: MemberId; readonly term: Term; readonly fence: LogIndex } | undefined;
  #asking = false;
  #nextPeer = 0;
  #notBeforeMs = 0;
  #reportedMs = Number.NEGATIVE_INFINITY;
  #lastRefusal = "nobody has been asked yet";

  constructor(options: HealerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#step();
  }

  stop(): void {
    this.#abort.abort(new HealingError());
    this.#timer?.cancel();
  }

  /** Every message from other members passes by here: the messages of leaders tell whom to ask. */
  heard(message: Message): void {
    if (message.type !== "heartbeat" && message.type !== "append-request" && message.type !== "snapshot") return;
    if (this.#hint !== undefined && message.term < this.#hint.term) return;
    this.#hint = { from: message.from, term: message.term, atMs: this.#options.clock.monotonicMs() };
  }

  #step(): void {
    if (this.#abort.signal.aborted) return;
    const { clock, driver } = this.#options;
    if (driver.healed) {
      this.#finish();
      return;
    }
    this.#timer = clock.timer(STEP_MS, () => this.#step());
    const now = clock.monotonicMs();
    const admitted = this.#admitted;
    const overtaken = admitted !== undefined && this.#hint !== undefined && this.#hint.term > admitted.term;
    if (admitted !== undefined && !overtaken && driver.status().leader === admitted.leader) {
      this.#report(now, { leader: hexId(admitted.leader), "applied-index": driver.status().applied, "healed-at-index": admitted.fence });
      return;
    }
    this.#report(now, { error: this.#lastRefusal });
    if (!this.#asking && now >= this.#notBeforeMs) this.#ask(now);
  }

  #ask(now: number): void {
    const { driver, electionMs, logger, clock } = this.#options;
    const to = this.#whom(now);
    if (to === undefined) return;
    this.#asking = true;
    const timeout = new AbortController();
    const timer = clock.timer(2 * electionMs, () => timeout.abort(new Error("no answer in time")));
    this.#options.ask(to, AbortSignal.any([timeout.signal, this.#abort.signal])).then(
      (body) => {
        timer.cancel();
        this.#asking = false;
        if (this.#abort.signal.aborted) return;
        const admission = decodeAdmission(body);
        if (admission === undefined) {
          this.#lastRefusal = `${hexId(to)}: an answer of another length`;
          this.#notBeforeMs = clock.monotonicMs() + electionMs / 2;
          return;
        }
        const { term, fence } = admission;
        if (!driver.admit(to, term, fence)) return;
        this.#admitted = { leader: to, term, fence };
        logger.info({ leader: hexId(to), term, "healed-at-index": fence }, "the leader heals this member");
      },
      (error: unknown) => {
        timer.cancel();
        this.#asking = false;
        this.#lastRefusal = `${hexId(to)}: ${error instanceof Error ? error.message : String(error)}`;
        this.#notBeforeMs = clock.monotonicMs() + electionMs / 2;
      },
    );
  }

  /** Whoever was heard leading lately, else all in turn. */
  #whom(now: number): MemberId | undefined {
    if (this.#hint !== undefined && now - this.#hint.atMs < 2 * this.#options.electionMs) return this.#hint.from;
    const peers = this.#options.peers();
    this.#nextPeer += 1;
    return peers[this.#nextPeer % Math.max(peers.length, 1)];
  }

  #finish(): void {
    const { driver, logger, finish, onHealed, onFatal } = this.#options;
    finish().then(
      () => {
        if (this.#abort.signal.aborted) return;
        if (!driver.healed) {
          this.#step();
          return;
        }
        driver.endQuarantine();
        logger.info({ "applied-index": driver.status().applied }, "this member is healed; it votes and serves again");
        onHealed();
      },
      (error: unknown) => {
        if (!this.#abort.signal.aborted) onFatal(error instanceof Error ? error : new Error(String(error)));
      },
    );
  }

  #report(now: number, fields: Readonly<Record<string, unknown>>): void {
    if (now - this.#reportedMs < REPORT_MS) return;
    this.#reportedMs = now;
    this.#options.logger.warn({ reason: this.#options.reason, ...fields }, "waiting to be healed by the other members");
  }
}

const ADMISSION_BYTES = 16;

/** Term and fence, 8 bytes each, big-endian. */
export function encodeAdmission({ term, fence }: { term: Term; fence: LogIndex }): Uint8Array {
  const bytes = new Uint8Array(ADMISSION_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(term));
  view.setBigUint64(8, BigInt(fence));
  return bytes;
}

function decodeAdmission(bytes: Uint8Array): { term: Term; fence: LogIndex } | undefined {
  if (bytes.byteLength !== ADMISSION_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { term: Number(view.getBigUint64(0)), fence: Number(view.getBigUint64(8)) };
}

/** For a member that asks when it cannot be helped. */
export class HealRefusedError extends EtcdError {
  constructor(why: string) {
    super("heal-refused", GrpcCode.FailedPrecondition, `cannot heal it now: ${why}`);
    this.name = "HealRefusedError";
  }
}
