/**
 * One member of a simulated cluster: a raft core, a disk that performs appends when told to, and a state machine that remembers
 * everything it applied. Used by the scenario files and by the random cluster.
 */
import { assert } from "../../src/base/assert.ts";
import { EMPTY_BYTES, utf8Bytes, utf8Text } from "../../src/base/bytes.ts";
import { type LogIndex, type MemberId, NO_MEMBER } from "../../src/base/ids.ts";
import type { Random } from "../../src/base/random.ts";
import {
  type AppendWork,
  ConfChangeDecodeError,
  type ConfState,
  decodeConfChange,
  EMPTY_CONF,
  EMPTY_HARD_STATE,
  type Entry,
  encodeConfChange,
  type HardState,
  MemoryStorage,
  type Message,
  type RaftConfig,
  RawNode,
  type Ready,
} from "../../src/raft/index.ts";

export interface MachineState {
  /** Applied entries, from index 1 on. */
  readonly entries: readonly string[];
  readonly confState: ConfState;
}

/** The part of a snapshot that does not pass through raft. */
export const snapshotStates = new WeakMap<Message, MachineState>();

export function textOf(entry: Entry): string {
  return `${entry.index}/${entry.term} ${entry.type === "normal" ? utf8Text(entry.data) : `conf:${describeConfChange(entry.data)}`}`.trimEnd();
}

export function describeConfChange(data: Uint8Array): string {
  const change = decodeConfChange(data);
  if (change instanceof ConfChangeDecodeError) return "malformed";
  if (change.steps.length === 0) return "leave";
  const letters = { "add-voter": "v", "add-learner": "l", remove: "r", update: "u" } as const;
  return change.steps.map((step) => `${letters[step.kind]}${step.memberId}`).join(",");
}

export class SimulatedMember {
  readonly id: MemberId;
  readonly #config: Omit<RaftConfig, "applied">;
  readonly #random: Random;
  /** Undefined while crashed. */
  node: RawNode | undefined;
  /** What is on disk. Commit-only hard states that were not synced may be lost in a crash: `synced` is what cannot. */
  storage: MemoryStorage;
  #hardState: HardState = EMPTY_HARD_STATE;
  #synced: HardState = EMPTY_HARD_STATE;
  /** Handed out by raft, not on disk yet, oldest first. */
  pending: AppendWork[] = [];
  /** Committed entries that the state machine has not taken yet, oldest first. */
  toApply: Entry[] = [];
  /** Applied entries as text, element i has index i + 1. */
  applied: string[] = [];
  /** The configuration after each applied index where it changed, ascending. */
  #confs: { index: LogIndex; confState: ConfState }[];
  /** Commit index that the disk began with. */
  #bootstrapped: LogIndex = 0;
  /** The state machine on disk is at least here. */
  #checkpoint: LogIndex = 0;
  /** The mark on its disk that it began anew with an empty one and is not healed yet. */
  quarantined = false;

  constructor(config: Omit<RaftConfig, "applied">, random: Random, confState: ConfState = EMPTY_CONF) {
    this.id = config.id;
    this.#config = config;
    this.#random = random;
    this.storage = new MemoryStorage();
    this.#confs = [{ index: 0, confState }];
  }

  /** Before the first start: a log with entries of these terms, and this hard state. */
  preset(terms: readonly number[], hardState: HardState): void {
    this.storage.append(terms.map((term, i) => ({ term, index: i + 1, type: "normal", data: utf8Bytes(`e${i + 1}`) })));
    this.#hardState = hardState;
    this.#synced = hardState;
  }

  /** Before the first start: a log that makes these members voters, one entry each, committed. What a new cluster starts from. */
  bootstrap(voters: readonly MemberId[]): void {
    const steps = voters.map((memberId) => encodeConfChange({ steps: [{ kind: "add-voter", memberId }], context: EMPTY_BYTES }));
    this.storage.append(steps.map((data, i) => ({ term: 1, index: i + 1, type: "conf-change", data })));
    this.#hardState = { term: 1, vote: NO_MEMBER, commit: voters.length };
    this.#bootstrapped = voters.length;
    this.#synced = this.#hardState;
  }

