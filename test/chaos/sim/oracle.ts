/**
 * Sees all members at once and holds what they say against each other: the invariants J1 to J10 of the failure catalogue, and those of the I list that show
 * from outside. Never touches what it looks at.
 */
import type { MemberId } from "../../../src/base/ids.ts";
import { hexId } from "../../../src/base/ids.ts";
import type { Random } from "../../../src/base/random.ts";
import type { MvccStore } from "../../../src/mvcc/index.ts";
import type { ConfState, Entry, Message } from "../../../src/raft/index.ts";
import { EMPTY_CONF_STATE, type State } from "../../../src/server/apply/state.ts";
import { Wal, type WalContents } from "../../../src/wal/index.ts";
import type { LogEntry } from "./history.ts";
import { type Life, LOG, type Machine } from "./machine.ts";
import type { TraceHash } from "./trace.ts";

interface Confirmed {
  readonly index: number;
  readonly conf: ConfState;
}

export interface OracleOptions {
  readonly now: () => number;
  readonly hash: TraceHash;
  readonly machines: readonly Machine[];
  /** How many members the cluster begins with. */
  readonly founders: number;
  violate(check: string, detail: string): void;
}

/** What a power loss leaves at worst: nothing that was not synced. */
const WORST_LUCK: Random = {
  below: (n) => (n === 4 ? 1 : 0),
  chance: () => false,
  bits64: () => 0n,
};

export class Oracle {
  readonly log: LogEntry[] = [];
  /** Of the newest entry that anybody applied. */
  conf: ConfState = EMPTY_CONF_STATE;
  /** Configurations in the order in which they were applied, with the index that made them. */
  readonly confs: Confirmed[] = [{ index: 0, conf: EMPTY_CONF_STATE }];
  leaderChanges = 0;
  entriesChecked = 0;
  durabilityChecks = 0;
  hashChecks = 0;
  /** Simulated ms of the last time a member became leader. */
  lastLeaderAt = 0;
  readonly #options: OracleOptions;
  readonly #leaders = new Map<number, MemberId>();
  readonly #votes = new Map<MemberId, Map<number, MemberId>>();
  /** Highest term in which that member said anything that binds it. */
  readonly #spoken = new Map<MemberId, number>();
  readonly #hashes = new Map<string, { hash: number; who: string }>();
  /** By term: the empty entry that its leader began with, and the last change of the configuration that it has sent. */
  readonly #terms = new Map<number, { first: number; lastChange: number }>();

  constructor(options: OracleOptions) {
    this.#options = options;
  }

