/**
 * What the store costs: puts and reads from memory, and with many keys (memory, opening, counts, whole ranges and how long they hold the
 * event loop, deletes, compaction, hash). Values of 200 bytes, keys of 16.
 * Run: node --expose-gc --import tsx test/bench/mvcc.bench.ts [keys] [level|memory]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest } from "../../src/api/index.ts";
import { type Backend, type BackendBatch, createBatch, LevelBackend, MemoryBackend } from "../../src/backend/index.ts";
import { keyStringOf } from "../../src/base/bytes.ts";
import { NO_LEASE } from "../../src/base/ids.ts";
import { seededRandom } from "../../src/base/random.ts";
import { type LeaseView, MvccStore } from "../../src/mvcc/index.ts";
import { PositionList } from "../../src/mvcc/position-list.ts";
import { NEWEST, TreeIndex } from "../../src/mvcc/tree-index.ts";

const KEYS = Number(process.argv[2] ?? 1_000_000);
const KIND = process.argv[3] ?? "level";
const BATCH_REQUESTS = 200;
const CACHE_BYTES = 64 * 1024 * 1024;
const random = seededRandom(1);
const leases: LeaseView = { exists: () => true, leaseOf: () => NO_LEASE };
const value = new Uint8Array(Buffer.alloc(200, "some value "));

function keyBytes(number: number): Uint8Array {
  return Buffer.from(`key/${number.toString().padStart(12, "0")}`);
}

function shuffled(length: number): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i -= 1) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

function collect(): void {
  globalThis.gc?.();
  globalThis.gc?.();
}

function megabytes(): number {
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 1e6;
}

function report(name: string, text: string): void {
  console.log(`${name.padEnd(58)} ${text}`);
}

/** The best of several rounds; noise only adds. */
function each(name: string, count: number, work: (i: number) => unknown, rounds = 5): void {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round += 1) {
    const start = performance.now();
    for (let i = 0; i < count; i += 1) work(i);
    best = Math.min(best, (performance.now() - start) / count);
  }
  report(name, `${(best * 1000).toFixed(2)} us`);
}

async function longest(name: string, work: () => Promise<unknown>): Promise<void> {
  collect();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = performance.now();
  const result = await work();
  const ms = performance.now() - start;
  await new Promise((resolve) => setTimeout(resolve, 5));
  delay.disable();
  report(
    name,
    `${ms.toFixed(0)} ms, event loop held at most ${(delay.max / 1e6).toFixed(1)} ms (p99 ${(delay.percentile(99) / 1e6).toFixed(1)})${result === undefined ? "" : `, ${String(result)}`}`,
  );
}

function index(): void {
  const order = shuffled(KEYS);
  const keys = Array.from(order, (n) => keyStringOf(keyBytes(n)));
  const before = megabytes();
  const tree = new TreeIndex();
  // Strings of its own, as a store has them.
  let start = performance.now();
  for (let i = 0; i < KEYS; i += 1) tree.put(keyStringOf(keyBytes(order[i] as number)), i + 2, 0);
  report(
    `index: insert, ${KEYS} keys in random order (with making the key)`,
    `${(((performance.now() - start) / KEYS) * 1000).toFixed(2)} us`,
  );
  report("index: memory", `${(megabytes() - before).toFixed(0)} MB`);
  start = performance.now();
  for (const key of keys) tree.find(key);
  report("index: lookup in random order", `${(((performance.now() - start) / KEYS) * 1000).toFixed(2)} us`);
  each("index: count of a range", 100_000, (i) => tree.count(keys[i % KEYS] as (typeof keys)[number], undefined));
  each("index: walk over 10 keys from a random one", 100_000, (i) =>
    tree.collectSlice(keys[i % KEYS] as (typeof keys)[number], undefined, NEWEST, new PositionList(), 10, 100),
  );
}

async function openStore(backend: Backend): Promise<MvccStore> {
  return await MvccStore.open({
    backend,
    cacheBytesMax: CACHE_BYTES,
    yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
    nowMs: () => performance.now(),
  });
}

async function flush(store: MvccStore, backend: Backend, batch: BackendBatch): Promise<BackendBatch> {
  await backend.write(batch);
  store.written(batch);
  return createBatch();
}

/** Rounds of puts as the applier makes them; the time of the backend's write is not counted. The median is what a round takes undisturbed. */
async function puts(name: string, store: MvccStore, backend: Backend, count: number, requestOf: (i: number) => PutRequest): Promise<void> {
  const rounds: number[] = [];
  let batch = createBatch();
  for (let from = 0; from < count; from += BATCH_REQUESTS) {
    const requests = Array.from({ length: BATCH_REQUESTS }, (_, i) => requestOf(from + i));
    const start = performance.now();
    for (const request of requests) store.put(request, leases, batch);
    let ms = performance.now() - start;
    const written = batch;
    await backend.write(written);
    const after = performance.now();
    store.written(written);
    ms += performance.now() - after;
    rounds.push((ms / BATCH_REQUESTS) * 1000);
    batch = createBatch();
  }
  rounds.sort((a, b) => a - b);
  const mean = rounds.reduce((sum, us) => sum + us, 0) / rounds.length;
  report(
    name,
    `${(rounds[rounds.length >> 1] ?? 0).toFixed(2)} us (mean ${mean.toFixed(2)}, fastest round ${(rounds[0] ?? 0).toFixed(2)})`,
  );
}

