/**
 * Interpreter of the scenario files. A file is a list of blocks:
 *
 *     # comment
 *     command arguments
 *     more commands
 *     ----
 *     the trace they leave
 *     (an empty line ends the block)
 *
 * The trace is compared as a whole; running the tests with UPDATE=1 rewrites it, and the difference is reviewed.
 *
 * Commands (members are numbers; `a->b` names a link, `*` anything):
 *   add-nodes N [voters=1,2] [learners=3] [election=10] [heartbeat=1] [no-prevote] [no-checkquorum] [lease] [inflight=N]
 *             [inflight-bytes=N] [append-bytes=N] [uncommitted=N] [committed=N] [mutants=a,b]     a new world of nodes 1..N, not started
 *   preset ID terms=1,1,2 [term=T] [vote=V] [commit=C]   its disk before the first start
 *   node ID                        a fresh member with an empty disk, started; it knows the configuration that the log begins with
 *   start [IDS]                    starts (default: all that do not run)
 *   campaign ID · propose ID TEXT.. · tick ID [N] [at-once] · transfer ID TO · read-index ID CONTEXT
 *   conf-change ID v4 l5 r2 u3 [joint] [manual] · leave ID
 *   stabilize [IDS]                work and deliver until nothing is left
 *   work ID                        takes ready work once: sends, makes durable and applies unless held
 *   hold ID · appended ID [N] · unhold ID       appends are handed out but not durable until told (N oldest, default all)
 *   hold-apply ID · apply ID [N] · unhold-apply ID
 *   deliver a->b [N] · drop a->b [TYPE] · duplicate a->b · stash a->b [TYPE] · unstash · network
 *   partition 1 2 | 3 · heal · one-way a->b (that direction is dead)
 *   crash ID [kept=N] [lose-commit] · restart ID [applied=N]
 *   lose-disk ID                   crashes and comes back with an empty disk, in quarantine
 *   reset L ID                     leader L hears that ID began anew, and answers · admit ID takes in that answer · leave-quarantine ID
 *   snapshot ID · compact ID INDEX · unreachable ID PEER · report-snapshot ID PEER received|failed
 *   status [IDS] · log ID · disk ID · progress ID · applied ID · quiet · loud · check-logs
 */
import { assert, InvariantError } from "../../src/base/assert.ts";
import { EMPTY_BYTES, utf8Bytes } from "../../src/base/bytes.ts";
import { compareIds, type MemberId } from "../../src/base/ids.ts";
import type { Random } from "../../src/base/random.ts";
import {
  type ConfChangeKind,
  type ConfChangeStep,
  type ConfState,
  EMPTY_CONF,
  type Message,
  type RaftConfig,
  type RawNode,
} from "../../src/raft/index.ts";
import { describeAppend, describeConf, describeEvent, describeMessage, describeStatus } from "./describe.ts";
import { SimulatedMember, snapshotStates, textOf } from "./simulated-member.ts";

const STABILIZE_ROUNDS_MAX = 300;

/** Member n's election timeout is always n - 1 ticks above the minimum, so that a scenario knows who times out first. */
function fixedRandom(id: MemberId): Random {
  return { below: (n) => Math.min(Number(id) - 1, n - 1), chance: () => false, bits64: () => 0n };
}

interface Held {
  append: boolean;
  apply: boolean;
}

export class Scenario {
  readonly #members = new Map<MemberId, SimulatedMember>();
  readonly #held = new Map<MemberId, Held>();
  #network: Message[] = [];
  #stash: Message[] = [];
  /** Side of the partition; members of different sides do not hear each other. */
  readonly #side = new Map<MemberId, number>();
  readonly #deadLinks = new Set<string>();
  #options: Omit<RaftConfig, "id" | "applied" | "trace"> | undefined;
  /** As of index 0: scenarios start without the entries that bootstrap a configuration. */
  #initial: ConfState = EMPTY_CONF;
  #quiet = false;
  /** The last answer to `reset`. */
  #admission: { leader: MemberId; term: number; fence: number } | undefined;
  #out: string[] = [];