  /** Starts from what is on disk, with the state machine at `applied` (its newest state by default). */
  start(applied = this.applied.length): RawNode {
    assert(applied >= this.#checkpoint && applied >= this.storage.firstIndex() - 1, "the state machine keeps its checkpoint");
    this.applied.length = applied;
    this.#confs = this.#confs.filter(({ index }) => index <= applied);
    this.storage.setHardState(this.#hardState);
    this.storage.setConfState(this.confState);
    this.pending = [];
    this.toApply = [];
    this.node = new RawNode({ ...this.#config, applied, quarantined: this.quarantined }, this.storage, this.#random);
    return this.node;
  }

  /** Crashes, and its disk is replaced by an empty one. It knows that. */
  loseDisk(): void {
    this.crash();
    this.storage = new MemoryStorage();
    this.#hardState = EMPTY_HARD_STATE;
    this.#synced = EMPTY_HARD_STATE;
    this.applied = [];
    this.#confs = [{ index: 0, confState: EMPTY_CONF }];
    this.#bootstrapped = 0;
    this.#checkpoint = 0;
    this.receivedState = undefined;
    this.quarantined = true;
  }

  /** What a driver does after its work: true when the quarantine ends now. */
  leaveQuarantine(): boolean {
    if (this.node?.healed !== true) return false;
    this.quarantined = false;
    this.node.endQuarantine();
    return true;
  }

  /**
   * Loses everything volatile. Of the appends under way the first `kept` make it to the disk; of the state machine everything up to
   * `applied` survives; the commit index may fall back to what was synced last, or to `commitMax`.
   */
  crash(options: { kept?: number; loseCommit?: boolean; commitMax?: LogIndex } = {}): void {
    for (const append of this.pending.slice(0, options.kept ?? 0)) this.#persist(append);
    if (options.loseCommit === true)
      this.#hardState = { ...this.#hardState, commit: Math.min(this.#hardState.commit, this.#synced.commit) };
    const { commit } = this.#hardState;
    this.#hardState = { ...this.#hardState, commit: Math.min(commit, Math.max(this.#bootstrapped, options.commitMax ?? commit)) };
    this.pending = [];
    this.toApply = [];
    this.node = undefined;
  }

  get diskHardState(): HardState {
    return this.#hardState;
  }

  /** The lowest index a restart may find the state machine at. */
  get restartAt(): LogIndex {
    return Math.max(this.#checkpoint, this.storage.firstIndex() - 1);
  }

  get confState(): ConfState {
    return (this.#confs[this.#confs.length - 1] as { confState: ConfState }).confState;
  }

  /** Takes one portion of work out of raft; the caller sends what may be sent. */
  take(): Ready | undefined {
    const ready = this.node?.ready();
    if (ready === undefined) return undefined;
    for (const message of ready.messages) this.#attachState(message);
    if (ready.append !== undefined) this.pending.push(ready.append);
    this.toApply.push(...ready.committed);
    return ready;
  }

  /** Makes the oldest appends under way durable and answers what may be sent then. `report: false` leaves raft in the dark. */
  persist(count = this.pending.length): Message[] {
    const done = this.pending.splice(0, count);
    const messages: Message[] = [];
    for (const append of done) {
      this.#persist(append);
      this.node?.appended(append.ticket);
      messages.push(...append.thenSend);
    }
    return messages;
  }

  /** Lets the state machine take entries and tells raft. */
  apply(count = this.toApply.length): Entry[] {
    const entries = this.toApply.splice(0, count);
    for (const entry of entries) {
      assert(entry.index === this.applied.length + 1, "applied entries are consecutive (I10)", {
        index: entry.index,
        applied: this.applied.length,
      });
      this.applied.push(textOf(entry));
      if (entry.type !== "conf-change") continue;
      const change = decodeConfChange(entry.data);
      const confState = this.node?.applyConfChange(change instanceof ConfChangeDecodeError ? undefined : change);
      if (confState !== undefined) this.#confs.push({ index: entry.index, confState });
    }
    const last = entries[entries.length - 1];
    if (last !== undefined) this.node?.applied(last.index);
    return entries;
  }

  /** A snapshot at the applied index may be sent from now on. */
  makeSnapshot(): LogIndex {
    const index = this.applied.length;
    this.#checkpoint = index;
    if (index > 0) this.storage.createSnapshot(index, this.confState);
    return index;
  }

  /** Forgets log entries up to `index`, at most what is applied and in the state machine's checkpoint. */
  compact(index: LogIndex): void {
    this.storage.compact(Math.min(index, this.#checkpoint));
  }

  /** The durable log's term at `index`; positions that only a snapshot covers count as held. */
  holdsDurably(index: LogIndex, term: number): boolean {
    return index < this.storage.firstIndex() || this.storage.term(index) === term;
  }

  /** Term of an entry as of everything handed out, durable or not; undefined when it is compacted or not there. */
  logTerm(index: LogIndex): number | undefined {
    for (const { entries, snapshot } of this.pending.toReversed()) {
      const first = entries[0]?.index ?? Number.MAX_SAFE_INTEGER;
      if (index >= first) return entries[index - first]?.term;
      if (snapshot !== undefined) return snapshot.metadata.index === index ? snapshot.metadata.term : undefined;
    }
    return this.storage.term(index);
  }

  /** Last position of the log as of everything handed out. */
  get logEnd(): { index: LogIndex; term: number } {
    const last = this.pending[this.pending.length - 1];
    if (last !== undefined) return { index: last.ticket.lastIndex, term: last.ticket.lastTerm };
    const index = this.storage.lastIndex();
    return { index, term: this.storage.term(index) ?? 0 };
  }

  /** Entries above `index` as of everything handed out, some of them possibly replaced by now. */
  entriesAfter(index: LogIndex): Entry[] {
    const { storage } = this;
    const from = Math.max(index + 1, storage.firstIndex());
    const stored = from > storage.lastIndex() ? [] : storage.entries(from, storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
    return [...stored, ...this.pending.flatMap((append) => append.entries)].filter((entry) => entry.index > index);
  }

  #attachState(message: Message): void {
    if (message.type !== "snapshot") return;
    const { index, confState } = message.snapshot.metadata;
    snapshotStates.set(message, { entries: this.applied.slice(0, index), confState });
  }

  /** The state received beside the snapshot message; the machine takes it over when the append is performed. */
  receivedState: MachineState | undefined;

  #persist(append: AppendWork): void {
    if (append.snapshot !== undefined) {
      const { metadata } = append.snapshot;
      const state = this.receivedState;
      assert(state !== undefined && state.entries.length >= metadata.index, "the state came beside the snapshot");
      this.storage.applySnapshot(metadata);
      this.applied = state.entries.slice(0, metadata.index);
      this.#confs = [{ index: metadata.index, confState: metadata.confState }];
      this.#checkpoint = metadata.index;
      this.toApply = [];
    }
    this.storage.append(append.entries);
    if (append.hardState !== undefined) this.#hardState = append.hardState;
    if (append.mustSync) this.#synced = this.#hardState;
  }
}