  get highestTerm(): number {
    let highest = 0;
    for (const term of this.#leaders.keys()) highest = Math.max(highest, term);
    return highest;
  }

  // -- what members apply -------------------------------------------------------------------------------------------------------------------

  applied(life: Life, entry: Entry, state: State): void {
    if (life.dead) return;
    const { index } = entry;
    const { store, lessor } = state;
    this.entriesChecked += 1;
    life.applied = index;
    const known = this.log[index - 1];
    if (known === undefined) {
      if (index !== this.log.length + 1) {
        this.#violate("I10", `m${life.index} applies ${index} before anybody applied ${this.log.length + 1}`);
        return;
      }
      this.log.push({
        index,
        term: entry.term,
        type: entry.type,
        data: entry.data,
        at: this.#options.now(),
        revision: store.revision,
        compacted: store.compactRevision,
        leases: lessor.size,
      });
      this.#options.hash.number(store.revision);
      if (entry.type === "conf-change") {
        this.conf = state.confState;
        this.confs.push({ index, conf: state.confState });
      }
      return;
    }
    if (known.term !== entry.term || known.type !== entry.type || !sameBytes(known.data, entry.data)) {
      this.#violate(
        "J3",
        `m${life.index} applies another entry at ${index}: term ${entry.term} ${entry.type}, was term ${known.term} ${known.type}`,
      );
      return;
    }
    if (known.revision !== store.revision || known.compacted !== store.compactRevision || known.leases !== lessor.size) {
      this.#violate(
        "J8",
        `m${life.index} is at revision ${store.revision}, compacted ${store.compactRevision}, ${lessor.size} leases as of entry ${index}; ` +
          `others at ${known.revision}, ${known.compacted}, ${known.leases}`,
      );
    }
    if (entry.type === "conf-change") {
      const own = this.confAt(index);
      if (describeConf(own) !== describeConf(state.confState)) {
        this.#violate("J8", `m${life.index} has ${describeConf(state.confState)} as of entry ${index}, others ${describeConf(own)}`);
      }
    }
  }

  confAt(index: number): ConfState {
    for (let i = this.confs.length - 1; i >= 0; i--) {
      const { index: from, conf } = this.confs[i] as Confirmed;
      if (from <= index) return conf;
    }
    return EMPTY_CONF_STATE;
  }

  // -- what members are and say -----------------------------------------------------------------------------------------------------------------

  /** Called after every event of a life. */
  afterEvent(life: Life): void {
    const { server } = life;
    if (server === undefined || life.dead) return;
    const { term, commitIndex } = server;
    const { hash } = this.#options;
    if (term !== life.term) {
      if (term < life.term) this.#violate("I1", `the term of m${life.index} went from ${life.term} to ${term}`);
      life.term = term;
      hash.number(term);
    }
    if (commitIndex !== life.commit) {
      if (commitIndex < life.commit) this.#violate("I2", `the commit index of m${life.index} went from ${life.commit} to ${commitIndex}`);
      life.commit = commitIndex;
      hash.number(commitIndex);
    }
    if (server.isLeader) this.#leads(server.memberId, term, life);
  }

  #leads(id: MemberId, term: number, life: Life): void {
    const known = this.#leaders.get(term);
    if (known === id) return;
    if (known !== undefined) {
      this.#violate("J1", `term ${term} has two leaders: ${hexId(known)} and ${hexId(id)} (m${life.index})`);
      return;
    }
    this.#leaders.set(term, id);
    this.leaderChanges += 1;
    this.lastLeaderAt = this.#options.now();
  }

  /** A message leaves its sender, which runs as `life`. */
  sent(message: Message, life: Life | undefined): void {
    const { from, term, type } = message;
    if (type === "vote-response") {
      if (message.pre || !message.granted) return;
      let votes = this.#votes.get(from);
      if (votes === undefined) {
        votes = new Map();
        this.#votes.set(from, votes);
      }
      const voted = votes.get(term);
      if (voted === undefined) votes.set(term, message.to);
      else if (voted !== message.to)
        this.#violate("I1", `${hexId(from)} votes for ${hexId(voted)} and for ${hexId(message.to)} in term ${term}`);
    } else if (type === "vote-request") {
      if (message.pre) return;
    } else if (type === "append-request") {
      const leader = this.#leaders.get(term);
      if (leader !== undefined && leader !== from) {
        this.#violate("J1", `${hexId(from)} appends in term ${term}, which ${hexId(leader)} leads`);
      }
      for (const entry of message.entries) if (entry.term === term) this.#checkChange(entry, life);
    }
    const spoken = this.#spoken.get(from);
    if (spoken === undefined || spoken < term) this.#spoken.set(from, term);
  }

  /**
   * I11: a leader proposes a change of the configuration only when an entry of its own term is committed and the change before is applied. Both only grow, so
   * whatever does not hold when the change is sent for the first time did not hold when it was proposed.
   */
  #checkChange(entry: Entry, life: Life | undefined): void {
    const { index, term, type, data } = entry;
    let known = this.#terms.get(term);
    if (known === undefined) {
      known = { first: 0, lastChange: 0 };
      this.#terms.set(term, known);
    }
    if (type === "normal" && data.byteLength === 0 && known.first === 0) known.first = index;
    if (type !== "conf-change" || index <= known.lastChange) return;
    const before = known.lastChange;
    known.lastChange = index;
    if (life?.server === undefined || life.dead || known.first === 0) return;
    const { commitIndex, appliedIndex } = life.server;
    if (commitIndex < known.first)
      this.#violate("I11", `m${life.index} changes the configuration at ${index}, before ${known.first} of its term ${term} is committed`);
    if (appliedIndex < before) this.#violate("I11", `m${life.index} changes the configuration at ${index} while ${before} is not applied`);
  }

  /** A member has come back: what it said before must not be forgotten. */
  restarted(life: Life, damaged: boolean): void {
    const { server } = life;
    if (server === undefined) return;
    // One that lost its log begins anew, and is silent until it is healed; votes are compared all the same.
    const spoken = damaged ? 0 : (this.#spoken.get(server.memberId) ?? 0);
    if (server.term < spoken) this.#violate("I1", `m${life.index} came back in term ${server.term} after it had spoken in term ${spoken}`);
    if (server.appliedIndex > this.log.length)
      this.#violate("J3", `m${life.index} came back with ${server.appliedIndex} applied entries; only ${this.log.length} were committed`);
    life.applied = server.appliedIndex;
  }

  // -- durability (J4, J7) ------------------------------------------------------------------------------------------------------------------------

  /**
   * Everything that was applied anywhere is on the disks of a quorum, were all machines to lose power now. Reads copies of the disks. Skipped while a disk is
   * damaged or was replaced: what a broken disk had is gone by the catalogue's own rules.
   */
  async checkDurability(): Promise<void> {
    const index = this.log.length;
    const entry = this.log[index - 1];
    const { machines, founders } = this.#options;
    // What the founders agree on beforehand counts as committed wherever one of them begins.
    if (entry === undefined || index <= founders || machines.some((machine) => machine.damaged)) return;
    this.durabilityChecks += 1;
    const holds = new Map<MemberId, boolean>();
    for (const machine of machines) {
      if (machine.memberId === undefined) continue;
      const contents = await durableLog(machine);
      holds.set(machine.memberId, contents !== undefined && covers(contents, index, entry.term));
    }
    // The leader that committed it may not have applied the last change of the configuration yet.
    const last = this.confs[this.confs.length - 1] as Confirmed;
    const before = this.confs[this.confs.length - 2] ?? last;
    const has = (id: MemberId): boolean => holds.get(id) === true;
    // One that has been removed and wiped since may have been in the quorum that committed the removal.
    const had = (id: MemberId): boolean => holds.get(id) !== false;
    if (isQuorum(last.conf, has) || isQuorum(before.conf, had)) return;
    const held = [...holds].map(([id, yes]) => `${hexId(id)}: ${yes ? "yes" : "no"}`).join(", ");
    this.#violate("J7", `entry ${index} of term ${entry.term} is applied, but not on the disks of a quorum (${held})`);
  }

  // -- hashes (K11, J8) ------------------------------------------------------------------------------------------------------------------------------

  async checkHash(store: MvccStore, revision: number, who: string): Promise<void> {
    const { hash, compactRevision, hashRevision } = await store.hashByRevision(revision);
    this.hashChecks += 1;
    const key = `${hashRevision}/${compactRevision}`;
    const known = this.#hashes.get(key);
    if (known === undefined) this.#hashes.set(key, { hash, who });
    else if (known.hash !== hash) this.#violate("K11", `hash of revision ${key} is ${hash} on ${who}, ${known.hash} on ${known.who}`);
  }

  #violate(check: string, detail: string): void {
    this.#options.violate(check, detail);
  }
}