  /** Runs one command line and answers the lines it leaves. */
  run(line: string): string[] {
    this.#out = [];
    const [command = "", ...args] = line.split(/\s+/);
    try {
      this.#command(command, args);
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      this.#out.push(`FATAL ${error.message}`);
    }
    return this.#out;
  }

  #command(command: string, args: string[]): void {
    const options = new Map(args.filter((arg) => arg.includes("=")).map((arg) => arg.split("=", 2) as [string, string]));
    const words = args.filter((arg) => !arg.includes("="));
    const number = (name: string, fallback: number): number => Number(options.get(name) ?? fallback);
    const member = (at = 0): SimulatedMember => this.#member(idOf(words[at]));
    const node = (at = 0): RawNode => this.#node(idOf(words[at]));
    switch (command) {
      case "add-nodes":
        this.#addNodes(Number(words[0]), words.slice(1), options);
        return;
      case "node": {
        this.#addNode(idOf(words[0])).start();
        return;
      }
      case "preset": {
        const terms = list(options.get("terms")).map(Number);
        const term = number("term", terms[terms.length - 1] ?? 0);
        member().preset(terms, { term, vote: idOf(options.get("vote") ?? "0"), commit: number("commit", 0) });
        return;
      }
      case "start":
        for (const each of this.#some(words)) if (each.node === undefined) each.start();
        return;
      case "campaign":
        node().campaign();
        return;
      case "propose": {
        const outcome = node().propose(utf8Bytes(words.slice(1).join(" ")));
        if (outcome !== "accepted") this.#out.push(outcome);
        return;
      }
      case "tick": {
        const count = Number(words[1] ?? 1);
        if (words.includes("at-once")) node().tick(count);
        else for (let i = 0; i < count; i++) node().tick();
        return;
      }
      case "transfer":
        node().transferLeader(idOf(words[1]));
        return;
      case "read-index":
        node().readIndex(BigInt(words[1] ?? 0));
        return;
      case "conf-change": {
        const steps = words.slice(1).flatMap(stepOf);
        const outcome = node().proposeConfChange({
          steps,
          context: EMPTY_BYTES,
          ...(words.includes("joint") && { joint: true }),
          ...(words.includes("manual") && { autoLeave: false }),
        });
        if (outcome !== "accepted") this.#out.push(outcome);
        return;
      }
      case "leave": {
        const outcome = node().proposeConfChange({ steps: [], context: EMPTY_BYTES });
        if (outcome !== "accepted") this.#out.push(outcome);
        return;
      }
      case "stabilize":
        this.#stabilize(words);
        return;
      case "work":
        if (!this.#workOnce(member())) this.#out.push("nothing to do");
        return;
      case "hold":
        this.#holds(member().id).append = true;
        return;
      case "unhold":
        this.#holds(member().id).append = false;
        return;
      case "appended": {
        const waiting = member().pending.length;
        if (waiting === 0) this.#out.push("nothing under way");
        this.#persist(member(), Number(words[1] ?? waiting));
        return;
      }
      case "hold-apply":
        this.#holds(member().id).apply = true;
        return;
      case "unhold-apply":
        this.#holds(member().id).apply = false;
        return;
      case "apply":
        this.#apply(member(), Number(words[1] ?? member().toApply.length));
        return;
      case "deliver":
        this.#deliver(words[0] ?? "*", Number(words[1] ?? Number.MAX_SAFE_INTEGER));
        return;
      case "drop":
        for (const message of this.#takeFromNetwork(words[0] ?? "*", words[1])) this.#print(`  lost ${describeMessage(message)}`);
        return;
      case "duplicate":
        this.#network.push(...this.#network.filter((message) => matches(message, words[0] ?? "*", words[1])));
        return;
      case "stash": {
        const stashed = this.#takeFromNetwork(words[0] ?? "*", words[1]);
        for (const message of stashed) this.#out.push(`  late ${describeMessage(message)}`);
        this.#stash.push(...stashed);
        return;
      }
      case "unstash":
        this.#network.push(...this.#stash);
        this.#stash = [];
        return;
      case "network":
        for (const message of this.#network) this.#out.push(describeMessage(message));
        return;
      case "partition":
        this.#side.clear();
        args
          .join(" ")
          .split("|")
          .forEach((side, i) => {
            for (const id of list(side.trim(), " ")) this.#side.set(idOf(id), i);
          });
        return;
      case "one-way":
        this.#deadLinks.add(words[0] ?? "");
        return;
      case "heal":
        this.#side.clear();
        this.#deadLinks.clear();
        return;
      case "crash":
        member().crash({ kept: number("kept", 0), loseCommit: words.includes("lose-commit") });
        return;
      case "restart":
        if (options.has("applied")) member().start(number("applied", 0));
        else member().start();
        return;
      case "lose-disk":
        member().loseDisk();
        member().start();
        return;
      case "reset": {
        const outcome = node().resetProgress(idOf(words[1]), utf8Bytes("fence"));
        if (typeof outcome === "string") this.#out.push(outcome);
        else this.#admission = { leader: member().id, ...outcome };
        return;
      }
      case "admit": {
        assert(this.#admission !== undefined, "reset comes first");
        const { leader, term, fence } = this.#admission;
        if (!node().admit(leader, term, fence)) this.#out.push("out of date");
        return;
      }
      case "leave-quarantine":
        if (!member().leaveQuarantine()) this.#out.push("not healed yet");
        return;
      case "snapshot":
        this.#out.push(`snapshot at ${member().makeSnapshot()}`);
        return;
      case "compact":
        member().compact(Number(words[1]));
        return;
      case "unreachable":
        node().reportUnreachable(idOf(words[1]));
        return;
      case "report-snapshot":
        node().reportSnapshot(idOf(words[1]), words[2] === "received" ? "received" : "failed");
        return;
      case "status":
        for (const each of this.#some(words)) this.#status(each);
        return;
      case "log":
        this.#out.push(`${words[0]}: ${this.#logOf(member())}`);
        return;
      case "disk":
        this.#out.push(`${words[0]}: ${this.#diskOf(member())}`);
        return;
      case "applied":
        this.#out.push(`${words[0]}: ${member().applied.join(", ")}`);
        return;
      case "progress":
        for (const peer of node().status().progress) {
          const { id, state, match, next, learner, recentActive } = peer;
          this.#out.push(`${id}: ${state} match=${match} next=${next}${learner ? " learner" : ""}${recentActive ? "" : " inactive"}`);
        }
        return;
      case "quiet":
        this.#quiet = true;
        return;
      case "loud":
        this.#quiet = false;
        return;
      case "check-logs":
        this.#checkApplied();
        return;
      default:
        throw new Error(`unknown scenario command: ${command}`);
    }
  }

  #addNodes(count: number, words: readonly string[], options: ReadonlyMap<string, string>): void {
    const number = (name: string, fallback: number): number => Number(options.get(name) ?? fallback);
    this.#members.clear();
    this.#held.clear();
    this.#network = [];
    this.#stash = [];
    this.#side.clear();
    this.#deadLinks.clear();
    const mutants = options.get("mutants");
    this.#options = {
      electionTimeoutTicks: number("election", 10),
      heartbeatTicks: number("heartbeat", 1),
      preVote: !words.includes("no-prevote"),
      checkQuorum: !words.includes("no-checkquorum"),
      appendBytesMax: number("append-bytes", 1024),
      inflightMessagesMax: number("inflight", 16),
      inflightBytesMax: number("inflight-bytes", 1024 * 1024),
      uncommittedBytesMax: number("uncommitted", 1024 * 1024),
      committedBytesMax: number("committed", 1024 * 1024),
      readMode: words.includes("lease") ? "lease" : "quorum",
      mutants: mutants === undefined ? undefined : new Set(list(mutants)),
    };
    const learners = list(options.get("learners")).map(idOf);
    const all = Array.from({ length: count }, (_, i) => BigInt(i + 1) as MemberId);
    const voters = options.has("voters") ? list(options.get("voters")).map(idOf) : all.filter((id) => !learners.includes(id));
    this.#initial = { ...EMPTY_CONF, voters, learners };
    for (const id of all) this.#addNode(id);
  }

  #addNode(id: MemberId): SimulatedMember {
    assert(this.#options !== undefined, "add-nodes comes first");
    const config = {
      ...this.#options,
      id,
      trace: (event: Parameters<NonNullable<RaftConfig["trace"]>>[0]): void => {
        const text = describeEvent(event);
        if (text !== undefined && (!this.#quiet || event.type === "role" || event.type === "conf-applied")) this.#out.push(`${id} ${text}`);
      },
    };
    const member = new SimulatedMember(config, fixedRandom(id), this.#initial);
    this.#members.set(id, member);
    this.#held.set(id, { append: false, apply: false });
    return member;
  }

  #stabilize(words: readonly string[]): void {
    const members = this.#some(words);
    const ids = new Set(members.map((each) => each.id));
    for (let round = 0; round < STABILIZE_ROUNDS_MAX; round++) {
      let busy = false;
      for (const each of members) while (this.#workOnce(each)) busy = true;
      const arrived = this.#network.filter((message) => ids.has(message.to));
      this.#network = this.#network.filter((message) => !ids.has(message.to));
      for (const message of arrived) this.#receive(message);
      if (arrived.length > 0) busy = true;
      if (!busy) return;
    }
    this.#out.push("does not settle");
  }

  /** One portion of work: true when there was any. */
  #workOnce(member: SimulatedMember): boolean {
    const ready = member.take();
    const { append: holdAppend, apply: holdApply } = this.#holds(member.id);
    if (ready === undefined) {
      let busy = false;
      if (!holdAppend && member.pending.length > 0) {
        this.#persist(member, member.pending.length);
        busy = true;
      }
      if (!holdApply && member.toApply.length > 0) {
        this.#apply(member, member.toApply.length);
        busy = true;
      }
      return busy;
    }
    const { append, committed } = ready;
    if (append !== undefined) this.#print(`${member.id} ${describeAppend(append)}${holdAppend ? " (held)" : ""}`);
    for (const message of ready.messages) this.#send(message);
    for (const { context, index } of ready.readStates) this.#out.push(`${member.id} answers read ${context} at ${index}`);
    if (committed.length > 0) this.#print(`${member.id} committed [${committed.map(textOf).join(", ")}]${holdApply ? " (held)" : ""}`);
    if (!holdAppend) this.#persist(member, member.pending.length);
    if (!holdApply) this.#apply(member, member.toApply.length);
    return true;
  }

  #persist(member: SimulatedMember, count: number): void {
    for (const message of member.persist(count)) this.#send(message);
  }

  #apply(member: SimulatedMember, count: number): void {
    member.apply(count);
  }

  #send(message: Message): void {
    this.#print(`  ${describeMessage(message)}`);
    this.#network.push(message);
  }

  #receive(message: Message): void {
    const member = this.#members.get(message.to);
    const cut =
      this.#side.size > 0 && this.#side.get(message.from) !== this.#side.get(message.to)
        ? true
        : this.#deadLinks.has(`${message.from}->${message.to}`);
    if (member?.node === undefined || cut) {
      this.#print(`  lost ${describeMessage(message)}`);
      return;
    }
    const state = snapshotStates.get(message);
    if (state !== undefined) member.receivedState = state;
    try {
      member.node.step(message);
    } catch (error) {
      if (!(error instanceof InvariantError)) throw error;
      // What a driver does: this member stops.
      this.#out.push(`${member.id} STOPS ${error.message}`);
      member.crash();
    }
  }

  #deliver(link: string, count: number): void {
    const taken = this.#takeFromNetwork(link, undefined);
    this.#network.push(...taken.splice(count));
    for (const message of taken) this.#receive(message);
  }