function putOf(number: number): PutRequest {
  return PutRequest.create({ key: keyBytes(number), value });
}

async function small(): Promise<void> {
  const backend = new MemoryBackend();
  const store = await openStore(backend);
  await puts("put: 10,000 keys, first round", store, backend, 10_000, (i) => putOf(i));
  await puts("put: 10,000 keys, updates in random order", store, backend, 200_000, () => putOf(random.below(10_000)));
  let batch = createBatch();
  const requests = Array.from({ length: 2000 }, (_, i) =>
    TxnRequest.create({
      compare: [Compare.create({ target: 2, result: 1, key: keyBytes(i), modRevision: 0 })],
      success: [RequestOp.create({ requestPut: putOf(i) })],
      failure: [RequestOp.create({ requestRange: RangeRequest.create({ key: keyBytes(i) }) })],
    }),
  );
  each("txn: compare and put", 2000, (i) => store.txn(requests[i] as TxnRequest, leases, batch), 10);
  batch = await flush(store, backend, batch);
  const single = Array.from({ length: 1000 }, (_, i) => RangeRequest.create({ key: keyBytes(i) }));
  each("rangeNow: one cached key", 200_000, (i) => store.rangeNow(single[i % 1000] as RangeRequest));
  const ten = Array.from({ length: 900 }, (_, i) => RangeRequest.create({ key: keyBytes(i), rangeEnd: keyBytes(i + 10) }));
  each("rangeNow: range of 10 cached keys", 50_000, (i) => store.rangeNow(ten[i % 900] as RangeRequest));
  const limited = Array.from({ length: 900 }, (_, i) => RangeRequest.create({ key: keyBytes(i), rangeEnd: new Uint8Array(1), limit: 10 }));
  each("rangeNow: limit 10 of many", 50_000, (i) => store.rangeNow(limited[i % 900] as RangeRequest));
  const all = RangeRequest.create({ key: keyBytes(0), rangeEnd: keyBytes(500) });
  each("rangeNow: range of 500 cached keys", 1000, () => store.rangeNow(all));
}

async function large(backend: Backend, reopen: () => Promise<Backend>): Promise<Backend> {
  const order = shuffled(KEYS);
  const before = megabytes();
  let store = await openStore(backend);
  await puts(`put: ${KEYS} new keys in random order`, store, backend, KEYS, (i) => putOf(order[i] as number));
  await puts("put: updates of them in random order", store, backend, Math.min(200_000, KEYS), () => putOf(random.below(KEYS)));
  await backend.close();
  const again = await reopen();
  const empty = megabytes();
  const start = performance.now();
  let opened: MvccStore | undefined;
  await longest("open", async () => {
    opened = await openStore(again);
  });
  const rowsRead = KEYS + Math.min(200_000, KEYS);
  report("open: rows", `${((rowsRead / (performance.now() - start)) * 1000).toFixed(0)}/s or more`);
  if (opened === undefined) throw new Error("not open");
  store = opened;
  report(
    "memory after opening (all, without the backend's own)",
    `${(megabytes() - Math.max(0, empty)).toFixed(0)} MB (before everything ${before.toFixed(0)})`,
  );
  const everything = RangeRequest.create({ key: new Uint8Array(1), rangeEnd: new Uint8Array(1) });
  each("count of everything", 10_000, () => store.rangeNow(RangeRequest.create({ ...everything, countOnly: true })));
  const past = RangeRequest.create({ ...everything, countOnly: true, revision: Math.floor(KEYS * 0.9) });
  await longest("count of everything at a past revision", async () => (await store.range(past)).count);
  await longest("range of everything, keys only", async () => (await store.range({ ...everything, keysOnly: true })).kvs.length);
  await longest(
    "range of everything, sorted by mod revision, limit 10",
    async () => (await store.range({ ...everything, sortOrder: 2, sortTarget: 3, limit: 10 })).kvs.length,
  );
  await longest("range of everything", async () => (await store.range(everything)).kvs.length);
  await longest("hash", async () => (await store.hashByRevision(0)).hash);
  let batch = createBatch();
  store.compact({ revision: store.revision }, batch);
  batch = await flush(store, again, batch);
  await longest("compaction in slices of 1000", async () => {
    for (let done = false; !done; ) {
      done = await store.compactSlice(() => batch, 1000);
      batch = await flush(store, again, batch);
    }
  });
  const begin = performance.now();
  const { response } = store.deleteRange(DeleteRangeRequest.create({ key: new Uint8Array(1), rangeEnd: new Uint8Array(1) }), batch);
  report(`delete of ${response.deleted} keys`, `${(((performance.now() - begin) / response.deleted) * 1000).toFixed(2)} us each`);
  batch = await flush(store, again, batch);
  return again;
}

console.log(`${KEYS} keys, ${KIND} backend, Node ${process.version}`);
index();
await small();
if (KIND === "memory") {
  const backend = new MemoryBackend();
  // Nothing to reopen: the same rows, a new store.
  backend.close = async () => undefined;
  await large(backend, async () => backend);
} else {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-bench-"));
  try {
    const open = async (): Promise<Backend> => await LevelBackend.open({ directory: join(directory, "db") });
    await (await large(await open(), open)).close();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
