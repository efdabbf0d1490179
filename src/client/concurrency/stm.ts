/**
 * Software transactions: read and write as in a program, commit if nothing that was read has changed meanwhile, else run it again. Four levels of isolation, as in
 * etcd's own package.
 */
import { isRpcError } from "../../api/index.ts";
import { type KeyString, keyStringOf } from "../../base/bytes.ts";
import type { EtcdClient } from "../client.ts";
import type { KeyInput, KeyValue, ValueInput } from "../coding.ts";
import { type CallOptions, Deadline } from "../deadline.ts";
import { InvalidUseError } from "../errors.ts";
import { type Compare, compare, type Op, op } from "../txn.ts";
import { StmConflictError } from "./errors.ts";
import { Turns } from "./turns.ts";

/**
 * - "serializable-snapshot": all reads see one revision; it commits if neither what it read nor what it writes has changed since.
 * - "serializable": all reads see one revision; it commits if what it read has not changed since.
 * - "repeatable-reads": a key reads the same all through the transaction, different keys perhaps of different revisions; it commits if what it read has not
 *   changed since it was read.
 * - "read-committed": reads see what is committed, and it always commits.
 */
export type Isolation = "serializable-snapshot" | "serializable" | "repeatable-reads" | "read-committed";

export interface StmOptions extends Pick<CallOptions, "signal" | "timeoutMs"> {
  /** Default: "serializable-snapshot". */
  readonly isolation?: Isolation | undefined;
  /** Runs of the function before it is given up with {@link StmConflictError}. Default: no limit. */
  readonly attemptsMax?: number | undefined;
}

/** What a transaction reads and writes through. It sees its own writes. At most 128 keys altogether may be written, and 128 checked. */
export interface Transaction<V = string, K = string> {
  /** The value, or undefined if there is none. */
  get(key: KeyInput<K>): Promise<V | undefined>;
  /** Of the last change of the key before the transaction; 0 if there is none. Counts as reading it. */
  revision(key: KeyInput<K>): Promise<number>;
  put(key: KeyInput<K>, value: ValueInput<V>, options?: { readonly lease?: bigint }): void;
  delete(key: KeyInput<K>): void;
}

export interface StmResult<T> {
  /** What the function returned in the run that was committed. */
  readonly value: T;
  /** Of the store after the commit; of the reads, if nothing was written. */
  readonly revision: number;
  readonly attempts: number;
}

const BACKOFF_FIRST_MS = 1;
const BACKOFF_MAX_MS = 100;
/** Conflicts in a row after which it begins to wait between the attempts: with others than this process's own. */
const CONFLICTS_AT_ONCE = 3;

/**
 * Runs `fn`, perhaps several times: it must do nothing but read and write through its argument. What it throws ends the transaction without a trace.
 * A rejection with a code that `mayHaveHappened` knows may come after the commit took place; it is then not run again.
 */
export async function stm<V, K, T>(
  client: EtcdClient<V, K>,
  fn: (transaction: Transaction<V, K>) => Promise<T> | T,
  options: StmOptions = {},
): Promise<StmResult<T>> {
  const { isolation = "serializable-snapshot", attemptsMax = Number.POSITIVE_INFINITY } = options;
  const deadline = new Deadline(client.clock, options.timeoutMs ?? 0, options.signal);
  try {
    let contended: string | undefined;
    for (let attempts = 1; ; attempts += 1) {
      deadline.throwIfOver();
      const attempt = new Attempt(client, isolation, deadline.signal);
      let committed: { revision: number } | undefined;
      let value: T | undefined;
      // Transactions of this process that met a conflict take turns: they would only go on meeting each other.
      const leave = contended === undefined ? undefined : await turnsOf(client).take(contended, deadline.signal);
      try {
        value = await fn(attempt);
        committed = await attempt.commit();
      } catch (error) {
        // The revision of the first read was compacted away: that is a conflict with time.
        if (!attempt.pinned || !isRpcError(error, "compacted")) throw deadline.error ?? error;
      } finally {
        attempt.end();
        leave?.();
      }
      if (committed !== undefined) return { value: value as T, revision: committed.revision, attempts };
      if (attempts >= attemptsMax) throw new StmConflictError(attempts);
      contended = attempt.firstKey;
      if (attempts > CONFLICTS_AT_ONCE) {
        const waitMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempts, 10));
        await deadline.pause(waitMs * Math.random());
      }
    }
  } finally {
    deadline.done();
  }
}

const turns = new WeakMap<object, Turns>();

/** One for all clients of a connection. */
function turnsOf(client: { readonly cluster: object }): Turns {
  let found = turns.get(client.cluster);
  if (found === undefined) {
    found = new Turns();
    turns.set(client.cluster, found);
  }
  return found;
}

interface Read<V, K> {
  readonly key: KeyInput<K>;
  readonly kv: KeyValue<V, K> | undefined;
}
interface Write<V, K> {
  readonly key: KeyInput<K>;
  readonly operation: Op<V, K>;
  /** What reads of the transaction itself see. */
  readonly value: V | undefined;
}

