/** As much of a member as Lock and Election need: a store in memory with leases, watched through the real hub. */
import * as api from "../../src/api/index.ts";
import { rpcError } from "../../src/api/rpc-errors.ts";
import { bytesOfKey, type KeyString, keyStringOf, utf8Text } from "../../src/base/bytes.ts";
import { EtcdError } from "../../src/base/errors.ts";
import type { CoordinationPort } from "../../src/server/services/coordination-port.ts";
import type { CallContext, WatchSession } from "../../src/server/services/services.contract.ts";
import { WatchHub } from "../../src/watch/hub.ts";
import { MemberSource, type Operation, WatchHistory } from "./watch-source.ts";

export class FakeMember implements CoordinationPort {
  readonly history = new WatchHistory();
  readonly source = new MemberSource(this.history);
  readonly hub: WatchHub;
  readonly leases = new Map<bigint, number>();
  readonly #alive = new Map<KeyString, api.KeyValue>();
  #nextLease = 1000n;
  /** Every call, in short. */
  readonly calls: string[] = [];
  /** Awaited before each call is executed; may throw an EtcdError instead of it. */
  before: (call: string) => Promise<void> | void = () => undefined;
  sessions = 0;

  constructor() {
    this.hub = new WatchHub({
      source: this.source,
      streamBytesMax: 1 << 20,
      fragmentBytes: 1 << 21,
      catchUpRevisionsMax: 1000,
      watchersPerStreamMax: 100,
      yieldNow: () => Promise.resolve(),
      onLagging: () => {
        setImmediate(() => {
          void this.hub.catchUp();
        });
      },
    });
  }

  get revision(): number {
    return this.source.revision;
  }

