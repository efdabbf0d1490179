/** A log as a plain array, a generator of workloads for it, and the comparison with what a real log recovered. */
import { deepStrictEqual } from "node:assert/strict";
import type { ClusterId, LogIndex, MemberId, Term } from "../../src/base/ids.ts";
import { NO_MEMBER } from "../../src/base/ids.ts";
import type { Random } from "../../src/base/random.ts";
import type { ConfState, Entry, HardState, SnapshotMetadata } from "../../src/raft/entry.ts";
import type { Wal, WalAppend, WalContents } from "../../src/wal/index.ts";

export const TEST_METADATA = { memberId: 0xa1n as MemberId, clusterId: 0xc1n as ClusterId };

export function member(id: number): MemberId {
  return BigInt(id) as MemberId;
}

export function confState(...voters: number[]): ConfState {
  return { voters: voters.map(member), votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
}

export function entry(index: LogIndex, term: Term, data: Uint8Array | string = `entry ${index}.${term}`): Entry {
  return { term, index, type: "normal", data: typeof data === "string" ? Buffer.from(data) : data };
}

export function entries(from: LogIndex, to: LogIndex, term: Term, bytes = 20): Entry[] {
  return Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term, Buffer.alloc(bytes, 1 + ((from + i) % 250))));
}

export function appended(wal: Wal, append: Partial<WalAppend>): Promise<void> {
  return new Promise((resolve, reject) => {
    wal.append({ entries: [], mustSync: true, ...append }, (error) => (error === undefined ? resolve() : reject(error)));
  });
}

/** Immutable: `apply` returns the next state. */
export interface LogState {
  readonly hardState: HardState;
  readonly snapshot: SnapshotMetadata;
  /** Entries behind the snapshot. */
  readonly entries: readonly Entry[];
}

export const EMPTY_LOG: LogState = {
  hardState: { term: 0, vote: NO_MEMBER, commit: 0 },
  snapshot: { index: 0, term: 0, confState: confState() },
  entries: [],
};

export function lastIndexOf(state: LogState): LogIndex {
  return state.snapshot.index + state.entries.length;
}

export function lastTermOf(state: LogState): Term {
  return state.entries[state.entries.length - 1]?.term ?? state.snapshot.term;
}

export function apply(state: LogState, append: WalAppend): LogState {
  let { hardState, snapshot, entries: log } = state;
  const marker = append.snapshot;
  if (marker !== undefined && marker.index > snapshot.index) {
    const own = log[marker.index - snapshot.index - 1];
    log = own !== undefined && own.term === marker.term ? log.slice(marker.index - snapshot.index) : [];
    snapshot = marker;
  }
  for (const added of append.entries) log = [...log.slice(0, added.index - snapshot.index - 1), added];
  if (append.hardState !== undefined) hardState = append.hardState;
  if (hardState.commit < snapshot.index) hardState = { ...hardState, commit: snapshot.index };
  return { hardState, snapshot, entries: log };
}

/** Legal appends, as a raft node would make them, one after the other. */
export class WorkloadGenerator {
  state: LogState = EMPTY_LOG;
  readonly #random: Random;
  readonly #bytesMax: number;

  constructor(random: Random, bytesMax = 200) {
    this.#random = random;
    this.#bytesMax = bytesMax;
  }

  next(): WalAppend {
    const append = this.#make();
    this.state = apply(this.state, append);
    return append;
  }

  #make(): WalAppend {
    const random = this.#random;
    const { hardState, snapshot } = this.state;
    const last = lastIndexOf(this.state);
    switch (random.below(10)) {
      case 0: {
        // An election: new term, perhaps a vote.
        const vote = random.chance({ of: 1, outOf: 2 }) ? member(1 + random.below(5)) : NO_MEMBER;
        return { hardState: { term: hardState.term + 1 + random.below(2), vote, commit: hardState.commit }, entries: [], mustSync: true };
      }
      case 1:
      case 2: {
        const commit = hardState.commit + random.below(last - hardState.commit + 1);
        return { hardState: { ...hardState, commit }, entries: [], mustSync: false };
      }
      case 3: {
        // A snapshot of our own.
        if (hardState.commit <= snapshot.index) return this.#entries(last + 1, hardState.term, 1);
        const index = snapshot.index + 1 + random.below(hardState.commit - snapshot.index);
        const term = this.state.entries[index - snapshot.index - 1]?.term ?? 0;
        return { snapshot: { index, term, confState: confState(1, 2, 3) }, entries: [], mustSync: true };
      }
      case 4: {
        // A snapshot from a leader, one time in four.
        if (!random.chance({ of: 1, outOf: 4 })) return this.#entries(last + 1, hardState.term, 1);
        const index = last + 1 + random.below(20);
        const term = Math.max(1, hardState.term);
        return {
          snapshot: { index, term, confState: confState(1, 2, 3, 4) },
          hardState: { term, vote: hardState.vote, commit: index },
          entries: random.chance({ of: 1, outOf: 2 }) ? this.#list(index + 1, term, 2) : [],
          mustSync: true,
        };
      }
      case 5: {
        // A new leader overwrites a suffix that was not committed.
        const from = hardState.commit + 1 + random.below(last - hardState.commit + 1);
        return this.#entries(from, hardState.term + 1, 1 + random.below(4));
      }
      default:
        return this.#entries(last + 1, hardState.term, 1 + random.below(6));
    }
  }

  #entries(from: LogIndex, wantedTerm: Term, count: number): WalAppend {
    const { hardState } = this.state;
    const term = Math.max(1, wantedTerm, lastTermOf(this.state));
    const made = this.#list(from, term, count);
    const state: HardState | undefined = term === hardState.term ? undefined : { term, vote: NO_MEMBER, commit: hardState.commit };
    return { hardState: state, entries: made, mustSync: true };
  }

  #list(from: LogIndex, term: Term, count: number): Entry[] {
    const random = this.#random;
    return Array.from({ length: count }, (_, i) => ({
      term,
      index: from + i,
      type: random.chance({ of: 1, outOf: 10 }) ? "conf-change" : "normal",
      data: Buffer.alloc(random.below(this.#bytesMax + 1), random.below(256)),
    }));
  }
}

export function expectLog(contents: WalContents, state: LogState): void {
  deepStrictEqual(describeLog(contents), describeLog(state));
}

/** One string, so that comparing and printing are cheap. */
export function describeLog(log: LogState): string {
  const conf = log.snapshot.confState;
  const ids = (list: readonly MemberId[]): string => list.join(",");
  return [
    `hard ${log.hardState.term} ${log.hardState.vote} ${log.hardState.commit}`,
    `snapshot ${log.snapshot.index} ${log.snapshot.term} [${ids(conf.voters)}|${ids(conf.votersOutgoing)}|${ids(conf.learners)}|${ids(conf.learnersNext)}|${conf.autoLeave}]`,
    ...log.entries.map((e) => `${e.index}.${e.term} ${e.type} ${Buffer.from(e.data).toString("hex")}`),
  ].join("\n");
}
