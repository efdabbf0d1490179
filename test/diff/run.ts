/**
 * The differential run: the same random requests to this server and to a real etcd, complete answers compared.
 *
 *   npm run diff -- --against /path/to/etcd [--over json|grpc|both] [--requests N] [--seed S] [--keep-going N] [--port P]
 *
 * Over gRPC the requests are the same messages, some of them altered byte by byte, and headers, trailers and encoding are compared too. With `both`, a second
 * server of our own gets the same over JSON, and must answer what the first answers over gRPC.
 *
 * Closes with `N passed, N failed`, counting requests and watches. A difference is printed with the request and both answers; the same seed replays it.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { seededRandom } from "../../src/base/random.ts";
import { watchFacts } from "./compare.ts";
import { Generator, type Knowledge } from "./generate.ts";
import { ServerUnderTest } from "./pair.ts";
import { type Asked, grpcWay, jsonWay, type Request, requestOver, type WatchOver, type Way } from "./ways.ts";

const { values: options } = parseArgs({
  options: {
    against: { type: "string" },
    over: { type: "string", default: "json" },
    /** Our own, if it is not the built one. */
    server: { type: "string" },
    requests: { type: "string", default: "20000" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    "keep-going": { type: "string", default: "5" },
    port: { type: "string", default: "26500" },
    /** Requests on one pair of servers before a fresh pair is started. */
    round: { type: "string", default: "10000" },
  },
});

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const OURS = [process.execPath, options.server ?? join(ROOT, "dist/cli/holdfast.cjs")];
const SETTLE_MS = 5000;
const PROGRESS_MS = 10_000;
const CONTEXT = 4;
const CATCH_UP_MS = 500;

if (options.against === undefined || !["json", "grpc", "both"].includes(options.over)) {
  console.error("npm run diff -- --against /path/to/etcd [--over json|grpc|both]");
  process.exit(2);
}

let passed = 0;
let failed = 0;
let referenceEnded = 0;

function wanted(): boolean {
  return failed < Number(options["keep-going"]);
}

