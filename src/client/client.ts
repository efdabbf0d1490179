/** The client: one face, whatever the way to the cluster. */
import * as api from "../api/index.ts";
import type { Clock } from "../base/clock.ts";
import { AuthClient, ClusterClient, MaintenanceClient, type MemberCallOptions } from "./admin.ts";
import { Caller } from "./caller.ts";
import { portableClock } from "./clock.ts";
import { bytes, type Codec, utf8 } from "./codec.ts";
import { Coding, type KeyInput, type KeyValue, type ValueInput } from "./coding.ts";
import type { CallOptions } from "./deadline.ts";
import { Endpoints } from "./endpoints.ts";
import { type Lease, LeaseClient, type LeaseOptions } from "./lease.ts";
import { type PageOptions, pages } from "./pages.ts";
import {
  counter,
  type DeleteOptions,
  deleteRequest,
  type GetOptions,
  getRequest,
  type PutOptions,
  putRequest,
  type RangeOptions,
  rangeRequest,
  touchRequest,
} from "./requests.ts";
import {
  type DeleteResult,
  deleteResult,
  headerOf,
  type KeysResult,
  keysResult,
  type PutResult,
  putResult,
  type RangeResult,
  rangeResult,
} from "./results.ts";
import type { Credentials } from "./tokens.ts";
import type { Transport } from "./transport.ts";
import { TxnBuilder, type TxnRunner, txnRunner } from "./txn.ts";
import { View, type ViewOptions } from "./view.ts";
import { Watcher, type WatchOptions } from "./watch.ts";
import { WatchHub } from "./watch-hub.ts";

export interface ClientOptions {
  /** URLs of members, such as `http://10.0.0.1:2379`. They are used in turn; failed ones are left alone for a while. */
  readonly endpoints: readonly string[];
  /** The way to them. */
  readonly transport: Transport;
  /** User and password; the token is fetched and renewed as needed. */
  readonly credentials?: Credentials | undefined;
  /** Deadline of calls that have none of their own. Default 15,000; 0: none. Members in this process have a deadline of their own (7 s by default). */
  readonly timeoutMs?: number | undefined;
  /** How long a watch may stay silent, although asked, before another member is tried. Default 5000. */
  readonly watchSilenceMs?: number | undefined;
  /** Default: the runtime's. */
  readonly clock?: Clock | undefined;
}

const TIMEOUT_MS = 15_000;
const WATCH_SILENCE_MS = 5000;

/** What all clients of one connection share. */
interface Shared {
  readonly caller: Caller;
  readonly hub: WatchHub;
  readonly cluster: ClusterClient;
  readonly maintenance: MaintenanceClient;
}

/**
 * A client of one cluster. Keys and values are text by default; `raw()`, `withValues` and `withKeys` give clients of the same connection that see bytes or
 * anything a codec makes of them; `namespace` gives one that sees only the keys below a prefix. Every rejection is an `EtcdError`.
 */
export class EtcdClient<V = string, K = string> {
  readonly leases: LeaseClient<K>;
  readonly cluster: ClusterClient;
  readonly maintenance: MaintenanceClient;
  readonly auth: AuthClient;
  readonly #shared: Shared;
  readonly #caller: Caller;
  readonly #coding: Coding<V, K>;
  readonly #runTxn: TxnRunner<V, K>;
  // Made once, so that a call makes no closures.
  readonly #firstPair: (response: api.RangeResponse) => KeyValue<V, K> | undefined;
  readonly #putResult: (response: api.PutResponse) => PutResult<V, K>;

