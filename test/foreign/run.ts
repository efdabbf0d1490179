/**
 * Clients made by others, against this server and against a real etcd.
 *
 *   npm run foreign [-- --against /path/to/etcd] [--only check|sequences|load|failover] [--callers N] [--numbers N] [--at-once N] [--seconds N] [--port P]
 *
 * - `check`: everything that etcd's Go client can do, PASS or FAIL for each.
 * - `sequences`: callers draw numbers by STM and by Mutex; with `--against`, both servers in turns, and how their times compare.
 * - `load`: puts and reads of 100 callers of the Go client, in turns.
 * - `failover`: three members as processes, ended in several ways under load; the Go client and npm's etcd3 must go on.
 *
 * Closes with `N passed, N failed`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  etcdKind,
  holdfastKind,
  type MemberSpec,
  memberFlags,
  postJson,
  type ServerKind,
  ServerProcess,
  sleep,
  until,
  untilServing,
} from "../support/server-process.ts";
import { goProgram, runGo } from "./go-program.ts";
import { npmFailover } from "./npm-failover.ts";

const { values: options } = parseArgs({
  options: {
    server: { type: "string" },
    against: { type: "string" },
    only: { type: "string" },
    callers: { type: "string", default: "500" },
    numbers: { type: "string", default: "10" },
    "at-once": { type: "string", default: "8" },
    seconds: { type: "string", default: "5" },
    rounds: { type: "string", default: "3" },
    port: { type: "string", default: "22400" },
  },
});

if (options.server === undefined) {
  console.error("npm run foreign");
  process.exit(2);
}
const KINDS: readonly ServerKind[] = [holdfastKind(options.server), ...(options.against === undefined ? [] : [etcdKind(options.against)])];
const SEQUENCES = ["sequence-stm-serializable", "sequence-stm-repeatable-reads", "sequence-mutex"];
/** How much longer than etcd's a sequence may take. */
const SEQUENCE_RATIO_MAX = 2;
/** What share of etcd's puts ours must reach. */
const PUT_RATIO_MIN = 0.6;

let passed = 0;
let failed = 0;

function verdict(name: string, failure: string | undefined, note = ""): void {
  if (failure === undefined) passed++;
  else failed++;
  console.log(
    `${failure === undefined ? "PASS" : "FAIL"} ${name}${failure === undefined ? "" : `: ${failure}`}${note === "" ? "" : ` (${note})`}`,
  );
}

/** Members of one kind, as processes. */
class Members {
  readonly kind: ServerKind;
  readonly specs: readonly MemberSpec[];
  readonly #directory: string;
  readonly #processes = new Map<string, ServerProcess>();