async function durableLog(machine: Machine): Promise<WalContents | undefined> {
  const copy = machine.disk.clone(WORST_LUCK);
  copy.crash("power-loss", WORST_LUCK);
  try {
    return await Wal.read({ disk: copy, directory: LOG });
  } catch {
    return undefined;
  }
}

function covers(contents: WalContents, index: number, term: number): boolean {
  if (contents.snapshot.index >= index) return true;
  const first = contents.entries[0];
  if (first === undefined) return false;
  return contents.entries[index - first.index]?.term === term;
}

export function isQuorum(conf: ConfState, has: (id: MemberId) => boolean): boolean {
  const majority = (ids: readonly MemberId[]): boolean => ids.length === 0 || ids.filter(has).length > ids.length / 2;
  return majority(conf.voters) && majority(conf.votersOutgoing);
}

export function describeConf(conf: ConfState): string {
  const ids = (list: readonly MemberId[]): string => list.map(hexId).join(" ");
  const outgoing = conf.votersOutgoing.length === 0 ? "" : ` outgoing [${ids(conf.votersOutgoing)}]`;
  const learners = conf.learners.length === 0 ? "" : ` learners [${ids(conf.learners)}]`;
  return `voters [${ids(conf.voters)}]${outgoing}${learners}`;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a === b) return true;
  if (a.byteLength !== b.byteLength) return false;
  for (let i = 0; i < a.byteLength; i++) if (a[i] !== b[i]) return false;
  return true;
}
