/** Elections, by the keys of etcd's own recipe: candidates are keys `name/<lease>` with their values, the oldest one leads. */
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { EtcdClient } from "../client.ts";
import type { KeyValue, ValueInput } from "../coding.ts";
import { type CallOptions, linked, pause } from "../deadline.ts";
import { canceledError } from "../errors.ts";
import { op, type TxnBuilder } from "../txn.ts";
import type { View } from "../view.ts";
import { type Claim, claim } from "./claim.ts";
import { LockLostError } from "./errors.ts";
import { openSession, type Session, type SessionOptions, type WaitOptions } from "./session.ts";

/** Who leads, and what it said last. */
export interface Leader<V = string> {
  readonly value: V;
  readonly key: string;
  /** Grows from leader to leader; the same for all values of one. */
  readonly token: number;
  /** Of the last value. */
  readonly revision: number;
  readonly lease: bigint;
}

/** Candidates are sessions: one that campaigns twice for the same election takes turns with itself. */
export class Election<V = string, K = string> {
  readonly name: string;
  readonly #session: Session<V, K>;

  /** Use `session.election(name)`. */
  constructor(session: Session<V, K>, name: string) {
    this.#session = session;
    this.name = name;
  }

  /**
   * Stands for election and waits until it is won.
   * @throws `canceled`, `deadline-exceeded`, `lease-lost`, LockLostError; the candidacy is then withdrawn
   */
  async campaign(value: ValueInput<V>, options?: WaitOptions): Promise<Leadership<V, K>> {
    const encoded = encodeValue(this.#session.client, value);
    const ahead = `${this.name}/`;
    const place = { key: ahead + this.#session.suffix, ahead, value: encoded };
    return new Leadership(this.#session, await claim(this.#session, place, options));
  }

  leader(options?: CallOptions): Promise<Leader<V> | undefined> {
    return leaderOf(this.#session.client, this.name, options);
  }

  /** See {@link observeLeader}. */
  observe(options?: { readonly signal?: AbortSignal | undefined }): AsyncGenerator<Leader<V>, void, undefined> {
    return observeLeader(this.#session.client, this.name, options);
  }
}

/** A won election, until it is resigned or lost. */
export class Leadership<V = string, K = string> {
  readonly #session: Session<V, K>;
  readonly #claim: Claim<V, K>;

  /** Use `election.campaign()`. */
  constructor(session: Session<V, K>, won: Claim<V, K>) {
    this.#session = session;
    this.#claim = won;
  }

  get key(): string {
    return this.#claim.key;
  }

  /** Grows from leader to leader: see `LockContext.token`. */
  get token(): number {
    return this.#claim.token;
  }

  /** Aborted before somebody else can lead, and when it is resigned. */
  get signal(): AbortSignal {
    return this.#claim.signal;
  }

  /** Milliseconds for which nobody else can lead, as far as this process knows; 0 when it is lost. */
  get safeForMs(): number {
    return this.signal.aborted ? 0 : this.#session.lease.safeForMs;
  }

  /** A transaction that takes place only while this leadership lasts, else rejects with `LockLostError`. */
  txn(): TxnBuilder<V, K> {
    return this.#claim.txn();
  }

  /** Says something new to all who observe. @throws LockLostError */
  async proclaim(value: ValueInput<V>, options?: CallOptions): Promise<void> {
    const encoded = encodeValue(this.#session.client, value);
    await this.#claim
      .txn()
      .do(op.put(this.key, encoded as V, { lease: this.#session.lease.id }))
      .commit({ retry: "always", ...options });
  }

  /** Steps down. True if it had not been lost before. */
  resign(options?: WaitOptions): Promise<boolean> {
    return this.#claim.release(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resign();
  }
}

/** A value in the form in which it needs no codec any more. */
function encodeValue<V, K>(client: EtcdClient<V, K>, value: ValueInput<V>): Uint8Array {
  return client.encodeValue(value);
}

function leaderFrom<V>(kv: KeyValue<V, string>): Leader<V> {
  return { value: kv.value, key: kv.key, token: kv.createRevision, revision: kv.modRevision, lease: kv.lease };
}

/** Who leads now; undefined: nobody. */
export async function leaderOf<V, K>(client: EtcdClient<V, K>, name: string, options?: CallOptions): Promise<Leader<V> | undefined> {
  const oldest = { prefix: true, sort: { by: "createRevision" }, limit: 1 } as const;
  const { kvs } = await client.withTextKeys().range(`${name}/`, { ...options, ...oldest });
  const [first] = kvs;
  return first === undefined ? undefined : leaderFrom(first);
}

/**
 * The leader of now, if there is one, then each new value and each new leader. Never an older leader after a newer one. Who reads slowly misses values in between,
 * never the last one. Goes on until the loop is left, the signal is aborted (that throws), or the client is closed (that throws, too).
 */
export async function* observeLeader<V, K>(
  client: EtcdClient<V, K>,
  name: string,
  options: { readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<Leader<V>, void, undefined> {
  const { signal } = options;
  if (signal?.aborted === true) throw canceledError(signal);
  const view: View<V, string> = client.withTextKeys().view(`${name}/`, { signal });
  let wake: (() => void) | undefined;
  let ended: EtcdError | undefined;
  const stop = view.onChange(() => wake?.());
  void view.ended.then((error) => {
    ended = error;
    wake?.();
  });
  try {
    await view.ready;
    let told: Leader<V> | undefined;
    for (;;) {
      const oldest = first(view);
      if (ended !== undefined) throw ended;
      if (oldest !== undefined && oldest.revision !== told?.revision) {
        told = oldest;
        yield oldest;
        continue;
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  } finally {
    stop();
    view.close();
  }
}

function first<V>(view: View<V, string>): Leader<V> | undefined {
  let oldest: KeyValue<V, string> | undefined;
  for (const kv of view) if (oldest === undefined || kv.createRevision < oldest.createRevision) oldest = kv;
  return oldest === undefined ? undefined : leaderFrom(oldest);
}

export interface LeaderContext<V = string, K = string> {
  /** See `LockContext.token`. */
  readonly token: number;
  /** Aborted when the leadership may be lost, or when the caller's signal is aborted. Stop then. */
  readonly signal: AbortSignal;
  /** A transaction that takes place only while the leadership lasts. */
  readonly txn: () => TxnBuilder<V, K>;
  readonly proclaim: (value: ValueInput<V>) => Promise<void>;
}

export interface LeaderOptions<V> extends Pick<SessionOptions, "ttlSeconds"> {
  /** What the candidate says of itself. Default: nothing. */
  readonly value?: ValueInput<V> | undefined;
  /** Ends it: the candidacy is withdrawn, or `fn` asked to stop and the leadership resigned. */
  readonly signal?: AbortSignal | undefined;
}

const CAMPAIGN_PAUSE_MS = 500;

/**
 * Runs `fn` whenever this process leads: campaigns, runs it, and campaigns again when the leadership was lost. Resolves with what `fn` returns while it leads
 * (then it resigns); rejects with what `fn` throws while it leads, and with `canceled` when the signal is aborted. It never runs `fn` twice at the same time:
 * after a loss it waits until `fn`, asked by its signal, has ended.
 */
export async function runWhileLeader<V, K, T>(
  client: EtcdClient<V, K>,
  name: string,
  fn: (leader: LeaderContext<V, K>) => Promise<T> | T,
  options: LeaderOptions<V> = {},
): Promise<T> {
  const { signal } = options;
  const throwIfAborted = (): void => {
    if (signal?.aborted === true) throw canceledError(signal);
  };
  for (;;) {
    throwIfAborted();
    try {
      return await lead(client, name, fn, options);
    } catch (error) {
      if (error instanceof FnError) throw error.cause;
      throwIfAborted();
      if (client.closed || !mayRecover(error)) throw error;
    }
    await pause(client.clock, CAMPAIGN_PAUSE_MS, signal);
  }
}

/** Lost, or never won because the cluster was away. */
function mayRecover(error: unknown): boolean {
  if (!EtcdError.is(error)) return false;
  if (error.reason === "lock-lost" || error.reason === "lease-lost" || error.reason === "lease-not-found") return true;
  return error.grpcCode === GrpcCode.Unavailable || error.grpcCode === GrpcCode.DeadlineExceeded;
}

/** Tells what the program's function threw from what happened around it. */
class FnError extends Error {}

async function lead<V, K, T>(
  client: EtcdClient<V, K>,
  name: string,
  fn: (leader: LeaderContext<V, K>) => Promise<T> | T,
  options: LeaderOptions<V>,
): Promise<T> {
  const { value = new Uint8Array(0), signal, ttlSeconds } = options;
  const session = await openSession(client, { signal, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) });
  try {
    const leadership = await session.election(name).campaign(value, { signal });
    const stop = linked(leadership.signal, signal);
    try {
      const result = await fn({
        token: leadership.token,
        signal: stop.signal,
        txn: () => leadership.txn(),
        proclaim: (next) => leadership.proclaim(next),
      });
      if (stop.signal.aborted) throw new LockLostError({ key: leadership.key });
      return result;
    } catch (error) {
      // What it throws on being asked to stop is its way of stopping.
      if (stop.signal.aborted) throw new LockLostError({ key: leadership.key }, { cause: error });
      throw new FnError("", { cause: error });
    } finally {
      stop.done();
      await leadership.resign();
    }
  } finally {
    await session.close().catch((error: unknown) => {
      // The lease ends by itself.
      if (!EtcdError.is(error)) throw error;
    });
  }
}