  constructor(kind: ServerKind, size: number, portBase: number) {
    this.kind = kind;
    this.#directory = mkdtempSync(join(tmpdir(), `holdfast-foreign-${kind.name}-`));
    this.specs = Array.from({ length: size }, (_, i) => ({
      name: `n${i}`,
      clientUrl: `http://127.0.0.1:${portBase + 2 * i}`,
      peerUrl: `http://127.0.0.1:${portBase + 2 * i + 1}`,
      dataDir: join(this.#directory, `n${i}`),
    }));
  }

  get endpoints(): string {
    return this.specs.map(({ clientUrl }) => clientUrl.replace("http://", "")).join(",");
  }

  async start(specs: readonly MemberSpec[] = this.specs): Promise<void> {
    const initialCluster = this.specs.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    for (const spec of specs) {
      const flags = [...memberFlags(spec, { token: "foreign", initialCluster, state: "new" }), "--log-level", "error"];
      this.#processes.set(spec.name, new ServerProcess(this.kind, flags, join(this.#directory, `${spec.name}.log`)));
    }
    for (const spec of specs) await untilServing(this.#process(spec), spec.clientUrl);
  }

  async leader(): Promise<MemberSpec> {
    return await until("there is a leader", 20_000, async () => {
      for (const spec of this.specs) {
        const { text } = await postJson(spec.clientUrl, "/v3/maintenance/status", {}, 1000).catch(() => ({ text: "{}" }));
        const state = JSON.parse(text) as { header?: { member_id?: string }; leader?: string };
        if (state.leader !== undefined && state.header?.member_id === state.leader) return spec;
      }
      return undefined;
    });
  }

  async kill(spec: MemberSpec): Promise<void> {
    await this.#process(spec).kill();
  }

  signal(spec: MemberSpec, signal: NodeJS.Signals): void {
    this.#process(spec).signal(signal);
  }

  async stop(spec: MemberSpec): Promise<void> {
    await this.#process(spec).stop();
  }

  async remove(): Promise<void> {
    await Promise.all([...this.#processes.values()].map((process) => process.kill()));
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #process({ name }: MemberSpec): ServerProcess {
    const process = this.#processes.get(name);
    if (process === undefined) throw new Error(`${name} was not started`);
    return process;
  }
}

/** Servers of all kinds, one member each; the ports of kind `i` begin at `port + 10 * i`. */
async function withMembers(size: number, work: (all: readonly Members[]) => Promise<void>): Promise<void> {
  const all = KINDS.map((kind, i) => new Members(kind, size, Number(options.port) + 10 * i));
  try {
    for (const members of all) await members.start();
    await work(all);
  } finally {
    for (const members of all) await members.remove();
  }
}

/** Runs the Go program and counts its verdicts. */
async function goVerdicts(program: string, label: string, words: readonly string[]): Promise<void> {
  const { code, lines } = await runGo(program, words).ended;
  relay(label, code, lines);
}

function relay(label: string, code: number | null, lines: readonly string[]): void {
  let failures = 0;
  for (const line of lines) {
    const [, outcome, rest] = /^(PASS|FAIL) (.*)$/.exec(line) ?? [];
    if (outcome === "PASS") passed++;
    else if (outcome === "FAIL") failures++;
    if (outcome !== undefined) console.log(`${outcome} ${label}: ${rest}`);
  }
  failed += failures;
  if (code !== 0 && failures === 0) verdict(`${label}: ends well`, `code ${code}: ${lines.at(-1) ?? "said nothing"}`);
}

async function check(program: string): Promise<void> {
  await withMembers(1, async (all) => {
    for (const members of all) {
      const words = ["check", "-callers", "50", "-endpoints", members.endpoints];
      await goVerdicts(program, members.kind.name, words);
    }
  });
}

async function sequences(program: string): Promise<void> {
  await withMembers(1, async (all) => {
    for (const name of SEQUENCES) {
      const best = new Map<Members, number>();
      for (let round = 0; round < Number(options.rounds); round++) {
        for (const members of all) {
          const words = ["check", "-only", name, "-callers", options.callers, "-numbers", options.numbers, "-at-once", options["at-once"]];
          const begin = performance.now();
          const { code, lines } = await runGo(program, [...words, "-endpoints", members.endpoints]).ended;
          relay(members.kind.name, code, lines);
          best.set(members, Math.min(best.get(members) ?? Number.POSITIVE_INFINITY, performance.now() - begin));
        }
      }
      const [ours, theirs] = all.map((members) => best.get(members));
      if (ours === undefined || theirs === undefined) continue;
      const ratio = ours / theirs;
      verdict(
        `${name}: time within ${SEQUENCE_RATIO_MAX} times etcd's`,
        ratio <= SEQUENCE_RATIO_MAX ? undefined : `${ratio.toFixed(2)} times`,
        `best of ${options.rounds}: ${(ours / 1000).toFixed(1)} s against ${(theirs / 1000).toFixed(1)} s, ratio ${ratio.toFixed(2)}`,
      );
    }
  });
}

async function load(program: string): Promise<void> {
  await withMembers(1, async (all) => {
    for (const op of ["put", "range", "txn"]) {
      const rates = new Map<Members, number[]>();
      for (let round = 0; round < Number(options.rounds); round++) {
        for (const members of all) {
          const words = [
            "bench",
            "-op",
            op,
            "-clients",
            "100",
            "-conns",
            "10",
            "-seconds",
            options.seconds,
            "-endpoints",
            members.endpoints,
          ];
          const { lines } = await runGo(program, words).ended;
          const line = lines.at(-1) ?? "";
          console.log(`${members.kind.name.padEnd(8)} ${line}`);
          const rate = Number(/: (\d+)\/s/.exec(line)?.[1] ?? 0);
          rates.set(members, [...(rates.get(members) ?? []), / failed 0$/.test(line) ? rate : 0]);
        }
      }
      const [ours, theirs] = all.map((members) => median(rates.get(members) ?? []));
      if (ours === undefined || theirs === undefined) continue;
      const ratio = ours / theirs;
      const wanted = op === "put" ? PUT_RATIO_MIN : 0;
      verdict(
        `load-${op}`,
        ratio >= wanted ? undefined : `below ${wanted}`,
        `medians ${ours}/s against ${theirs}/s, ratio ${ratio.toFixed(2)}`,
      );
    }
  });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** Ends the leader in three ways, each time until the others have gone on for a while. */
async function endLeaders(members: Members): Promise<void> {
  const killed = await members.leader();
  await members.kill(killed);
  await sleep(3000);
  await members.start([killed]);
  await sleep(1000);
  const stopped = await members.leader();
  await members.stop(stopped);
  await sleep(2000);
  await members.start([stopped]);
  await sleep(1000);
  const paused = await members.leader();
  members.signal(paused, "SIGSTOP");
  await sleep(5000);
  members.signal(paused, "SIGCONT");
  await sleep(2000);
  const again = await members.leader();
  await members.kill(again);
  await sleep(3000);
  // That one stays away: two of three must do.
}

async function failover(program: string | undefined): Promise<void> {
  for (const kind of KINDS) {
    if (program !== undefined) {
      const members = new Members(kind, 3, Number(options.port) + 40);
      try {
        await members.start();
        const run = runGo(program, ["failover", "-endpoints", members.endpoints]);
        try {
          await run.line("RUNNING");
          await endLeaders(members);
          run.endInput();
          const { code, lines } = await run.ended;
          relay(`${kind.name}: go`, code, lines);
        } finally {
          run.kill();
        }
      } finally {
        await members.remove();
      }
    }
    const members = new Members(kind, 3, Number(options.port) + 50);
    try {
      await members.start();
      const urls = members.specs.map(({ clientUrl }) => clientUrl);
      for (const { name, failure, note } of await npmFailover(urls, () => endLeaders(members)))
        verdict(`${kind.name}: ${name}`, failure, note);
    } finally {
      await members.remove();
    }
  }
}

const found = goProgram({ download: true });
const program = "missing" in found ? undefined : found.program;
if ("missing" in found) console.log(`the Go client is not tried: ${found.missing}`);
const wanted = (name: string): boolean => options.only === undefined || options.only === name;
if (program !== undefined) {
  if (wanted("check")) await check(program);
  if (wanted("sequences")) await sequences(program);
  if (wanted("load")) await load(program);
}
if (wanted("failover")) await failover(program);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