  #takeFromNetwork(link: string, type: string | undefined): Message[] {
    const taken = this.#network.filter((message) => matches(message, link, type));
    this.#network = this.#network.filter((message) => !matches(message, link, type));
    return taken;
  }

  #status(member: SimulatedMember): void {
    const { id, node } = member;
    if (node === undefined) this.#out.push(`${id}: down`);
    else this.#out.push(`${id}: ${describeStatus(node.status(), this.#diskOf(member, true), node.confState())}`);
  }

  /** Last position on disk (and what is under way), or all of it. */
  #diskOf({ storage, pending }: SimulatedMember, short = false): string {
    const last = `${storage.lastIndex()}/${storage.term(storage.lastIndex())}`;
    if (short) return pending.length === 0 ? last : `${last}+${pending.length} under way`;
    const first = storage.firstIndex();
    if (storage.lastIndex() < first) return `from ${first}, empty`;
    const entries = storage.entries(first, storage.lastIndex() + 1, Number.MAX_SAFE_INTEGER);
    return `from ${first}: ${entries.map(textOf).join(", ")}`;
  }

  #logOf(member: SimulatedMember): string {
    return `${this.#diskOf(member)} ${describeConf(member.confState)}`;
  }

  /** What two members have applied is equal as far as both go (J3). */
  #checkApplied(): void {
    const members = this.#some([]);
    for (const a of members) {
      for (const b of members) {
        const common = Math.min(a.applied.length, b.applied.length);
        for (let i = 0; i < common; i++)
          assert(a.applied[i] === b.applied[i], "applied entries agree (J3)", { a: a.applied[i], b: b.applied[i] });
      }
    }
    this.#out.push("applied entries agree");
  }

  #print(line: string): void {
    if (!this.#quiet) this.#out.push(line);
  }

  #some(words: readonly string[]): SimulatedMember[] {
    const ids = words.length === 0 ? [...this.#members.keys()].sort(compareIds) : words.map(idOf);
    return ids.map((id) => this.#member(id));
  }

  #member(id: MemberId): SimulatedMember {
    const member = this.#members.get(id);
    if (member === undefined) throw new Error(`no member ${id}`);
    return member;
  }

  #node(id: MemberId): RawNode {
    const { node } = this.#member(id);
    if (node === undefined) throw new Error(`member ${id} is down`);
    return node;
  }

  #holds(id: MemberId): Held {
    return this.#held.get(id) as Held;
  }
}

