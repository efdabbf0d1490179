/** Mutual exclusion, by the keys of etcd's own recipe: Go programs and the Lock service of the API contend for the same locks. */
import { rpcError } from "../../api/index.ts";
import type { EtcdClient } from "../client.ts";
import { type CallOptions, linked } from "../deadline.ts";
import type { Op, TxnBuilder } from "../txn.ts";
import { type Claim, claim, tryClaim } from "./claim.ts";
import { LockLostError } from "./errors.ts";
import { openSession, type Session, type SessionOptions, type WaitOptions } from "./session.ts";

/** What the holder of a lock works with. */
export interface LockContext<V = string, K = string> {
  /** Grows from holder to holder: hand it to whatever checks that nobody acts on an older one. */
  readonly token: number;
  /** Aborted before the cluster can give the lock to somebody else. Stop then. */
  readonly signal: AbortSignal;
  /** A transaction that takes place only if the lock is still held, else rejects with {@link LockLostError}. */
  readonly txn: () => TxnBuilder<V, K>;
  /** See {@link HeldLock.finish}. */
  readonly finish: HeldLock<V, K>["finish"];
}

/**
 * A lock among all clients of the cluster: key `name/<lease>`, the oldest one holds.
 *
 * No lock of any distributed system stops a holder whose process was suspended, or whose clock was wrong, from acting after somebody else got the lock. What is
 * written through `txn()` is safe from that; whatever lies outside of the cluster must compare the `token`.
 *
 * Callers of one session take turns; the order among sessions is that of their asking.
 */
export class Mutex<V = string, K = string> {
  readonly name: string;
  readonly #session: Session<V, K>;

  /** Use `session.mutex(name)`. */
  constructor(session: Session<V, K>, name: string) {
    this.#session = session;
    this.name = name;
  }

  /**
   * Waits until the lock is held.
   * @throws `canceled`, `deadline-exceeded`, `lease-lost`, {@link LockLostError}; then nothing stays behind
   */
  async lock(options?: WaitOptions): Promise<HeldLock<V, K>> {
    return new HeldLock(await claim(this.#session, this.#place, options));
  }

  /** The lock if it is free, else undefined. */
  async tryLock(options?: WaitOptions): Promise<HeldLock<V, K> | undefined> {
    const held = await tryClaim(this.#session, this.#place, options);
    return held === undefined ? undefined : new HeldLock(held);
  }

  /**
   * Runs `fn` while holding the lock, and releases it when `fn` is done or has thrown. Rejects with what `fn` throws; with {@link LockLostError} if the lock was
   * lost before `fn` was done, even if `fn` did not notice. It waits for `fn` in any case: nobody can stop a function, but `signal` asks it to.
   */
  async run<T>(fn: (lock: LockContext<V, K>) => Promise<T> | T, options?: WaitOptions): Promise<T> {
    const held = await this.lock(options);
    const stop = linked(held.signal, options?.signal);
    let result: T;
    try {
      result = await fn({ token: held.token, signal: stop.signal, txn: () => held.txn(), finish: (...ops) => held.finish(...ops) });
    } catch (error) {
      await held.release();
      throw error;
    } finally {
      stop.done();
    }
    if (held.finished) return result;
    const lostBefore = held.signal.aborted;
    const heldUntilNow = await held.release();
    if (lostBefore || !heldUntilNow) throw new LockLostError({ key: held.key });
    return result;
  }

  get #place(): { key: string; ahead: string } {
    const ahead = `${this.name}/`;
    return { key: ahead + this.#session.suffix, ahead };
  }
}

/** A lock in hand. Unlock it, or use `await using`. */
export class HeldLock<V = string, K = string> {
  readonly #claim: Claim<V, K>;

  /** Use `mutex.lock()`. */
  constructor(held: Claim<V, K>) {
    this.#claim = held;
  }

  /** The key whose existence is the lock. */
  get key(): string {
    return this.#claim.key;
  }

  /** See {@link LockContext.token}. */
  get token(): number {
    return this.#claim.token;
  }

  /** See {@link LockContext.signal}. Also aborted when the lock is released. */
  get signal(): AbortSignal {
    return this.#claim.signal;
  }

  /** See {@link LockContext.txn}. */
  txn(): TxnBuilder<V, K> {
    return this.#claim.txn();
  }

  /** @throws LockLostError by this process's own clock, which knows nothing of keys that somebody deleted */
  throwIfLost(): void {
    this.#claim.throwIfLost();
  }

  /**
   * The last writes under the lock, which give it back at the same revision: one round to the disks instead of two. Nothing is written if the lock is lost.
   * @throws LockLostError; with any other error the writes may have taken place (see `mayHaveHappened`), and the lock is given back all the same
   */
  async finish(...ops: readonly Op<V, K>[]): Promise<{ readonly revision: number }> {
    const { revision } = await this.#claim.finish(ops, undefined);
    return { revision };
  }

  /** It was held until {@link finish} gave it back. */
  get finished(): boolean {
    return this.#claim.finished;
  }

  /**
   * Gives the lock back. If the cluster cannot be reached, that goes on in the background.
   * @throws RpcError `mutex-lock-released` the second time; {@link LockLostError} if it had been lost before
   */
  async unlock(options?: WaitOptions): Promise<void> {
    if (this.#claim.released) throw rpcError("mutex-lock-released");
    if (!(await this.#claim.release(options))) throw new LockLostError({ key: this.key });
  }

  /** The same without complaints: true if it was held until now. */
  release(options?: WaitOptions): Promise<boolean> {
    return this.#claim.release(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }
}

/**
 * Runs `fn` while holding the lock `name`, with a session of its own: see {@link Mutex.run}. Programs that lock often open one session and use
 * `session.withLock`, which saves the lease.
 */
export async function withLock<V, K, T>(
  client: EtcdClient<V, K>,
  name: string,
  fn: (lock: LockContext<V, K>) => Promise<T> | T,
  options: WaitOptions & Pick<SessionOptions, "ttlSeconds"> = {},
): Promise<T> {
  const { ttlSeconds, ...wait } = options;
  const opening: CallOptions & SessionOptions = { ...wait, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) };
  const session = await openSession(client, opening);
  try {
    return await session.withLock(name, fn, wait);
  } finally {
    await session.close();
  }
}
