/**
 * Simulated time: a heap of events, each at an instant and usually belonging to a process. One is taken at a time, and before the next one everything that
 * it set off has happened (microtasks.ts).
 *
 * A process that stands still (paused, stalled) keeps its events: they wait, and when it goes on they come in the order of a real event loop, timers and
 * input before what was deferred. Events of a dead process are dropped.
 */
import { drainMicrotasks } from "./microtasks.ts";
import type { TraceHash } from "./trace.ts";

/** Where in a turn of the event loop the event belongs. */
export const Phase = { timer: 0, input: 1, deferred: 2 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/** What events can belong to. */
export interface Process {
  readonly index: number;
  dead: boolean;
  /** Simulated ms until which its events wait. */
  blockedUntil: number;
  /** Waiting events, in the order in which they came. */
  parked: SimEvent[];
  /** After a stop in the middle of waiting for input that comes before timers. */
  inputFirst: boolean;
}

export class SimEvent {
  at: number;
  sequence: number;
  readonly owner: Process | undefined;
  readonly phase: Phase;
  run: (() => void) | undefined;

  constructor(at: number, sequence: number, owner: Process | undefined, phase: Phase, run: () => void) {
    this.at = at;
    this.sequence = sequence;
    this.owner = owner;
    this.phase = phase;
    this.run = run;
  }

  cancel(): void {
    this.run = undefined;
  }
}

export class Scheduler {
  /** Simulated ms since the start. */
  now = 0;
  executed = 0;
  /** Whose event runs. */
  current: Process | undefined;
  readonly #heap: SimEvent[] = [];
  readonly #hash: TraceHash;
  #sequence = 0;

  constructor(hash: TraceHash) {
    this.#hash = hash;
  }

  get pending(): number {
    return this.#heap.length;
  }

  /** Calls `run` after `delayMs` of simulated time, for the world or for a process. */
  after(delayMs: number, run: () => void, owner?: Process, phase: Phase = Phase.input): SimEvent {
    const event = new SimEvent(this.now + delayMs, this.#sequence++, owner, phase, run);
    this.#push(event);
    return event;
  }

  /** The process stands still for that long. Several stops overlap. */
  block(process: Process, forMs: number, inputFirst: boolean): void {
    const until = this.now + forMs;
    if (until <= process.blockedUntil) return;
    process.blockedUntil = until;
    process.inputFirst = inputFirst;
    this.after(forMs, () => this.unblock(process));
  }

  /** Ends a stop if its time has come, or at once. */
  unblock(process: Process, atOnce = false): void {
    if (atOnce) process.blockedUntil = this.now;
    if (process.blockedUntil > this.now) return;
    const { parked } = process;
    process.parked = [];
    const rank = (event: SimEvent): number =>
      event.phase === Phase.deferred ? 2 : (event.phase === Phase.input) === process.inputFirst ? 0 : 1;
    parked.sort((a, b) => rank(a) - rank(b) || a.sequence - b.sequence);
    for (const event of parked) {
      event.at = this.now;
      event.sequence = this.#sequence++;
      this.#push(event);
    }
  }

  /** Executes the next event. False when there is none before `until`. */
  step(until: number): boolean {
    for (;;) {
      const event = this.#heap[0];
      if (event === undefined || event.at > until) return false;
      this.#pop();
      const { run, owner } = event;
      if (run === undefined) continue;
      if (owner !== undefined) {
        if (owner.dead) continue;
        if (owner.blockedUntil > event.at) {
          owner.parked.push(event);
          continue;
        }
      }
      this.now = event.at;
      this.current = owner;
      this.executed += 1;
      this.#hash.event(event.at, owner === undefined ? -1 : owner.index, event.phase);
      event.run = undefined;
      run();
      drainMicrotasks();
      return true;
    }
  }

  #push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as SimEvent;
      if (!isBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as SimEvent;
    const { length } = heap;
    if (length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(heap[child + 1] as SimEvent, heap[child] as SimEvent)) child += 1;
      const below = heap[child] as SimEvent;
      if (!isBefore(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(a: SimEvent, b: SimEvent): boolean {
  return a.at < b.at || (a.at === b.at && a.sequence < b.sequence);
}