class Attempt<V, K> implements Transaction<V, K> {
  readonly #client: EtcdClient<V, K>;
  readonly #isolation: Isolation;
  readonly #signal: AbortSignal;
  readonly #reads = new Map<KeyString, Read<V, K>>();
  readonly #writes = new Map<KeyString, Write<V, K>>();
  /** Of the first read, for the levels that read at one revision. */
  #revision = 0;
  #first: Promise<unknown> | undefined;
  #over = false;

  constructor(client: EtcdClient<V, K>, isolation: Isolation, signal: AbortSignal) {
    this.#client = client;
    this.#isolation = isolation;
    this.#signal = signal;
  }

  /** It reads a revision that is past. */
  get pinned(): boolean {
    return this.#revision > 0;
  }

  /** Whoever goes on using it does so in vain, and is told. */
  end(): void {
    this.#over = true;
  }

  #throwIfOver(): void {
    if (this.#over) throw new InvalidUseError("the transaction is over: its function has ended");
  }

  /** Of those that it depends on. */
  get firstKey(): string | undefined {
    return [...this.#reads.keys(), ...this.#writes.keys()][0];
  }

  async get(key: KeyInput<K>): Promise<V | undefined> {
    this.#throwIfOver();
    const name = keyStringOf(this.#client.encodeKey(key));
    const write = this.#writes.get(name);
    if (write !== undefined) return write.value;
    return (await this.#read(name, key))?.value;
  }

  async revision(key: KeyInput<K>): Promise<number> {
    this.#throwIfOver();
    return (await this.#read(keyStringOf(this.#client.encodeKey(key)), key))?.modRevision ?? 0;
  }

  async #read(name: KeyString, key: KeyInput<K>): Promise<KeyValue<V, K> | undefined> {
    const known = this.#reads.get(name);
    if (known !== undefined && this.#isolation !== "read-committed") return known.kv;
    const kv = await (this.#atOneRevision ? this.#readPinned(key) : this.#client.get(key, { signal: this.#signal }));
    // Two reads of the same key at the same time: the first answer counts for both.
    const again = this.#reads.get(name);
    if (again !== undefined && this.#isolation !== "read-committed") return again.kv;
    this.#reads.set(name, { key, kv });
    return kv;
  }

  /** The first read decides the revision; others that begin before its answer wait for it. */
  async #readPinned(key: KeyInput<K>): Promise<KeyValue<V, K> | undefined> {
    if (this.#revision === 0 && this.#first !== undefined) await this.#first;
    if (this.#revision > 0) return this.#client.get(key, { signal: this.#signal, revision: this.#revision });
    const reading = this.#client.range(key, { signal: this.#signal });
    this.#first = reading;
    const { kvs, revision } = await reading;
    this.#revision = revision;
    return kvs[0];
  }

  put(key: KeyInput<K>, value: ValueInput<V>, options?: { readonly lease?: bigint }): void {
    this.#throwIfOver();
    // Through the codec at once: the value may be changed afterwards, and must read as it will be stored.
    const encoded = this.#client.encodeValue(value);
    const operation = op.put(key, encoded as V, options);
    this.#writes.set(keyStringOf(this.#client.encodeKey(key)), { key, operation, value: this.#client.decodeValue(encoded) });
  }

  delete(key: KeyInput<K>): void {
    this.#throwIfOver();
    this.#writes.set(keyStringOf(this.#client.encodeKey(key)), { key, operation: op.delete(key), value: undefined });
  }

  /** Undefined: something has changed meanwhile. */
  async commit(): Promise<{ revision: number } | undefined> {
    const writes = [...this.#writes.values()];
    // What was read at one revision, and changes nothing, needs no proof that it is still so.
    if (writes.length === 0 && (this.#atOneRevision || this.#reads.size === 0)) return { revision: this.#revision };
    const conditions = this.#conditions();
    if (conditions.length === 0 && writes.length === 0) return { revision: this.#revision };
    // A transaction of nothing but conditions would be judged by one member alone: read something.
    const proof = writes.length === 0 ? [op.get([...this.#reads.values()].map(({ key }) => key)[0] as KeyInput<K>)] : [];
    const { succeeded, revision } = await this.#client
      .txn()
      .if(...conditions)
      .do(...writes.map(({ operation }) => operation), ...proof)
      .else(...proof)
      .commit({ signal: this.#signal });
    return succeeded ? { revision } : undefined;
  }

  get #atOneRevision(): boolean {
    return this.#isolation === "serializable-snapshot" || this.#isolation === "serializable";
  }

  #conditions(): Compare<V, K>[] {
    if (this.#isolation === "read-committed") return [];
    const conditions: Compare<V, K>[] = [];
    for (const { key, kv } of this.#reads.values()) conditions.push(compare.modRevision(key, "=", kv?.modRevision ?? 0));
    if (this.#isolation === "serializable-snapshot" && this.#revision > 0) {
      for (const [name, { key }] of this.#writes) {
        if (!this.#reads.has(name)) conditions.push(compare.modRevision(key, "<", this.#revision + 1));
      }
    }
    return conditions;
  }
}