  /** For {@link createClient} and the methods below. */
  constructor(shared: Shared, coding: Coding<V, K>) {
    this.#shared = shared;
    this.#caller = shared.caller;
    this.#coding = coding;
    this.#runTxn = txnRunner(coding, shared.caller);
    this.leases = new LeaseClient(shared.caller, coding);
    this.cluster = shared.cluster;
    this.maintenance = shared.maintenance;
    this.auth = new AuthClient(shared.caller, (keys) => new Coding(utf8, utf8, coding.prefix).range(keys.key, keys));
    this.#firstPair = (response) => {
      const kv = response.kvs[0];
      return kv === undefined ? undefined : coding.pair(kv);
    };
    this.#putResult = (response) => putResult(coding, response);
  }

  // -- other views of the same connection -------------------------------------------------------------------------------------------------

  /** Sees only keys below `prefix`, without it. Closing either closes both. */
  namespace(prefix: string | Uint8Array): EtcdClient<V, K> {
    return new EtcdClient(this.#shared, this.#coding.below(prefix));
  }

  withValues<Other>(codec: Codec<Other>): EtcdClient<Other, K> {
    return new EtcdClient(this.#shared, new Coding(codec, this.#coding.keys, this.#coding.prefix));
  }

  withKeys<Other>(codec: Codec<Other>): EtcdClient<V, Other> {
    return new EtcdClient(this.#shared, new Coding(this.#coding.values, codec, this.#coding.prefix));
  }

  /** Keys and values as bytes. */
  raw(): EtcdClient<Uint8Array, Uint8Array> {
    return this.withValues(bytes).withKeys(bytes);
  }

  /** Keys and values as text. */
  text(): EtcdClient<string, string> {
    return this.withValues(utf8).withKeys(utf8);
  }

  /** Keys as text. */
  withTextKeys(): EtcdClient<V, string> {
    return this.withKeys(utf8);
  }

  /** A key as the server has it, with what the namespace puts in front. */
  encodeKey(key: KeyInput<K>): Uint8Array {
    return this.#coding.key(key);
  }

  /** A value as it is stored. */
  encodeValue(value: ValueInput<V>): Uint8Array {
    return this.#coding.value(value);
  }

  /** @throws UndecodableError */
  decodeValue(stored: Uint8Array): V {
    return this.#coding.valueOf(stored);
  }

  // -- keys and values ---------------------------------------------------------------------------------------------------------------------

  /** The pair, or undefined if there is none. Linearizable unless `serializable` is asked for. */
  async get(key: KeyInput<K>, options?: GetOptions): Promise<KeyValue<V, K> | undefined> {
    return this.#caller.unary(api.KvService.range, getRequest(this.#coding, key, options), options, "read").then(this.#firstPair);
  }

  /** Many pairs at once, all at the same revision. For more than some thousands see {@link pages}. */
  async range(key: KeyInput<K>, options?: RangeOptions<K>): Promise<RangeResult<V, K>> {
    const request = rangeRequest(this.#coding, key, options);
    return rangeResult(this.#coding, await this.#caller.unary(api.KvService.range, request, options, "read"));
  }

  /** The same without values, which then do not travel either. */
  async keys(key: KeyInput<K>, options?: RangeOptions<K>): Promise<KeysResult<K>> {
    const request = { ...rangeRequest(this.#coding, key, options), keysOnly: true };
    return keysResult(this.#coding, await this.#caller.unary(api.KvService.range, request, options, "read"));
  }

  /** How many keys there are in a range. */
  async count(key: KeyInput<K>, options?: RangeOptions<K>): Promise<number> {
    const request = rangeRequest(this.#coding, key, { ...options, countOnly: true });
    return (await this.#caller.unary(api.KvService.range, request, options, "read")).count;
  }

  /** A range in pages, all at the revision of the first one. The iteration throws `compacted` if that revision is compacted away meanwhile. */
  pages(key: KeyInput<K>, options: PageOptions<K> = {}): AsyncGenerator<RangeResult<V, K>, void, undefined> {
    return pages(this.#coding, this.#caller, key, options);
  }

  /** The pairs of a range one by one, read in pages: see {@link pages}. */
  async *entries(key: KeyInput<K>, options: PageOptions<K> = {}): AsyncGenerator<KeyValue<V, K>, void, undefined> {
    for await (const page of this.pages(key, options)) yield* page.kvs;
  }

  /** Writes a pair. A rejection may come after it took place: see `mayHaveHappened`. */
  async put(key: KeyInput<K>, value: ValueInput<V>, options?: PutOptions): Promise<PutResult<V, K>> {
    return this.#caller.unary(api.KvService.put, putRequest(this.#coding, key, value, options), options, "write").then(this.#putResult);
  }

  /**
   * A new revision of a pair with the value it has, and another lease if one is given (0n: none).
   * @throws RpcError `key-not-found`
   */
  async touch(key: KeyInput<K>, options?: CallOptions & { readonly lease?: bigint }): Promise<PutResult<V, K>> {
    return this.#caller.unary(api.KvService.put, touchRequest(this.#coding, key, options?.lease), options, "write").then(this.#putResult);
  }

  async delete(key: KeyInput<K>, options?: DeleteOptions<K>): Promise<DeleteResult<V, K>> {
    const request = deleteRequest(this.#coding, key, options);
    return deleteResult(this.#coding, await this.#caller.unary(api.KvService.deleteRange, request, options, "write"));
  }

  /**
   * A transaction, to be put together and committed:
   * `client.txn().if(compare.absent("a")).do(op.put("a", "1")).else(op.get("a")).commit()`.
   */
  txn(): TxnBuilder<V, K> {
    return new TxnBuilder<V, K>(this.#runTxn, [], [], []);
  }

  /** Drops the history before `revision`. @param options.physical resolve only when the space is free, too */
  async compact(revision: number, options?: CallOptions & { readonly physical?: boolean }): Promise<void> {
    const request = { revision: counter(revision, "revision"), physical: options?.physical === true };
    await this.#caller.unary(api.KvService.compact, request, options, "write");
  }

  /** The current revision of the store, confirmed by a majority. */
  async revision(options?: CallOptions): Promise<number> {
    const request = api.RangeRequest.create({ key: new Uint8Array(1), countOnly: true });
    return headerOf(await this.#caller.unary(api.KvService.range, request, options, "read")).revision;
  }

  // -- changes and leases ------------------------------------------------------------------------------------------------------------------

  /** The changes of a key or a range, from a revision or from now on. */
  watch(key: KeyInput<K>, options?: WatchOptions<K>): Watcher<V, K> {
    return new Watcher(this.#shared.hub, this.#coding, key, options);
  }

  /** A live copy of all keys that begin with `key`, or of another selection. Await its `ready`. */
  view(key: KeyInput<K>, options?: ViewOptions<K>): View<V, K> {
    return new View(this.#shared.hub, this.#coding, key, options);
  }

  /** Grants a lease and keeps it alive. */
  lease(options: LeaseOptions): Promise<Lease> {
    return this.leases.open(options);
  }

  // -- the rest ------------------------------------------------------------------------------------------------------------------------------

  /** Any unary method of the API with its own messages, for what has no function here. Keys in it are the server's. */
  call<Request extends object, Response extends object>(
    method: api.MethodDescriptor<Request, Response>,
    request: Partial<Request>,
    options?: MemberCallOptions,
  ): Promise<Response> {
    const whole = method.request.create(request);
    if (options?.endpoint !== undefined) return this.#caller.unaryAt(options.endpoint, method, whole, options);
    return this.#caller.unary(method, whole, options, "write");
  }

  get endpoints(): readonly string[] {
    return this.#caller.endpoints.names;
  }

  /** The clock that its timers run on. */
  get clock(): Clock {
    return this.#caller.clock;
  }

  get closed(): boolean {
    return this.#caller.closed;
  }

  /** Calls `listener` when the client is closed, at once if it is already. Returns how to stop that. */
  onClose(listener: () => void): () => void {
    const { closing } = this.#caller;
    if (!closing.over) return closing.onEnd(listener);
    listener();
    return () => undefined;
  }

  /**
   * Ends watches and views, stops renewing leases (without giving them back: close those before), and ends the calls that are under way over a network. Calls to
   * members in this process are left to them. Idempotent.
   */
  close(): void {
    this.#caller.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** A client over any transport. Nothing is connected before the first call. */
export function clientOver(options: ClientOptions): EtcdClient {
  const clock = options.clock ?? portableClock;
  const { transport } = options;
  const endpoints = new Endpoints({ clock, transport, endpoints: options.endpoints, first: Math.floor(Math.random() * 0x10000) });
  const caller = new Caller({
    clock,
    endpoints,
    timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
    local: transport.local,
    credentials: options.credentials,
  });
  const hub = new WatchHub(caller, options.watchSilenceMs ?? WATCH_SILENCE_MS);
  const shared: Shared = { caller, hub, cluster: new ClusterClient(caller), maintenance: new MaintenanceClient(caller) };
  return new EtcdClient(shared, new Coding(utf8, utf8));
}
