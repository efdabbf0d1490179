/** A lease that is kept alive, and what hangs on it: locks, elections, barriers. When the process goes, all of it goes after the lease's TTL. */
import { EtcdError } from "../../base/errors.ts";
import type { EtcdClient } from "../client.ts";
import { hexLease } from "../coding.ts";
import { type CallOptions, pause } from "../deadline.ts";
import { Ending } from "../ending.ts";
import type { Lease } from "../lease.ts";
import { compare, op } from "../txn.ts";
import { DoubleBarrier } from "./double-barrier.ts";
import { Election } from "./election.ts";
import { type LockContext, Mutex } from "./mutex.ts";
import { RwMutex } from "./rw-mutex.ts";
import { Turns } from "./turns.ts";

export interface SessionOptions extends CallOptions {
  /** How long what hangs on the session outlives the process. Default 60, as in etcd's own recipes; the cluster raises it to its minimum. */
  readonly ttlSeconds?: number | undefined;
  /** A lease that exists already, instead of a new one. */
  readonly lease?: bigint | undefined;
}

/** For calls that wait for others. Without a deadline they wait as long as it takes. */
export type WaitOptions = Pick<CallOptions, "signal" | "timeoutMs">;

const TTL_SECONDS = 60;
const DISCARD_ATTEMPT_MS = 5000;
const DISCARD_PAUSE_MS = 250;

export class Session<V = string, K = string> {
  /** As it was given. */
  readonly client: EtcdClient<V, K>;
  /** For the recipes: bytes. */
  readonly raw: EtcdClient<Uint8Array, Uint8Array>;
  readonly lease: Lease;
  /** Ends when the lease is lost, with the `LeaseLostError`. */
  readonly over = new Ending();
  /** Callers of this process that want the same key. */
  readonly turns = new Turns();
  /** Keys that are being given back: what is found under one with that create revision is the old one. */
  readonly leaving = new Map<string, { readonly token: number; readonly gone: Promise<void> }>();

  /** Use {@link openSession}. */
  constructor(client: EtcdClient<V, K>, lease: Lease) {
    this.client = client;
    this.raw = client.raw();
    this.lease = lease;
    const onLost = (): void => this.over.end(lease.lost.reason as EtcdError);
    lease.lost.addEventListener("abort", onLost, { once: true });
    if (lease.lost.aborted) onLost();
  }

  /** Aborted before the cluster can end the lease, and when the session is closed. Its reason is a `LeaseLostError`. */
  get lost(): AbortSignal {
    return this.lease.lost;
  }

  /** What etcd's recipes append to a prefix to name the key of this session. */
  get suffix(): string {
    return hexLease(this.lease.id);
  }

  mutex(name: string): Mutex<V, K> {
    return new Mutex(this, name);
  }

  /** Runs `fn` while holding the lock `name`: see {@link Mutex.run}. */
  withLock<T>(name: string, fn: (lock: LockContext<V, K>) => Promise<T> | T, options?: WaitOptions): Promise<T> {
    return this.mutex(name).run(fn, options);
  }

  rwMutex(name: string): RwMutex<V, K> {
    return new RwMutex(this, name);
  }

  election(name: string): Election<V, K> {
    return new Election(this, name);
  }

  doubleBarrier(name: string, count: number): DoubleBarrier<V, K> {
    return new DoubleBarrier(this, name, count);
  }

  /** Gives the lease back: all locks and leaderships of the session end at once. Idempotent. */
  close(options?: CallOptions): Promise<void> {
    return this.lease.close(options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * For the recipes. Deletes a key of this session, unless it has been created anew; tries until it is certain. Resolves when it is gone, or when the session is
   * over and the cluster deletes it. Never rejects.
   * @param createRevision undefined: whatever it is, if it hangs on this session's lease
   */
  async discard(key: string, createRevision: number | undefined): Promise<void> {
    const own = createRevision === undefined ? compare.lease(key, "=", this.lease.id) : compare.createRevision(key, "=", createRevision);
    while (!this.over.over && !this.client.closed) {
      try {
        await this.raw.txn().if(own).do(op.delete(key)).commit({ retry: "always", timeoutMs: DISCARD_ATTEMPT_MS });
        return;
      } catch (error) {
        if (!EtcdError.is(error)) throw error;
      }
      try {
        await pause(this.client.clock, DISCARD_PAUSE_MS, this.lost);
      } catch {
        return; // The session is over.
      }
    }
  }
}

/** Grants a lease, keeps it alive, and gives what hangs on leases. Close it when done. */
export async function openSession<V, K>(client: EtcdClient<V, K>, options: SessionOptions = {}): Promise<Session<V, K>> {
  const { ttlSeconds = TTL_SECONDS, lease, ...call } = options;
  return new Session(
    client,
    lease === undefined ? await client.leases.open({ ...call, ttlSeconds }) : await client.leases.adopt(lease, call),
  );
}
