/**
 * The differential run: the same random requests to this server and to a real etcd, complete answers compared.
 *
 *   npm run diff -- --against /path/to/etcd [--requests N] [--seed S] [--keep-going N] [--port P]
 *
 * Closes with `N passed, N failed`, counting requests and watches. A difference is printed with the request and both answers; the same seed replays it.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seededRandom } from "../../src/base/random.ts";
import { normalise, watchFacts } from "./compare.ts";
import { Generator, type Knowledge, type Step } from "./generate.ts";
import { type RawAnswer, ServerUnderTest, type WatchLines } from "./pair.ts";

const { values: options } = parseArgs({
  options: {
    against: { type: "string" },
    requests: { type: "string", default: "20000" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    "keep-going": { type: "string", default: "5" },
    port: { type: "string", default: "26500" },
    /** Requests on one pair of servers before a fresh pair is started. */
    round: { type: "string", default: "10000" },
  },
});

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OURS = [process.execPath, join(ROOT, "dist/cli/holdfast.cjs")];
const SETTLE_MS = 5000;
const PROGRESS_MS = 10_000;
const CONTEXT = 4;
const HASHKV = "/v3/maintenance/hashkv";

if (options.against === undefined) {
  console.error("npm run diff -- --against /path/to/etcd");
  process.exit(2);
}

let passed = 0;
let failed = 0;
let referenceEnded = 0;

function wanted(): boolean {
  return failed < Number(options["keep-going"]);
}