/** Revision and compaction as the answers show them: good enough to ask near the edges. */
function learn(known: Knowledge, { json }: Request, { answer }: Asked): void {
  const revision = /"revision":"(\d+)"/.exec(answer.body)?.[1];
  if (revision !== undefined) known.revision = Math.max(known.revision, Number(revision));
  if (json?.path === "/v3/kv/compaction" && answer.status === 200) {
    known.compacted = Math.max(known.compacted, Number(/"?revision"?:\s*"?(-?\d+)/.exec(json.body)?.[1] ?? 0));
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

/** Ours, theirs and, if there is one, our second server's. */
type Answers = [Asked, Asked, Asked | undefined];

const HASH = /^\/(v3\/maintenance\/hashkv|etcdserverpb\.Maintenance\/HashKV)/;

interface Watched {
  readonly ours: WatchOver;
  readonly theirs: WatchOver;
  /** Our second server's, if there is one. */
  readonly second: WatchOver | undefined;
  readonly body: string;
}

/** Returns how many requests were made: fewer than asked for when a request made the reference end, which it does for some (it panics). */
async function round(seed: number, requests: number): Promise<number> {
  const random = seededRandom(seed);
  // Of its own, so that the same seed asks the same over JSON whatever is done over gRPC.
  const dice = seededRandom(seed + 1_000_000_007);
  const known: Knowledge = { revision: 1, compacted: -1, leases: [] };
  const generator = new Generator(random, known);
  const port = Number(options.port);
  const servers = [
    new ServerUnderTest("holdfast", OURS, port, []),
    new ServerUnderTest("etcd", [options.against as string, "--log-level", "fatal"], port + 4, []),
    ...(options.over === "both" ? [new ServerUnderTest("holdfast-json", OURS, port + 8, [])] : []),
  ];
  const ways = servers.map((server, i) => (options.over === "json" || i === 2 ? jsonWay(server) : grpcWay(server)));
  const [ours, theirs, second] = ways as [Way, Way, Way | undefined];
  const recent: string[] = [];
  let watches: Watched[] = [];
  const openWatches = async (): Promise<void> => {
    watches = [];
    for (const body of WATCH_BODIES) {
      watches.push({ ours: await ours.watch(body), theirs: await theirs.watch(body), second: await second?.watch(body), body });
    }
    // From now on all see the same: a watch from "now" must not begin at different moments.
    const deadline = performance.now() + SETTLE_MS;
    const begun = (watch: WatchOver | undefined): boolean => watch === undefined || watch.lines.length > 0;
    while (watches.some((watch) => !begun(watch.ours) || !begun(watch.theirs) || !begun(watch.second)) && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    // The reference looks at watchers from the past every 100 ms: a compaction before that would end them there and not here.
    await new Promise((resolve) => setTimeout(resolve, CATCH_UP_MS));
  };
  try {
    await Promise.all(servers.map((server) => server.start()));
    await openWatches();
    let said = performance.now();
    for (let i = 0; i < requests && wanted(); i++) {
      const step = generator.next();
      if (step.kind === "restart") {
        await settleWatches(watches, seed, i);
        for (const way of ways) way.hangUp();
        await Promise.all(servers.map((server) => server.restart()));
        await openWatches();
        continue;
      }
      const request = requestOver(options.over, step, dice);
      const answers = await Promise.allSettled(ways.map((way) => way.ask(request)));
      if (answers[0]?.status === "fulfilled" && answers[1]?.status === "rejected" && !(await staysUp(servers[1] as ServerUnderTest))) {
        referenceEnded++;
        console.log(`the reference ended by itself at request ${i} of seed ${seed}: ${request.shown.slice(0, 400)}`);
        return i + 1;
      }
      const found = answers.map((answer) => {
        if (answer.status === "rejected") throw answer.reason;
        return answer.value;
      }) as Answers;
      const [left, right, other] = HASH.test(request.shown) ? await settleHash(ways, request, found) : found;
      if (left.comparable === right.comparable) passed++;
      else report(seed, i, request.shown, left.comparable, right.comparable, recent);
      if (other !== undefined && request.json !== undefined) {
        if (left.plain === other.plain) passed++;
        else report(seed, i, `gRPC and JSON: ${request.shown} ${request.json.body}`, left.plain, other.plain, recent);
      }
      recent.push(request.shown);
      if (recent.length > CONTEXT) recent.shift();
      learn(known, request, right);
      if (performance.now() - said > PROGRESS_MS) {
        said = performance.now();
        console.log(`seed ${seed}: ${i + 1} of ${requests} requests, revision ${known.revision}, ${failed} differences`);
      }
      const ended = servers.find((server) => !server.running);
      if (ended !== undefined) throw new Error(`${ended.label} ended by itself:\n${ended.log.slice(-2000)}`);
    }
    await settleWatches(watches, seed, requests);
    // In the end all must hold the same history.
    const hashes = await Promise.all(servers.map((server) => server.send("/v3/maintenance/hashkv", "{}")));
    const [left, ...others] = hashes.map((answer) => /"hash":(\d+)/.exec(answer.body)?.[1]);
    for (const right of others) {
      if (left === right) passed++;
      else report(seed, requests, "hash of the whole history", String(left), String(right), []);
    }
    return requests;
  } finally {
    for (const watch of watches) for (const one of [watch.ours, watch.theirs, watch.second]) one?.close();
    for (const way of ways) way.hangUp();
    await Promise.all(servers.map((server) => server.stop()));
  }
}

/**
 * Servers remove compacted rows in the background, and answer for exactly the compacted revision with the hash taken on the way as soon as that is done. Who
 * asks in between gets another right answer: asked again until they agree.
 */
async function settleHash(ways: readonly Way[], request: Request, answers: Answers): Promise<Answers> {
  const deadline = performance.now() + SETTLE_MS;
  let [left, right, other] = answers;
  while (!(left.comparable === right.comparable && (other === undefined || left.plain === other.plain)) && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    [left, right, other] = (await Promise.all(ways.map((way) => way.ask(request)))) as Answers;
    if (request.json === undefined) other = undefined;
  }
  return [left, right, other];
}

async function staysUp(server: ServerUnderTest): Promise<boolean> {
  await new Promise((resolve) => setTimeout(resolve, 500));
  return server.running;
}

/** Waits until all sides of every watch have seen equally much, then compares event by event. */
async function settleWatches(watches: readonly Watched[], seed: number, at: number): Promise<void> {
  for (const { ours, theirs, second, body } of watches) {
    await settleWatch(ours, theirs, `watch ${body}`, seed, at);
    if (second !== undefined) await settleWatch(ours, second, `gRPC and JSON: watch ${body}`, seed, at);
    for (const one of [ours, theirs, second]) one?.close();
  }
}

async function settleWatch(ours: WatchOver, theirs: WatchOver, what: string, seed: number, at: number): Promise<void> {
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
  else report(seed, at, what, difference[0], difference[1], []);
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
  console.log(`  other    ${right.slice(0, 2000)}`);
}

const total = Number(options.requests);
const perRound = Number(options.round);
let done = 0;
for (let seed = Number(options.seed); done < total && wanted(); seed++) done += await round(seed, Math.min(perRound, total - done));
if (referenceEnded > 0) console.log(`the reference ended by itself ${referenceEnded} times`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
