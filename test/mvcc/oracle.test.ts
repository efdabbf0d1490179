import { describe, expect, it } from "vitest";
import {
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  HashKVRequest,
  HashKVResponse,
  LeaseGrantRequest,
  LeaseGrantResponse,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  type RequestOp,
  type ResponseHeader,
  TxnRequest,
  TxnResponse,
} from "../../src/api/index.ts";
import { type BackendBatch, createBatch } from "../../src/backend/index.ts";
import { EtcdError } from "../../src/base/errors.ts";
import type { LeaseId } from "../../src/base/ids.ts";
import { seededRandom } from "../../src/base/random.ts";
import { type LeaseView, MvccStore, type WriteOutcome } from "../../src/mvcc/index.ts";
import { FakeBackend } from "../support/fake-backend.ts";
import { AWKWARD_KEYS, isReadOnly, RequestMaker } from "../support/mvcc-requests.ts";
import { plain } from "../support/mvcc-twin.ts";
import { ORACLE_ETCD, ORACLE_MISSING, OracleError, OracleEtcd } from "../support/oracle-etcd.ts";

const STEPS = 3000 * Number(process.env.HOLDFAST_MVCC_STEPS ?? 1);
const SEED = Number(process.env.HOLDFAST_MVCC_SEED ?? 0);
const OPS_MAX = 10;
const LEASES = [1n, 7n, -3n];
const NO_SUCH_LEASE = 2n ** 62n;

/** The answer without what only a cluster has. */
function comparable(answer: object): string {
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip);
    if (typeof value !== "object" || value === null) return value;
    const copy: Record<string, unknown> = {};
    for (const [name, member] of Object.entries(value)) {
      // No header and an empty one are the same in JSON.
      copy[name] = name === "header" ? ((member as ResponseHeader | null)?.revision ?? 0) : strip(member);
    }
    return copy;
  };
  return JSON.stringify(strip(plain(answer)));
}

/** Ties in a sort come in any order; keep to orders without ties. */
function withoutTies(request: RangeRequest): RangeRequest {
  if (request.sortTarget > 0 && request.sortTarget < 5) request.sortTarget = 0;
  return request;
}

function opsWithoutTies(ops: readonly RequestOp[]): void {
  for (const { requestRange, requestTxn } of ops) {
    if (requestRange !== undefined) withoutTies(requestRange);
    if (requestTxn !== undefined) txnWithoutTies(requestTxn);
  }
}

function txnWithoutTies(request: TxnRequest): TxnRequest {
  opsWithoutTies(request.success);
  opsWithoutTies(request.failure);
  return request;
}

/** What a sort by `target` orders by. */
function sortColumn({ kvs }: RangeResponse, target: number): unknown[] {
  return kvs.map((kv) => [kv.key, kv.version, kv.createRevision, kv.modRevision, kv.value].map(plain)[target]);
}

class Pair {
  readonly backend = new FakeBackend();
  readonly oracle: OracleEtcd;
  store: MvccStore;
  #batch = createBatch();
  readonly #leases: LeaseView = { exists: (id) => LEASES.includes(id), leaseOf: () => 0n as LeaseId };

  constructor(oracle: OracleEtcd, store: MvccStore) {
    this.oracle = oracle;
    this.store = store;
  }

  static async open(backend: FakeBackend): Promise<MvccStore> {
    return await MvccStore.open({
      backend,
      cacheBytesMax: 20_000,
      yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
      nowMs: () => performance.now(),
    });
  }

