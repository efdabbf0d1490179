/**
 * A whole cluster of raft cores in one thread, driven and disturbed by one seed: messages are lost, doubled and reordered, links are
 * cut, disks are slow, members crash and lose what was not durable, configurations change, logs are compacted. After every step the
 * properties J1 to J6 of the failure catalogue are checked from outside; at the end everything is healed and must converge (J11).
 */
import { InvariantError } from "../../src/base/assert.ts";
import { EMPTY_BYTES, utf8Bytes } from "../../src/base/bytes.ts";
import { compareIds, type LogIndex, type MemberId, NO_MEMBER, type Term } from "../../src/base/ids.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import type { ConfChangeKind, ConfState, Entry, Message, RaftConfig, RaftMutant, Role } from "../../src/raft/index.ts";
import { describeAppend, describeConf, describeEvent, describeMessage } from "./describe.ts";
import { SimulatedMember, snapshotStates, textOf } from "./simulated-member.ts";

/** A property does not hold. `check` is its name in the failure catalogue. */
export class Violation extends Error {
  readonly check: string;

  constructor(check: string, detail: string) {
    super(`${check}: ${detail}`);
    this.check = check;
  }
}

export interface ClusterOptions {
  readonly seed: number;
  readonly steps: number;
  readonly mutants?: readonly RaftMutant[];
  /** Members also lose their whole disks, and heal from the others. */
  readonly lostDisks?: boolean;
  /** Called with every line of a trace; costly, for looking at one seed. */
  readonly log?: (line: string) => void;
}

export interface ClusterReport {
  readonly steps: number;
  readonly committed: LogIndex;
  readonly leaders: number;
  readonly reads: number;
  readonly confChanges: number;
  readonly crashes: number;
  readonly snapshots: number;
  readonly lostDisks: number;
  readonly healed: number;
  /** Of everything that was sent, in order: equal seeds give equal digests. */
  readonly digest: number;
}

const POOL = 5;
const NETWORK_MAX = 150;
const CONVERGE_ROUNDS = 1000;

/** How often what goes wrong, drawn per seed, so that rare combinations occur. All in percent or per mille of steps. */
interface Dials {
  readonly loss: number;
  readonly duplication: number;
  readonly crash: number;
  readonly partition: number;
  readonly confChange: number;
  readonly transfer: number;
  readonly compaction: number;
  readonly campaign: number;
  /** Many ticks between deliveries make many elections. */
  readonly ticks: number;
  /** Members lose their disks and heal. From a random source of its own: in other seeds nothing changes by it. */
  readonly lostDisk: number;
  /** Chance in percent that due disk work is done when its turn comes. */
  readonly diskSpeed: number;
  readonly applySpeed: number;
}

/** Between a member that lost its disk and one that may lead. It travels like messages, only its answer is tied to the question. */
type Parcel =
  | { readonly type: "reset"; readonly from: MemberId; readonly to: MemberId; readonly life: number }
  | {
      readonly type: "admission";
      readonly from: MemberId;
      readonly to: MemberId;
      readonly life: number;
      readonly term: Term;
      readonly fence: LogIndex;
    };

const PARCELS_MAX = 20;

interface ReadAsked {
  readonly required: LogIndex;
  readonly at: MemberId;
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #random: Random;
  readonly #dials: Dials;
  readonly #members: SimulatedMember[] = [];
  #network: Message[] = [];
  #parcels: Parcel[] = [];
  readonly #fates: Random;
  /** A majority of some configuration had lost its disks at once: what it alone held is gone, and the cluster must rather stand still than forget it. */
  #hopeless = false;
  /** How often each member has started with an empty disk or in quarantine: answers are for the life that asked. */
  readonly #lives = new Map<MemberId, number>();
  #cut = new Set<string>();
  #proposals = 0;