function idOf(text: string | undefined): MemberId {
  return BigInt(text ?? "0") as MemberId;
}

function list(text: string | undefined, separator = ","): string[] {
  return text === undefined || text === "" ? [] : text.split(separator);
}

function stepOf(word: string): ConfChangeStep[] {
  const kinds: Record<string, ConfChangeKind> = { v: "add-voter", l: "add-learner", r: "remove", u: "update" };
  const kind = kinds[word[0] ?? ""];
  return kind !== undefined && /^.\d+$/.test(word) ? [{ kind, memberId: idOf(word.slice(1)) }] : [];
}

function matches(message: Message, link: string, type: string | undefined): boolean {
  const [from = "*", to = "*"] = link.split("->");
  return (
    (from === "*" || BigInt(from) === message.from) &&
    (to === "*" || BigInt(to) === message.to) &&
    (type === undefined || type === message.type)
  );
}

/** Runs a whole file and answers it with the traces that it leaves now. */
export function runScenario(text: string): string {
  const scenario = new Scenario();
  const out: string[] = [];
  let commands: string[] = [];
  let skipping = false;
  for (const line of text.split("\n")) {
    if (skipping) {
      if (line !== "") continue;
      skipping = false;
      out.push("");
    } else if (line === "----") {
      out.push(line);
      const trace = commands.flatMap((command) => scenario.run(command));
      out.push(...(trace.length === 0 ? ["ok"] : trace));
      commands = [];
      skipping = true;
    } else {
      out.push(line);
      if (line !== "" && !line.startsWith("#")) commands.push(line);
    }
  }
  if (commands.length > 0) throw new Error(`commands without ----: ${commands.join("; ")}`);
  return `${out.join("\n").trimEnd()}\n`;
}
