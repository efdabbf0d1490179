/** A store on a fake backend with short names for what tests do most. Keys and values are latin1 text. */
import {
  Compare,
  DeleteRangeRequest,
  type DeleteRangeResponse,
  PutRequest,
  type PutResponse,
  RangeRequest,
  type RangeResponse,
  RequestOp,
  TxnRequest,
  type TxnResponse,
} from "../../src/api/index.ts";
import { type BackendBatch, createBatch } from "../../src/backend/index.ts";
import { EtcdError } from "../../src/base/errors.ts";
import type { LeaseId } from "../../src/base/ids.ts";
import { type LeaseView, MvccStore, type WriteOutcome } from "../../src/mvcc/index.ts";
import { FakeBackend } from "./fake-backend.ts";
import { latin1 } from "./mvcc-requests.ts";

export function name(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

export function putOf(key: string, value = "", more: Partial<PutRequest> = {}): PutRequest {
  return PutRequest.create({ key: latin1(key), value: latin1(value), ...more });
}

export function rangeOf(key: string, end = "", more: Partial<RangeRequest> = {}): RangeRequest {
  return RangeRequest.create({ key: latin1(key), rangeEnd: latin1(end), ...more });
}

export function deleteOf(key: string, end = "", more: Partial<DeleteRangeRequest> = {}): DeleteRangeRequest {
  return DeleteRangeRequest.create({ key: latin1(key), rangeEnd: latin1(end), ...more });
}

export const putOp = (key: string, value = "", more: Partial<PutRequest> = {}): RequestOp =>
  RequestOp.create({ requestPut: putOf(key, value, more) });
export const rangeOp = (key: string, end = "", more: Partial<RangeRequest> = {}): RequestOp =>
  RequestOp.create({ requestRange: rangeOf(key, end, more) });
export const deleteOp = (key: string, end = "", more: Partial<DeleteRangeRequest> = {}): RequestOp =>
  RequestOp.create({ requestDeleteRange: deleteOf(key, end, more) });
export const txnOp = (request: Partial<TxnRequest>): RequestOp => RequestOp.create({ requestTxn: TxnRequest.create(request) });

export function compareOf(key: string, more: Partial<Compare>, end = ""): Compare {
  return Compare.create({ key: latin1(key), rangeEnd: latin1(end), ...more });
}

/** Key, create revision, mod revision, version, value and lease of every pair. */
export function pairs(response: RangeResponse | undefined): string[] {
  return (response?.kvs ?? []).map(
    (kv) =>
      `${name(kv.key)} ${kv.createRevision} ${kv.modRevision} ${kv.version} ${name(kv.value)}${kv.lease === 0n ? "" : ` lease ${kv.lease}`}`,
  );
}

/** The reason of the refusal that `run` ends in. */
export function reasonOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (EtcdError.is(error)) return error.reason;
    throw error;
  }
  return "accepted";
}

export async function reasonOfAsync(run: () => Promise<unknown>): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (EtcdError.is(error)) return error.reason;
    throw error;
  }
  return "accepted";
}

export interface HarnessOptions {
  readonly cacheBytesMax?: number;
  readonly mutants?: ReadonlySet<string>;
  readonly leases?: readonly bigint[];
}

export class MvccHarness {
  readonly backend: FakeBackend;
  readonly leases: LeaseView;
  batch: BackendBatch = createBatch();
  store: MvccStore;
  readonly #options: HarnessOptions;

  private constructor(backend: FakeBackend, store: MvccStore, options: HarnessOptions) {
    this.backend = backend;
    this.store = store;
    this.#options = options;
    this.leases = { exists: (id) => (options.leases ?? []).includes(id), leaseOf: () => 0n as LeaseId };
  }

  static async open(options: HarnessOptions = {}, backend = new FakeBackend()): Promise<MvccHarness> {
    return new MvccHarness(backend, await MvccHarness.#openStore(backend, options), options);
  }

  static async #openStore(backend: FakeBackend, options: HarnessOptions): Promise<MvccStore> {
    let now = 0;
    return await MvccStore.open({
      backend,
      cacheBytesMax: options.cacheBytesMax ?? 1_000_000,
      yieldNow: () => new Promise((resolve) => setImmediate(resolve)),
      nowMs: () => {
        now += 3;
        return now;
      },
      mutants: options.mutants,
    });
  }

  /** Closes without flushing: what is not written is lost. */
  async crash(): Promise<void> {
    this.batch = createBatch();
    this.store = await MvccHarness.#openStore(this.backend, this.#options);
  }

  async restart(): Promise<void> {
    await this.flush();
    await this.crash();
  }

  async flush(): Promise<void> {
    const { batch } = this;
    this.batch = createBatch();
    await this.backend.write(batch);
    this.store.written(batch);
  }

  put(key: string, value = "", more: Partial<PutRequest> = {}): WriteOutcome<PutResponse> {
    const request = putOf(key, value, more);
    this.store.checkPut(request);
    return this.store.put(request, this.leases, this.batch);
  }

  delete(key: string, end = "", more: Partial<DeleteRangeRequest> = {}): WriteOutcome<DeleteRangeResponse> {
    return this.store.deleteRange(deleteOf(key, end, more), this.batch);
  }

  txn(request: Partial<TxnRequest>, opsMax = 128): WriteOutcome<TxnResponse> {
    const txn = TxnRequest.create(request);
    this.store.checkTxn(txn, opsMax);
    return this.store.txn(txn, this.leases, this.batch);
  }

  async range(key: string, end = "", more: Partial<RangeRequest> = {}): Promise<RangeResponse> {
    const request = rangeOf(key, end, more);
    this.store.checkRange(request);
    return await this.store.range(request);
  }

  /** Everything at a revision, as text. */
  async all(revision = 0): Promise<string[]> {
    return pairs(await this.range("\0", "\0", { revision }));
  }

  compact(revision: number): void {
    this.store.compact({ revision }, this.batch);
  }

  /** One slice, written. */
  async compactSlice(rowsMax: number): Promise<boolean> {
    const batch = createBatch();
    const done = await this.store.compactSlice(() => batch, rowsMax);
    await this.backend.write(batch);
    this.store.written(batch);
    return done;
  }

  async compactAll(revision: number, rowsMax = 100): Promise<void> {
    this.compact(revision);
    await this.flush();
    await this.finishCompaction(rowsMax);
  }

  async finishCompaction(rowsMax = 100): Promise<void> {
    while (!(await this.compactSlice(rowsMax)));
  }

  /** Events from `from` on, as text with the previous pair's mod revision. */
  async events(from: number): Promise<string[]> {
    const result: string[] = [];
    for (let next = from; next <= this.store.revision; ) {
      const page = await this.store.history(next, this.store.revision, { revisionsMax: 2, bytesMax: 1000 });
      for (const { type, kv, previous } of page.events) {
        const before = previous === undefined ? undefined : this.store.rowAt(previous);
        result.push(`${type} ${name(kv.key)}@${kv.modRevision}${before === undefined ? "" : ` was @${before.modRevision}`}`);
      }
      next = page.next;
    }
    return result;
  }
}