  get keys(): string[] {
    return [...this.#alive.keys()].sort();
  }

  grant(id: bigint, ttl = 60): void {
    this.leases.set(id, ttl);
  }

  /** The lease ends, and its keys with it. */
  revoke(id: bigint): void {
    this.leases.delete(id);
    const gone = [...this.#alive].filter(([, kv]) => kv.lease === id).map(([key]) => key);
    this.#execute(gone.sort().map((key) => ({ delete: key })));
  }

  readonly lease = {
    leaseGrant: async (request: api.LeaseGrantRequest, context: CallContext): Promise<api.LeaseGrantResponse> => {
      await this.#enter(`grant ${request.ttl}`, context);
      this.#nextLease += 1n;
      this.leases.set(this.#nextLease, request.ttl);
      return api.LeaseGrantResponse.create({ header: this.#header(), id: this.#nextLease, ttl: request.ttl });
    },
  };

  readonly kv = {
    range: async (request: api.RangeRequest, context: CallContext): Promise<api.RangeResponse> => {
      await this.#enter(`range ${utf8Text(request.key)}`, context);
      return this.#range(request);
    },

    put: async (request: api.PutRequest, context: CallContext): Promise<api.PutResponse> => {
      await this.#enter(`put ${utf8Text(request.key)}`, context);
      this.#execute([this.#putOf(request)]);
      return api.PutResponse.create({ header: this.#header() });
    },

    deleteRange: async (request: api.DeleteRangeRequest, context: CallContext): Promise<api.DeleteRangeResponse> => {
      await this.#enter(`delete ${utf8Text(request.key)}`, context);
      if (request.key.length === 0) throw rpcError("key-not-provided");
      this.#execute([{ delete: keyStringOf(request.key) }]);
      return api.DeleteRangeResponse.create({ header: this.#header() });
    },

    txn: async (request: api.TxnRequest, context: CallContext): Promise<api.TxnResponse> => {
      await this.#enter(`txn ${utf8Text(request.compare[0]?.key ?? new Uint8Array(0))}`, context);
      for (const compare of request.compare) if (compare.key.length === 0) throw rpcError("key-not-provided");
      const succeeded = request.compare.every(
        (compare) => (this.#alive.get(keyStringOf(compare.key))?.createRevision ?? 0) === compare.createRevision,
      );
      const branch = succeeded ? request.success : request.failure;
      const operations: Operation[] = [];
      for (const { requestPut, requestDeleteRange } of branch) {
        if (requestPut !== undefined) operations.push(this.#putOf(requestPut));
        if (requestDeleteRange !== undefined) operations.push({ delete: keyStringOf(requestDeleteRange.key) });
      }
      this.#execute(operations);
      const responses = branch.map(({ requestRange }) =>
        api.ResponseOp.create(requestRange === undefined ? {} : { responseRange: this.#range(requestRange) }),
      );
      return api.TxnResponse.create({ header: this.#header(), succeeded, responses });
    },
  };

  readonly watch = {
    watch: (context: CallContext): WatchSession => {
      this.sessions += 1;
      return new FakeSession(this.hub, context, () => {
        this.sessions -= 1;
      });
    },
  };

  async #enter(call: string, context: CallContext): Promise<void> {
    this.calls.push(context.token === undefined ? call : `${call} as ${context.token}`);
    if (context.signal?.aborted === true) throw EtcdError.is(context.signal.reason) ? context.signal.reason : rpcError("canceled");
    await this.before(call);
  }

  #header(revision = this.revision): api.ResponseHeader {
    return api.ResponseHeader.create({ clusterId: 1n, memberId: 2n, revision, raftTerm: 3 });
  }

  #putOf(request: api.PutRequest): Operation {
    if (request.lease !== 0n && !this.leases.has(request.lease)) throw rpcError("lease-not-found");
    return { put: keyStringOf(request.key), value: utf8Text(request.value), lease: request.lease };
  }

  #execute(operations: readonly Operation[]): void {
    const events = this.history.apply(...operations);
    if (events.length === 0) return;
    for (const { type, key, kv } of events) {
      if (type === "put") this.#alive.set(key, kv);
      else this.#alive.delete(key);
    }
    this.source.revision = this.history.revision;
    this.hub.notify(this.history.revision, events);
  }

  #range(request: api.RangeRequest): api.RangeResponse {
    const start = keyStringOf(request.key);
    const end = keyStringOf(request.rangeEnd);
    let kvs = [...this.#alive.values()].filter((kv) => {
      const key = keyStringOf(kv.key);
      return end === "" ? key === start : key >= start && key < end;
    });
    if (request.maxCreateRevision !== 0) kvs = kvs.filter((kv) => kv.createRevision <= request.maxCreateRevision);
    const sign = request.sortOrder === api.SortOrder.DESCEND ? -1 : 1;
    if (request.sortTarget === api.SortTarget.CREATE) kvs.sort((a, b) => sign * (a.createRevision - b.createRevision));
    return api.RangeResponse.create({
      header: this.#header(),
      kvs: request.limit > 0 ? kvs.slice(0, request.limit) : kvs,
      count: kvs.length,
    });
  }

  /** Puts a key as another client would. */
  putNow(key: string, value: string, lease = 0n): void {
    this.#execute([{ put: key, value, lease }]);
  }

  deleteNow(key: string): void {
    this.#execute([{ delete: keyStringOf(bytesOfKey(key as KeyString)) }]);
  }
}

class FakeSession implements WatchSession {
  readonly #stream: ReturnType<WatchHub["openStream"]>;
  readonly #onClose: () => void;
  readonly #signal: AbortSignal | undefined;
  #wake: () => void = () => undefined;
  #closed = false;
  #error: EtcdError | undefined;

  constructor(hub: WatchHub, context: CallContext, onClose: () => void) {
    this.#stream = hub.openStream(() => this.#wake());
    this.#onClose = onClose;
    this.#signal = context.signal;
    context.signal?.addEventListener("abort", this.#abort, { once: true });
    if (context.signal?.aborted === true) this.#abort();
  }

  readonly #abort = (): void => {
    this.#error = rpcError("watch-canceled");
    this.#wake();
  };

  send(request: api.WatchRequest): void {
    if (request.createRequest !== undefined) this.#stream.create(request.createRequest);
  }

  async next(): Promise<readonly api.WatchResponse[] | undefined> {
    for (;;) {
      if (this.#error !== undefined) throw this.#error;
      if (this.#closed) return undefined;
      const responses = this.#stream.take(1 << 20);
      if (responses.length > 0) return responses;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#stream.close();
    this.#onClose();
    this.#wake();
  }
}