  async flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = createBatch();
    await this.backend.write(batch);
    this.store.written(batch);
  }

  async restart(): Promise<void> {
    await this.flush();
    this.store = await Pair.open(this.backend);
    await this.oracle.restart();
  }

  async #same(what: string, ours: () => unknown, theirs: Promise<object>, compare: (ours: object, theirs: object) => void): Promise<void> {
    const their = await theirs.catch((error: unknown) => error);
    let our: unknown;
    try {
      our = await ours();
    } catch (error) {
      our = error;
    }
    if (their instanceof OracleError || EtcdError.is(our)) {
      const ourError = EtcdError.is(our) ? [our.grpcCode, our.message] : comparable(our as object);
      const theirError = their instanceof OracleError ? [their.code, their.message] : comparable(their as object);
      expect(ourError, what).toEqual(theirError);
      return;
    }
    if (our instanceof Error) throw our;
    if (their instanceof Error) throw their;
    compare(our as object, their as object);
  }

  /** A write; the answers must be the same to the last field. */
  async write(
    what: string,
    ours: (leases: LeaseView, batch: BackendBatch) => WriteOutcome<object>,
    theirs: Promise<object>,
  ): Promise<void> {
    await this.#same(
      what,
      () => ours(this.#leases, this.#batch).response,
      theirs,
      (our, their) => expect(comparable(our), what).toBe(comparable(their)),
    );
  }

  async range(request: RangeRequest): Promise<void> {
    const what = `range ${JSON.stringify(plain(request))}`;
    await this.#same(
      what,
      async () => {
        this.store.checkRange(request);
        return this.store.rangeNow(request) ?? (await this.store.range(request));
      },
      this.oracle.call("kv/range", RangeRequest, request, RangeResponse),
      (our, their) => {
        const { sortTarget, keysOnly } = request;
        if (sortTarget === 0) return expect(comparable(our), what).toBe(comparable(their));
        const [a, b] = [our as RangeResponse, their as RangeResponse];
        const column = sortTarget === 4 && keysOnly ? 3 : sortTarget;
        if (!(sortTarget === 4 && keysOnly)) expect(sortColumn(a, column), what).toEqual(sortColumn(b, column));
        expect([a.count, a.more, a.kvs.length], what).toEqual([b.count, b.more, b.kvs.length]);
        if (a.more) return;
        const sorted = (answer: RangeResponse): string =>
          comparable({ ...answer, kvs: [...answer.kvs].sort((x, y) => Buffer.compare(x.key, y.key)) });
        expect(sorted(a), what).toBe(sorted(b));
      },
    );
  }

  async compact(revision: number): Promise<void> {
    const request = CompactionRequest.create({ revision, physical: true });
    await this.#same(
      `compact ${revision}`,
      async () => {
        this.store.compact(request, this.#batch);
        await this.flush();
        for (let done = false; !done; ) {
          const batch = createBatch();
          done = await this.store.compactSlice(() => batch, 100);
          await this.backend.write(batch);
          this.store.written(batch);
        }
        return { header: undefined };
      },
      this.oracle.call("kv/compaction", CompactionRequest, request, CompactionResponse),
      () => undefined,
    );
  }

  async hash(revision: number): Promise<void> {
    await this.#same(
      `hash ${revision}`,
      async () => await this.store.hashByRevision(revision),
      this.oracle.call("maintenance/hashkv", HashKVRequest, HashKVRequest.create({ revision }), HashKVResponse),
      (our, their) => {
        const { hash, compactRevision, hashRevision } = their as HashKVResponse;
        expect(our, `hash ${revision}`).toEqual({ hash, compactRevision, hashRevision });
      },
    );
  }
}

async function play(seed: number, port: number, keys: readonly string[]): Promise<void> {
  const random = seededRandom(seed);
  const maker = new RequestMaker(random, { keys, leases: [...LEASES, NO_SUCH_LEASE], fatalToReference: false });
  const oracle = await OracleEtcd.start(port, ["--max-txn-ops", `${OPS_MAX}`]);
  try {
    const pair = new Pair(oracle, await Pair.open(new FakeBackend()));
    pair.store = await Pair.open(pair.backend);
    for (const id of LEASES)
      await oracle.call("lease/grant", LeaseGrantRequest, LeaseGrantRequest.create({ id, ttl: 1_000_000 }), LeaseGrantResponse);
    await pair.hash(0);
    for (let step = 0; step < STEPS; step += 1) {
      const { store } = pair;
      const dice = random.below(100);
      if (dice < 30) {
        const request = maker.put();
        await pair.write(
          `put ${JSON.stringify(plain(request))}`,
          (leases, batch) => {
            store.checkPut(request);
            return store.put(request, leases, batch);
          },
          oracle.call("kv/put", PutRequest, request, PutResponse),
        );
      } else if (dice < 38) {
        const request = maker.deleteRange();
        await pair.write(
          `delete ${JSON.stringify(plain(request))}`,
          (_, batch) => {
            store.checkDeleteRange(request);
            return store.deleteRange(request, batch);
          },
          oracle.call("kv/deleterange", DeleteRangeRequest, request, DeleteRangeResponse),
        );
      } else if (dice < 68) {
        const request = txnWithoutTies(maker.txn(store.revision));
        await pair.write(
          `txn ${JSON.stringify(plain(request))}`,
          (leases, batch) => {
            store.checkTxn(request, OPS_MAX);
            if (!isReadOnly(request)) return store.txn(request, leases, batch);
            const response = store.readOnlyTxnNow(request);
            return { response: response ?? store.txn(request, leases, batch).response, events: [], revision: store.revision };
          },
          oracle.call("kv/txn", TxnRequest, request, TxnResponse),
        );
      } else if (dice < 93) {
        await pair.range(maker.range(store.revision));
      } else if (dice < 95) {
        await pair.flush();
      } else if (dice < 96) {
        await pair.compact(store.revision + 1 - random.below(20));
      } else {
        await pair.flush();
        await pair.hash(random.below(4) === 0 ? random.below(4) - 1 : Math.max(0, store.revision + 1 - random.below(30)));
      }
      if (step === Math.floor(STEPS / 2)) await pair.restart();
    }
    for (let revision = pair.store.revision; revision >= 0; revision -= 7) await pair.hash(revision);
  } finally {
    await oracle.stop();
  }
}

describe("the store against a real etcd", () => {
  it.for([
    [1, 24100, AWKWARD_KEYS],
    [2, 24102, AWKWARD_KEYS],
    // Often no key at all is left, which the hash has a rule of its own for.
    [3, 24104, ["a", "b"]],
  ] as const)(
    "the same random requests get the same answers, errors and hashes, seed %i",
    { timeout: 600_000 },
    async ([seed, port, keys], { skip }) => {
      skip(ORACLE_ETCD === undefined, ORACLE_MISSING);
      await play(SEED + seed, port, keys);
    },
  );
});