  // What has been seen, for the checks.
  readonly #leaders = new Map<Term, MemberId>();
  readonly #votes = new Map<string, MemberId>();
  readonly #entries = new Map<string, { text: string; prevTerm: Term }>();
  readonly #applied: string[] = [];
  /** Highest position known to be committed by a leader. */
  #committed: { index: LogIndex; term: Term } = { index: 0, term: 0 };
  readonly #seen = new Map<MemberId, { role: Role; term: Term; commit: LogIndex }>();
  readonly #reads = new Map<bigint, ReadAsked>();
  #contexts = 0n;
  #counts = { reads: 0, confChanges: 0, crashes: 0, snapshots: 0, lostDisks: 0, healed: 0 };
  #digest = 0x811c9dc5;

  constructor(options: ClusterOptions) {
    this.#options = options;
    const random = seededRandom(options.seed);
    this.#random = random;
    this.#fates = seededRandom(options.seed * 7919 + 17);
    const sometimes = (max: number): number => (random.chance({ of: 1, outOf: 2 }) ? random.below(max + 1) : 0);
    this.#dials = {
      loss: sometimes(30),
      duplication: sometimes(20),
      crash: sometimes(10),
      partition: sometimes(15),
      confChange: sometimes(30),
      transfer: sometimes(10),
      compaction: sometimes(30),
      campaign: sometimes(15),
      lostDisk: options.lostDisks === true ? 1 + this.#fates.below(20) : 0,
      ticks: 60 + random.below(250),
      diskSpeed: 3 + random.below(98),
      applySpeed: 3 + random.below(98),
    };
    // With less than three nobody can heal.
    const size = Math.max(options.lostDisks === true ? 3 : 1, 1 + random.below(POOL));
    const voters = Array.from({ length: size }, (_, i) => BigInt(i + 1) as MemberId);
    const electionTimeoutTicks = 3 + random.below(8);
    const config = {
      electionTimeoutTicks,
      heartbeatTicks: 1 + random.below(2),
      preVote: random.chance({ of: 2, outOf: 3 }),
      checkQuorum: random.chance({ of: 2, outOf: 3 }),
      appendBytesMax: 1 + random.below(60),
      inflightMessagesMax: 1 + random.below(6),
      inflightBytesMax: 1 + random.below(100),
      uncommittedBytesMax: 20 + random.below(200),
      committedBytesMax: 1 + random.below(60),
      readMode: "quorum",
      mutants: options.mutants === undefined ? undefined : new Set(options.mutants),
    } satisfies Omit<RaftConfig, "id" | "applied">;
    for (let n = 1; n <= POOL; n++) {
      const id = BigInt(n) as MemberId;
      const { log } = options;
      const trace: RaftConfig["trace"] =
        log === undefined
          ? undefined
          : (event) => {
              const text = describeEvent(event);
              if (text !== undefined) log(`${id} ${text}`);
            };
      const member = new SimulatedMember({ ...config, id, trace }, seededRandom(options.seed * 1000 + n));
      // The others wait to be added, with empty disks.
      if (voters.includes(id)) member.bootstrap(voters);
      member.start();
      this.#members.push(member);
    }
  }

  run(): ClusterReport {
    const { steps } = this.#options;
    for (let step = 0; step < steps; step++) this.#step();
    this.#converge();
    return {
      steps,
      committed: this.#committed.index,
      leaders: this.#leaders.size,
      ...this.#counts,
      digest: this.#digest >>> 0,
    };
  }

  // ------------------------------------------------------------------------------------------------------------- the world

  #step(): void {
    const random = this.#random;
    if (this.#dials.lostDisk > 0) this.#mishap();
    const member = this.#members[random.below(POOL)] as SimulatedMember;
    const dice = random.below(1000);
    const { crash, partition, confChange, transfer, compaction, ticks, campaign } = this.#dials;
    let border = 0;
    const within = (perMille: number): boolean => {
      border += perMille;
      return dice < border;
    };
    if (within(crash)) this.#crashOrRestart(member);
    else if (within(partition)) this.#changePartition();
    else if (within(confChange)) this.#changeConf(member);
    else if (within(transfer)) this.#guard(member, () => member.node?.transferLeader(BigInt(1 + random.below(POOL)) as MemberId));
    else if (within(compaction)) this.#compact(member);
    else if (within(50)) this.#propose(this.#leaderOr(member));
    else if (within(25)) this.#read(random.chance({ of: 1, outOf: 2 }) ? this.#leaderOr(member) : member);
    else if (within(campaign)) this.#guard(member, () => member.node?.campaign());
    else if (within(5)) this.#guard(member, () => member.node?.reportUnreachable(BigInt(1 + random.below(POOL)) as MemberId));
    else if (within(ticks)) this.#guard(member, () => member.node?.tick(random.chance({ of: 1, outOf: 20 }) ? 1 + random.below(8) : 1));
    else if (within(360) && this.#network.length > 0) this.#deliverOne();
    else this.#work(member);
    this.#observe(member);
  }

  #work(member: SimulatedMember): void {
    const random = this.#random;
    this.#guard(member, () => {
      const ready = member.take();
      if (ready !== undefined) {
        if (ready.append !== undefined) {
          this.#options.log?.(`${member.id} ${describeAppend(ready.append)}`);
          this.#checkAppended(member, ready.append.entries);
        }
        this.#checkCommitted(member, ready.committed);
        for (const { context, index } of ready.readStates) this.#checkRead(member, context, index);
        for (const message of ready.messages) this.#send(member, message);
      }
      while (member.pending.length > 0 && random.chance({ of: this.#dials.diskSpeed, outOf: 100 })) this.#persistOne(member);
      if (random.chance({ of: this.#dials.applySpeed, outOf: 100 })) this.#apply(member, random.below(member.toApply.length + 1));
    });
  }

  #persistOne(member: SimulatedMember): void {
    for (const message of member.persist(1)) this.#send(member, message);
    this.#observe(member);
  }

  /** One by one: a configuration change may change who counts. */
  #apply(member: SimulatedMember, count: number): void {
    for (let i = 0; i < count; i++) {
      member.apply(1);
      this.#observe(member);
    }
  }

  #send(member: SimulatedMember, message: Message): void {
    this.#checkPromise(member, message);
    const text = describeMessage(message);
    for (let i = 0; i < text.length; i++) this.#digest = Math.imul(this.#digest ^ text.charCodeAt(i), 0x01000193);
    this.#options.log?.(`  ${text}`);
    if (message.type === "snapshot") this.#counts.snapshots += 1;
    this.#network.push(message);
    while (this.#network.length > NETWORK_MAX) this.#lose(this.#network.shift() as Message);
  }

  #lose(message: Message): void {
    if (message.type === "snapshot") this.#reportSnapshot(message, "failed");
  }

  #reportSnapshot(message: Message, outcome: "received" | "failed"): void {
    const sender = this.#member(message.from);
    this.#guard(sender, () => sender.node?.reportSnapshot(message.to, outcome));
  }

  #deliverOne(): void {
    const random = this.#random;
    // Mostly in order, sometimes from anywhere.
    const at = random.chance({ of: 2, outOf: 3 }) ? 0 : random.below(this.#network.length);
    const message = this.#network[at] as Message;
    if (random.chance({ of: this.#dials.duplication, outOf: 100 })) this.#network.push(message);
    this.#network.splice(at, 1);
    if (random.chance({ of: this.#dials.loss, outOf: 100 })) this.#lose(message);
    else this.#receive(message);
  }

  #receive(message: Message): void {
    const member = this.#member(message.to);
    if (member.node === undefined || this.#cut.has(`${message.from}->${message.to}`)) {
      this.#lose(message);
      return;
    }
    const state = snapshotStates.get(message);
    if (state !== undefined && state.entries.length >= (member.receivedState?.entries.length ?? 0)) member.receivedState = state;
    this.#options.log?.(`  => ${describeMessage(message)}`);
    this.#guard(member, () => member.node?.step(message));
    if (message.type === "snapshot") this.#reportSnapshot(message, "received");
    this.#observe(member);
  }

  /** In worlds where disks get lost. */
  #mishap(): void {
    const fates = this.#fates;
    const member = this.#members[fates.below(POOL)] as SimulatedMember;
    if (fates.chance({ of: this.#dials.lostDisk, outOf: 1000 })) this.#loseDisk(member);
    else if (fates.chance({ of: 1, outOf: 20 })) this.#heal(member);
    else if (fates.chance({ of: 1, outOf: 50 })) this.#leaderOr(member).makeSnapshot();
    if (this.#parcels.length > 0 && fates.chance({ of: 1, outOf: 8 })) this.#carry();
  }

  #loseDisk(member: SimulatedMember): void {
    if (member.applied.length === 0) return;
    const newest = this.#members.reduce((a, b) => (b.applied.length > a.applied.length ? b : a));
    const confs = [newest, member, this.#leaderOr(newest)].map(({ confState }) => confState);
    const hopeless = confs.some((confState) => !this.#hasHealthyMajority(confState, member.id));
    // Seldom: not much happens after that.
    if (hopeless && !this.#fates.chance({ of: 1, outOf: 50 })) return;
    this.#hopeless ||= hopeless;
    this.#counts.lostDisks += 1;
    this.#options.log?.(`${member.id} loses its disk`);
    member.loseDisk();
    this.#seen.delete(member.id);
    // What it voted in its former life is known to nobody any more who must not contradict it: J1 is the judge.
    for (const key of [...this.#votes.keys()]) if (key.startsWith(`${member.id} `)) this.#votes.delete(key);
    this.#restart(member);
  }

  #hasHealthyMajority({ voters, votersOutgoing }: ConfState, without?: MemberId): boolean {
    return [voters, votersOutgoing].every((half) => {
      const healthy = half.filter((id) => id !== without && !this.#member(id).quarantined).length;
      return half.length === 0 || 2 * healthy > half.length;
    });
  }

  /** What its owner does for a member in quarantine: it asks around, and ends it as soon as it may. */
  #heal(member: SimulatedMember): void {
    if (!member.quarantined || member.node === undefined) return;
    this.#guard(member, () => {
      if (member.leaveQuarantine()) {
        this.#counts.healed += 1;
        return;
      }
      // Asking again while it is being healed begins all over; that must be safe, but not the rule.
      const heard = member.node?.status().leader !== NO_MEMBER;
      if (heard && !this.#fates.chance({ of: 1, outOf: 20 })) return;
      const anyone = this.#members[this.#fates.below(POOL)] as SimulatedMember;
      const to = this.#fates.chance({ of: 1, outOf: 4 }) ? anyone.id : this.#leaderOr(anyone).id;
      this.#mail({ type: "reset", from: member.id, to, life: this.#lives.get(member.id) ?? 0 });
    });
  }

  #mail(parcel: Parcel): void {
    if (parcel.from === parcel.to || this.#cut.has(`${parcel.from}->${parcel.to}`)) return;
    this.#parcels.push(parcel);
    if (this.#parcels.length > PARCELS_MAX) this.#parcels.shift();
  }

  /** One parcel arrives, in any order, sometimes twice; a question may come from a life that is over. */
  #carry(): void {
    const fates = this.#fates;
    const at = fates.below(this.#parcels.length);
    const parcel = this.#parcels[at] as Parcel;
    if (!fates.chance({ of: 1, outOf: 10 })) this.#parcels.splice(at, 1);
    const member = this.#member(parcel.to);
    const { node } = member;
    if (node === undefined) return;
    this.#options.log?.(`  => ${parcel.type} ${parcel.from}->${parcel.to}`);
    this.#guard(member, () => {
      if (parcel.type === "reset") {
        const outcome = node.resetProgress(parcel.from, utf8Bytes("fence"));
        if (typeof outcome === "string") return;
        this.#mail({ ...outcome, type: "admission", from: parcel.to, to: parcel.from, life: parcel.life });
      } else if (member.quarantined && parcel.life === (this.#lives.get(parcel.to) ?? 0)) {
        node.admit(parcel.from, parcel.term, parcel.fence);
      }
    });
    this.#observe(member);
  }

  #crashOrRestart(member: SimulatedMember): void {
    const random = this.#random;
    if (member.node === undefined) {
      this.#restart(member);
      return;
    }
    this.#counts.crashes += 1;
    this.#options.log?.(`${member.id} crashes`);
    const { commit } = member.diskHardState;
    member.crash({
      kept: random.below(member.pending.length + 1),
      loseCommit: random.chance({ of: 1, outOf: 2 }),
      // Nothing but speed may depend on a stored commit index.
      commitMax: random.chance({ of: 1, outOf: 2 }) ? commit : random.below(commit + 1),
    });
    this.#seen.delete(member.id);
    if (random.chance({ of: 1, outOf: 2 })) this.#restart(member);
  }

  #restart(member: SimulatedMember): void {
    const at = member.restartAt;
    const applied = at + this.#random.below(member.applied.length - at + 1);
    this.#options.log?.(`${member.id} restarts at ${applied}${member.quarantined ? " in quarantine" : ""}`);
    this.#lives.set(member.id, (this.#lives.get(member.id) ?? 0) + 1);
    this.#guard(member, () => member.start(applied));
  }

  #changePartition(): void {
    const random = this.#random;
    this.#cut = new Set();
    switch (random.below(4)) {
      case 0:
        return;
      case 1: {
        // Two sides.
        const side = this.#members.map(() => random.below(2));
        for (let a = 0; a < POOL; a++) for (let b = 0; b < POOL; b++) if (side[a] !== side[b]) this.#cut.add(`${a + 1}->${b + 1}`);
        return;
      }
      case 2: {
        // One is alone, preferably one that leads.
        const alone = this.#leaderOr(this.#members[random.below(POOL)] as SimulatedMember).id;
        for (let n = 1; n <= POOL; n++) {
          this.#cut.add(`${alone}->${n}`);
          this.#cut.add(`${n}->${alone}`);
        }
        return;
      }
      default:
        // Any links in any direction: not transitive, not symmetric.
        for (let i = random.below(8); i > 0; i--) this.#cut.add(`${1 + random.below(POOL)}->${1 + random.below(POOL)}`);
    }
  }

  #changeConf(at: SimulatedMember): void {
    const random = this.#random;
    const member = this.#leaderOr(at);
    const kinds: ConfChangeKind[] = ["add-voter", "add-voter", "add-learner", "remove"];
    const count = random.chance({ of: 2, outOf: 3 }) ? 1 : random.below(4);
    const steps = Array.from({ length: count }, () => ({
      kind: kinds[random.below(4)] as ConfChangeKind,
      memberId: BigInt(1 + random.below(POOL)) as MemberId,
    }));
    const joint = random.chance({ of: 1, outOf: 4 });
    const autoLeave = random.chance({ of: 3, outOf: 4 });
    this.#guard(member, () => {
      if (member.node?.proposeConfChange({ steps, joint, autoLeave, context: EMPTY_BYTES }) !== "accepted") return;
      this.#counts.confChanges += 1;
      this.#checkConfProposal(member);
    });
  }

  #compact(member: SimulatedMember): void {
    if (member.node === undefined) return;
    const index = member.makeSnapshot();
    // Not always all of it: sometimes the log reaches back behind the newest snapshot.
    member.compact(index - (this.#random.chance({ of: 1, outOf: 2 }) ? 0 : this.#random.below(5)));
  }

  #propose(member: SimulatedMember): void {
    this.#proposals += 1;
    const text = `p${this.#proposals}${"x".repeat(this.#random.below(12))}`;
    this.#guard(member, () => member.node?.propose(utf8Bytes(text)));
  }

  #read(member: SimulatedMember): void {
    if (member.node === undefined) return;
    this.#contexts += 1n;
    const context = this.#contexts;
    this.#reads.set(context, { required: this.#committed.index, at: member.id });
    this.#guard(member, () => member.node?.readIndex(context));
  }

  #leaderOr(member: SimulatedMember): SimulatedMember {
    const leaders = this.#members.filter((each) => this.#seen.get(each.id)?.role === "leader" && each.node !== undefined);
    return leaders.length === 0 ? member : (leaders[this.#random.below(leaders.length)] as SimulatedMember);
  }

  #member(id: MemberId): SimulatedMember {
    return this.#members[Number(id) - 1] as SimulatedMember;
  }

  /** A failed assertion inside raft is a violation like any other. */
  #guard(member: SimulatedMember, act: () => unknown): void {
    try {
      act();
    } catch (error) {
      if (error instanceof InvariantError) throw new Violation("assertion", `${member.id} ${error.message}`);
      throw error;
    }
  }

  // ------------------------------------------------------------------------------------------------------------- the checks

  /** After anything that may have changed a member's mind. */
  #observe(member: SimulatedMember): void {
    const { node, id } = member;
    if (node === undefined) return;
    const { role, term, commit } = node.status();
    const before = this.#seen.get(id);
    this.#seen.set(id, { role, term, commit });
    // A leader may lead on while it hands over after its own removal.
    if (role !== "follower" && !(role === "leader" && before?.role === "leader" && before.term === term)) {
      const { voters, votersOutgoing } = node.confState();
      if (!voters.includes(id) && !votersOutgoing.includes(id)) throw new Violation("I7", `${id} is ${role} without being a voter`);
    }
    this.#checkVoteOrder(member);
    if (role !== "leader") return;
    if (before?.role !== "leader" || before.term !== term) {
      const other = this.#leaders.get(term);
      if (other !== undefined && other !== id) throw new Violation("J1", `${other} and ${id} lead in term ${term}`);
      this.#leaders.set(term, id);
      const { index, term: committedTerm } = this.#committed;
      if (committedTerm < term && index > 0 && !member.holdsDurably(index, committedTerm)) {
        throw new Violation("J5", `${id} leads in term ${term} without the committed entry ${index}/${committedTerm}`);
      }
    }
    if (before === undefined || commit > before.commit) this.#checkQuorumHolds(node.confState(), commit, term, before?.term === term);
  }

  /** J6: a log that voters would prefer to the committed entry contains it. */
  #checkVoteOrder(member: SimulatedMember): void {
    const { index, term } = this.#committed;
    const last = member.logEnd;
    if (last.term < term || (last.term === term && last.index < index)) return;
    const own = member.logTerm(index);
    if (own !== undefined && own !== term) {
      throw new Violation(
        "J6",
        `${member.id} could win with a log to ${last.index}/${last.term} that has ${index}/${own}; ${index}/${term} is committed`,
      );
    }
    if (last.index < index)
      throw new Violation("J6", `${member.id} could win with a log to ${last.index}/${last.term}; ${index}/${term} is committed`);
  }

  /** J4: whatever quorum is asked later, somebody in it has the entry. */
  #checkQuorumHolds(confState: ConfState, index: LogIndex, term: Term, sameTerm: boolean): void {
    // Advanced under this leadership, so its last entry is of this term. What the leader knew before it led is not news.
    if (!sameTerm || index <= this.#committed.index) return;
    for (const half of [confState.voters, confState.votersOutgoing]) {
      if (half.length === 0) continue;
      // One in quarantine may have acknowledged it in its former life. As it does not vote, no quorum is without somebody else who has it.
      const holders = half.filter((id) => this.#member(id).quarantined || this.#member(id).holdsDurably(index, term)).length;
      if (2 * holders <= half.length) {
        throw new Violation("J4", `${index}/${term} is committed, but durable only on ${holders} of (${half.join(" ")})`);
      }
    }
    this.#committed = { index, term };
  }

  /** J2: entries of equal index and term are equal and follow equal ones. */
  #checkAppended(member: SimulatedMember, entries: readonly Entry[]): void {
    let prevTerm: Term | undefined;
    for (const entry of entries) {
      if (prevTerm === undefined) {
        prevTerm = member.logTerm(entry.index - 1);
      }
      const key = `${entry.index}/${entry.term}`;
      const text = textOf(entry);
      const known = this.#entries.get(key);
      if (known === undefined) {
        if (prevTerm !== undefined) this.#entries.set(key, { text, prevTerm });
      } else {
        if (known.text !== text) throw new Violation("J2", `${key} is ${known.text} and, on ${member.id}, ${text}`);
        if (prevTerm !== undefined && known.prevTerm !== prevTerm) {
          throw new Violation("J2", `${key} follows term ${known.prevTerm} and, on ${member.id}, term ${prevTerm}`);
        }
      }
      prevTerm = entry.term;
    }
  }

  /** J3: everybody applies the same. */
  #checkCommitted(member: SimulatedMember, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const text = textOf(entry);
      const at = entry.index - 1;
      if (at > this.#applied.length) throw new Violation("J3", `${member.id} applies ${text}, and nobody what precedes it`);
      if (at === this.#applied.length) this.#applied.push(text);
      else if (this.#applied[at] !== text) throw new Violation("J3", `${member.id} applies ${text}, others ${this.#applied[at]}`);
      if (!member.holdsDurably(entry.index, entry.term))
        throw new Violation("BW2", `${member.id} applies ${text} before it is durable there`);
    }
  }

  /** I11: a leader proposes a change only when it has applied all before, and has committed an entry of its own term. */
  #checkConfProposal(member: SimulatedMember): void {
    const seen = this.#seen.get(member.id);
    const status = member.node?.status();
    if (status?.role !== "leader" || seen?.term !== status.term) return;
    if (member.logTerm(status.commit) !== status.term)
      throw new Violation("I11", `${member.id} changes before it has committed in its term`);
    const open = member.entriesAfter(status.applied).filter((entry) => entry.type === "conf-change");
    if (open.length > 0) throw new Violation("I11", `${member.id} changes while ${open.map(textOf).join(", ")} is not applied`);
  }

  /** I1, I9: what leaves is on this member's disk. */
  #checkPromise(member: SimulatedMember, message: Message): void {
    const hardState = member.diskHardState;
    if (message.type === "vote-response" && message.granted && !message.pre) {
      const key = `${member.id} in term ${message.term}`;
      const other = this.#votes.get(key);
      if (other !== undefined && other !== message.to) throw new Violation("I1", `${key} votes for ${other} and ${message.to}`);
      this.#votes.set(key, message.to);
      const kept = hardState.term > message.term || (hardState.term === message.term && hardState.vote === message.to);
      if (!kept) throw new Violation("I1", `the vote of ${key} for ${message.to} leaves before it is durable`);
    }
    if (message.type === "append-response" && !message.rejected && hardState.term === message.term) {
      const { index } = message;
      if (member.storage.lastIndex() < index) {
        throw new Violation("I9", `${member.id} acknowledges ${index}, its disk ends at ${member.storage.lastIndex()}`);
      }
      const leader = this.#member(message.to);
      const seen = this.#seen.get(message.to);
      const wanted = seen?.role === "leader" && seen.term === message.term ? leader.logTerm(index) : undefined;
      if (wanted !== undefined && !member.holdsDurably(index, wanted)) {
        throw new Violation("I9", `${member.id} acknowledges ${index}/${wanted}, its disk has term ${member.storage.term(index)}`);
      }
    }
    if (!(message.type === "vote-request" && message.pre) && message.type !== "vote-response" && message.term > hardState.term) {
      throw new Violation("I1", `${describeMessage(message)} leaves before its term is durable`);
    }
  }

  /** I12: nothing that was committed when the read was asked is missing in its answer. */
  #checkRead(member: SimulatedMember, context: bigint, index: LogIndex): void {
    const asked = this.#reads.get(context);
    if (asked === undefined) return;
    this.#counts.reads += 1;
    if (index < asked.required) {
      throw new Violation("I12", `read ${context} at ${member.id} is answered at ${index}; ${asked.required} was committed before it`);
    }
  }

  // ------------------------------------------------------------------------------------------------------------- liveness

  /** J11: everybody up, nothing lost, disks and links fast. Members that are not in the newest configuration are switched off. */
  #converge(): void {
    this.#cut = new Set();
    for (const message of this.#network) this.#lose(message);
    this.#network = [];
    for (const member of this.#members) if (member.node === undefined) this.#restart(member);
    let proposed = "";
    let context = 0n;
    let answered = false;
    for (let round = 0; round < CONVERGE_ROUNDS; round++) {
      for (const member of this.#members) {
        const { node } = member;
        if (node === undefined) continue;
        this.#guard(member, () => {
          node.tick();
          while (member.pending.length > 0) this.#persistOne(member);
          this.#apply(member, member.toApply.length);
          for (let ready = member.take(); ready !== undefined; ready = member.take()) {
            if (ready.append !== undefined) this.#checkAppended(member, ready.append.entries);
            this.#checkCommitted(member, ready.committed);
            for (const state of ready.readStates) {
              this.#checkRead(member, state.context, state.index);
              if (state.context === context) answered = true;
            }
            for (const message of ready.messages) this.#send(member, message);
            while (member.pending.length > 0) this.#persistOne(member);
            this.#apply(member, member.toApply.length);
          }
        });
        this.#heal(member);
        this.#observe(member);
      }
      while (this.#parcels.length > 0) this.#carry();
      if (round >= 100) this.#switchOffRemoved();
      const arrived = this.#network;
      this.#network = [];
      for (const message of arrived) this.#receive(message);

      const leaders = this.#members.filter((member) => this.#seen.get(member.id)?.role === "leader" && member.node !== undefined);
      const leader = leaders.reduce<SimulatedMember | undefined>(
        (best, each) => (best === undefined || this.#termOf(each) > this.#termOf(best) ? each : best),
        undefined,
      );
      if (leader?.node === undefined) {
        continue;
      }
      leader.makeSnapshot();
      const confState = leader.node.confState();
      if (confState.votersOutgoing.length > 0 && !confState.autoLeave) leader.node.proposeConfChange({ steps: [], context: EMPTY_BYTES });
      if (round < 60) continue;
      const ids = [...confState.voters, ...confState.learners].sort(compareIds);
      const ends = ids.map((id) => this.#member(id).applied.length);
      const last = leader.storage.lastIndex();
      const level = ends.every((end) => end === last) && confState.votersOutgoing.length === 0;
      if (level && (proposed === "" || (round % 40 === 0 && !answered))) {
        // Everything of the past is settled without new work pushing it; now something new must pass. Asked again like a client would.
        proposed = "after the storm";
        this.#contexts += 1n;
        context = this.#contexts;
        leader.node.propose(utf8Bytes(proposed));
        leader.node.readIndex(context);
        this.#reads.set(context, { required: this.#committed.index, at: leader.id });
      } else if (
        proposed !== "" &&
        level &&
        answered &&
        ids.every((id) => this.#member(id).applied.some((text) => text.endsWith(proposed)))
      ) {
        this.#checkSameConfiguration(ids, confState);
        return;
      }
    }
    // Safe, and nothing more can be asked.
    if (this.#hopeless || this.#members.some((each) => !this.#hasHealthyMajority(each.confState))) return;
    const states = this.#members.map((member) => {
      const { node } = member;
      if (node === undefined) return `${member.id} off`;
      const { role, term, commit } = node.status();
      return `${member.id} ${role} t${term} commit=${commit} applied=${member.applied.length} last=${member.storage.lastIndex()} ${describeConf(node.confState())}`;
    });
    throw new Violation(
      "J11",
      `does not converge (${proposed === "" ? "old entries" : answered ? "new entries" : "read"}): ${states.join("; ")}`,
    );
  }

  #termOf(member: SimulatedMember): Term {
    return this.#seen.get(member.id)?.term ?? 0;
  }

  /** What a server does when it learns that it was removed. */
  #switchOffRemoved(): void {
    const newest = this.#members.reduce((a, b) => (b.applied.length > a.applied.length ? b : a));
    const { voters, votersOutgoing, learners } = newest.confState;
    for (const member of this.#members) {
      const included = [...voters, ...votersOutgoing, ...learners].includes(member.id);
      if (included && member.node === undefined) this.#restart(member);
      else if (!included) {
        member.crash();
        this.#seen.delete(member.id);
      }
    }
  }

  /** BM12: what raft acts on is what the log says, on every member. */
  #checkSameConfiguration(ids: readonly MemberId[], confState: ConfState): void {
    for (const id of ids) {
      const own = this.#member(id).node?.confState();
      if (own === undefined || describeConf(own) !== describeConf(confState)) {
        throw new Violation(
          "BM12",
          `${id} acts on ${own === undefined ? "nothing" : describeConf(own)}, the leader on ${describeConf(confState)}`,
        );
      }
    }
  }
}

export function runCluster(options: ClusterOptions): ClusterReport {
  return new Cluster(options).run();
}
