import type { Clock, Timer } from "../../base/clock.ts";

/** Something with a deadline. The fields belong to the wheel while it is in there. */
export interface Timed {
  /** Monotonic ms. */
  deadlineMs: number;
  /** Where it is in the wheel; -1 when it is not. */
  wheelSlot: number;
  wheelIndex: number;
  /** The deadline has passed; it is not in the wheel any more. Must not throw. */
  deadlinePassed(): void;
}

const SLOTS = 512;
const SLOT_MS = 16;

/**
 * Deadlines of calls. Nearly every call ends before its deadline, so taking one in and out must cost next to nothing, which a timer each does not; that it is
 * told up to {@link SLOT_MS} late does not matter. A ring of slots, each for one tick of every turn; what is due in a later turn is passed over.
 * (Varghese and Lauck, "Hashed and hierarchical timing wheels".)
 */
export class DeadlineWheel {
  readonly #clock: Clock;
  readonly #slots: Timed[][] = Array.from({ length: SLOTS }, () => []);
  #size = 0;
  /** The tick up to which all slots were looked at. */
  #tick = 0;
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#size;
  }

  /** `entry.deadlineMs` is set. It must not be in a wheel. */
  add(entry: Timed): void {
    if (this.#size === 0) this.#tick = Math.floor(this.#clock.monotonicMs() / SLOT_MS);
    const tick = Math.max(Math.ceil(entry.deadlineMs / SLOT_MS), this.#tick + 1);
    const at = tick % SLOTS;
    const slot = this.#slots[at] as Timed[];
    entry.wheelSlot = at;
    entry.wheelIndex = slot.length;
    slot.push(entry);
    this.#size += 1;
    this.#timer ??= this.#clock.timer(SLOT_MS, this.#turn);
  }

  /** A no-op when it is not in. */
  remove(entry: Timed): void {
    if (entry.wheelSlot < 0) return;
    const slot = this.#slots[entry.wheelSlot] as Timed[];
    const last = slot.pop() as Timed;
    if (last !== entry) {
      slot[entry.wheelIndex] = last;
      last.wheelIndex = entry.wheelIndex;
    }
    entry.wheelSlot = -1;
    this.#size -= 1;
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const slot of this.#slots) {
      for (const entry of slot) entry.wheelSlot = -1;
      slot.length = 0;
    }
    this.#size = 0;
  }

  readonly #turn = (): void => {
    this.#timer = undefined;
    const nowMs = this.#clock.monotonicMs();
    const tick = Math.floor(nowMs / SLOT_MS);
    const due: Timed[] = [];
    for (let visited = 0; this.#tick < tick && visited < SLOTS; visited++) {
      this.#tick += 1;
      const slot = this.#slots[this.#tick % SLOTS] as Timed[];
      for (let i = slot.length - 1; i >= 0; i--) {
        const entry = slot[i] as Timed;
        if (entry.deadlineMs > nowMs) continue;
        this.remove(entry);
        due.push(entry);
      }
    }
    this.#tick = Math.max(this.#tick, tick);
    for (const entry of due) entry.deadlinePassed();
    if (this.#size > 0) this.#timer ??= this.#clock.timer(SLOT_MS, this.#turn);
  };
}