/** Revision and compaction as the answers show them: good enough to ask near the edges. */
function learn(known: Knowledge, step: Step, answer: RawAnswer): void {
  const revision = /"revision":"(\d+)"/.exec(answer.body)?.[1];
  if (revision !== undefined) known.revision = Math.max(known.revision, Number(revision));
  if (step.kind === "call" && step.path === "/v3/kv/compaction" && answer.status === 200) {
    known.compacted = Math.max(known.compacted, Number(/"?revision"?:\s*"?(-?\d+)/.exec(step.body)?.[1] ?? 0));
  }
}

const WATCH_BODIES = [
  '{"create_request":{"key":"AA==","range_end":"AA=="}}',
  '{"create_request":{"key":"AA==","range_end":"AA==","prev_kv":true}}',
  '{"create_request":{"key":"YQ=="}}{"create_request":{"key":"Yg==","range_end":"YzA="}}',
  '{"create_request":{"key":"AA==","range_end":"AA==","filters":["NOPUT"]}}',
  '{"create_request":{"key":"AA==","range_end":"AA==","filters":["NODELETE"],"watch_id":"9"}}{"create_request":{"key":"Yg==","range_end":"YQ=="}}',
  '{"create_request":{"key":"AA==","range_end":"AA==","start_revision":"1"}}',
];

/** Returns how many requests were made: fewer than asked for when a request made the reference end, which it does for some (it panics). */
async function round(seed: number, requests: number): Promise<number> {
  const random = seededRandom(seed);
  const known: Knowledge = { revision: 1, compacted: -1, leases: [] };
  const generator = new Generator(random, known);
  const port = Number(options.port);
  const ours = new ServerUnderTest("holdfast", OURS, port, []);
  const theirs = new ServerUnderTest("etcd", [options.against as string, "--log-level", "fatal"], port + 4, []);
  const recent: string[] = [];
  let watches: { ours: WatchLines; theirs: WatchLines; body: string }[] = [];
  const openWatches = async (): Promise<void> => {
    watches = WATCH_BODIES.map((body) => ({ ours: ours.watch(body), theirs: theirs.watch(body), body }));
    // From now on both see the same: a watch from "now" must not begin at two different moments.
    const deadline = performance.now() + SETTLE_MS;
    while (watches.some((watch) => watch.ours.lines.length === 0 || watch.theirs.lines.length === 0) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  try {
    await Promise.all([ours.start(), theirs.start()]);
    await openWatches();
    let said = performance.now();
    for (let i = 0; i < requests && wanted(); i++) {
      const step = generator.next();
      if (step.kind === "restart") {
        await settleWatches(watches, seed, i);
        await Promise.all([ours.restart(), theirs.restart()]);
        await openWatches();
        continue;
      }
      const answers = await Promise.allSettled([ours.send(step.path, step.body), theirs.send(step.path, step.body)]);
      if (answers[0].status === "fulfilled" && answers[1].status === "rejected" && !(await staysUp(theirs))) {
        referenceEnded++;
        console.log(`the reference ended by itself at request ${i} of seed ${seed}: ${step.path} ${step.body.slice(0, 400)}`);
        return i + 1;
      }
      let [left, right] = answers.map((answer) => {
        if (answer.status === "rejected") throw answer.reason;
        return answer.value;
      }) as [RawAnswer, RawAnswer];
      if (step.path === HASHKV) [left, right] = await settleHash(ours, theirs, step, left, right);
      const line = `${step.path} ${step.body}`;
      if (normalise(step.path, left) === normalise(step.path, right)) passed++;
      else report(seed, i, line, normalise(step.path, left), normalise(step.path, right), recent);
      recent.push(line);
      if (recent.length > CONTEXT) recent.shift();
      learn(known, step, right);
      if (performance.now() - said > PROGRESS_MS) {
        said = performance.now();
        console.log(`seed ${seed}: ${i + 1} of ${requests} requests, revision ${known.revision}, ${failed} differences`);
      }
      if (!ours.running || !theirs.running)
        throw new Error(`${ours.running ? theirs.label : ours.label} ended by itself:\n${ours.log.slice(-2000)}`);
    }
    await settleWatches(watches, seed, requests);
    // In the end both must hold the same history.
    const hashes = await Promise.all([ours, theirs].map((server) => server.send("/v3/maintenance/hashkv", "{}")));
    const [left, right] = hashes.map((answer) => /"hash":(\d+)/.exec(answer.body)?.[1]);
    if (left === right) passed++;
    else report(seed, requests, "hash of the whole history", String(left), String(right), []);
    return requests;
  } finally {
    for (const watch of watches) {
      watch.ours.close();
      watch.theirs.close();
    }
    await Promise.all([ours.stop(), theirs.stop()]);
  }
}

/**
 * Both servers remove compacted rows in the background, and answer for exactly the compacted revision with the hash taken on the way as soon
 * as that is done. Who asks in between gets another right answer: asked again until they agree.
 */
async function settleHash(
  ours: ServerUnderTest,
  theirs: ServerUnderTest,
  step: { readonly path: string; readonly body: string },
  left: RawAnswer,
  right: RawAnswer,
): Promise<[RawAnswer, RawAnswer]> {
  const deadline = performance.now() + SETTLE_MS;
  let answers: [RawAnswer, RawAnswer] = [left, right];
  while (normalise(step.path, answers[0]) !== normalise(step.path, answers[1]) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    answers = await Promise.all([ours.send(step.path, step.body), theirs.send(step.path, step.body)]);
  }
  return answers;
}

async function staysUp(server: ServerUnderTest): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, 500));
  return server.running;
}

/** Waits until both sides of every watch have seen equally much, then compares event by event. */
async function settleWatches(
  watches: readonly { ours: WatchLines; theirs: WatchLines; body: string }[],
  seed: number,
  at: number,
): Promise<void> {
  for (const { ours, theirs, body } of watches) {
    const deadline = performance.now() + SETTLE_MS;
    let left = watchFacts(ours.lines);
    let right = watchFacts(theirs.lines);
    while (JSON.stringify(left) !== JSON.stringify(right) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      left = watchFacts(ours.lines);
      right = watchFacts(theirs.lines);
    }
    // Order between the watchers of one stream is free; each watcher's own is not.
    const byWatcher = (list: readonly string[]): string[] =>
      [...list].sort((a, b) => Number(a.split(" ", 1)[0]) - Number(b.split(" ", 1)[0]));
    const difference =
      firstDifference(byWatcher(left.events), byWatcher(right.events)) ??
      firstDifference([...left.notices].sort(), [...right.notices].sort());
    if (difference === undefined) passed++;
    else report(seed, at, `watch ${body}`, difference[0], difference[1], []);
    ours.close();
    theirs.close();
  }
}

function firstDifference(left: readonly string[], right: readonly string[]): [string, string] | undefined {
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    if (left[i] !== right[i]) return [`#${i} of ${left.length}: ${left[i]}`, `#${i} of ${right.length}: ${right[i]}`];
  }
  return undefined;
}

function report(seed: number, at: number, what: string, left: string, right: string, before: readonly string[]): void {
  failed++;
  console.log(`DIFFERENCE at request ${at} of seed ${seed}`);
  for (const line of before) console.log(`  before   ${line.slice(0, 300)}`);
  console.log(`  request  ${what.slice(0, 2000)}`);
  console.log(`  holdfast ${left.slice(0, 2000)}`);
  console.log(`  etcd     ${right.slice(0, 2000)}`);
}

const total = Number(options.requests);
const perRound = Number(options.round);
let done = 0;
for (let seed = Number(options.seed); done < total && wanted(); seed++) done += await round(seed, Math.min(perRound, total - done));
if (referenceEnded > 0) console.log(`the reference ended by itself ${referenceEnded} times`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
