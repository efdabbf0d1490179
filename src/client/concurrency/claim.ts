/**
 * What locks and elections are made of: a key that hangs on the session's lease, in a line with the keys of others. Who has the lowest create revision is first.
 * The create revision is also the fencing token: it grows from holder to holder.
 */
import { equalBytes } from "../../base/bytes.ts";
import { EtcdError } from "../../base/errors.ts";
import { type CallOptions, Deadline, unlessAborted } from "../deadline.ts";
import { type AnyTxnResult, type Compare, compare, type Op, op, TxnBuilder } from "../txn.ts";
import { LockLostError } from "./errors.ts";
import type { Session, WaitOptions } from "./session.ts";

const EMPTY = new Uint8Array(0);

/** Where a claim stands in line. */
interface Line {
  readonly key: string;
  /** Keys with this prefix that were created before are ahead of it. */
  readonly ahead: string;
}

export interface ClaimOptions extends Line {
  readonly value?: Uint8Array | undefined;
}

/** A place in a line, from its creation to its release. */
export class Claim<V, K> {
  readonly key: string;
  /** Create revision of the key. */
  readonly token: number;
  readonly #session: Session<V, K>;
  readonly #ended = new AbortController();
  readonly #forget: () => void;
  #leave: (() => void) | undefined;
  #released: Promise<void> | undefined;
  /** Given back together with its last writes. */
  #finished = false;

  constructor(session: Session<V, K>, key: string, token: number, leave: () => void) {
    this.#session = session;
    this.key = key;
    this.token = token;
    this.#leave = leave;
    this.#forget = session.over.onEnd((cause) => this.#end(cause));
    if (session.over.error !== undefined) this.#end(session.over.error);
  }

  /** Aborted when the claim may be lost, with a {@link LockLostError}, and when it is released. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  get released(): boolean {
    return this.#released !== undefined;
  }

  /** It was held until it was given back together with its last writes. */
  get finished(): boolean {
    return this.#finished;
  }

  /** True while this claim, and no other, is first: the condition of every guarded write. */
  get guard(): Compare<never, never> {
    return compare.createRevision(this.key, "=", this.token);
  }

  /** @throws LockLostError by this process's own clock; the cluster may know better */
  throwIfLost(): void {
    if (this.signal.aborted) throw this.signal.reason;
    try {
      this.#session.lease.throwIfLost();
    } catch (error) {
      throw new LockLostError({ key: this.key }, { cause: error });
    }
  }

  /** A transaction that does nothing, and rejects with {@link LockLostError}, unless this claim is still there. */
  txn(): TxnBuilder<V, K> {
    const { client } = this.#session;
    return new TxnBuilder<V, K>(
      async (conditions, success, failure, options) => {
        if (this.released) throw new LockLostError({ key: this.key });
        const inner = op.txn({ if: conditions as Compare[], do: success as Op[], else: failure as Op[] });
        const outer = await client.txn().if(this.guard).do(inner).commit(options);
        if (!outer.succeeded) throw this.#lost();
        return { ...outer.results[0], revision: outer.revision, header: outer.header } as unknown as AnyTxnResult<V, K>;
      },
      [],
      [],
      [],
    );
  }

  /** True: it was there until now. False: it had been lost before. Never rejects; goes on in the background if it must. */
  async release(options?: WaitOptions): Promise<boolean> {
    const { raw, over, client } = this.#session;
    if (this.#released !== undefined) return false;
    if (over.over) {
      this.#leaving(Promise.resolve());
      return false;
    }
    // Not repeated by the client: that the key was gone the second time would not tell who deleted it.
    const releasing = raw.txn().if(this.guard).do(op.delete(this.key)).commit(options);
    this.#leaving(releasing);
    try {
      return (await releasing).succeeded;
    } catch (error) {
      if (!EtcdError.is(error)) throw error;
      return !over.over && !client.closed;
    }
  }

  /**
   * Does `ops` and gives the claim back, in one transaction.
   * @throws LockLostError: nothing was done; anything else: `ops` may have been done, and the claim is given back in any case
   */
  async finish(ops: readonly Op<V, K>[], options: CallOptions | undefined): Promise<AnyTxnResult<V, K>> {
    if (this.released) throw new LockLostError({ key: this.key });
    const { client } = this.#session;
    const finishing = client
      .txn()
      .if(this.guard)
      .do(op.delete(this.key), ...ops)
      .commit(options);
    this.#leaving(finishing);
    const result = (await finishing) as AnyTxnResult<V, K>;
    if (!result.succeeded) throw new LockLostError({ key: this.key });
    this.#finished = true;
    return { ...result, results: result.results.slice(1) } as AnyTxnResult<V, K>;
  }

  /** The request that deletes the key is on its way. */
  #leaving(request: Promise<unknown>): void {
    const { leaving, over } = this.#session;
    this.#released = request.then(
      () => undefined,
      () => (over.over ? undefined : this.#session.discard(this.key, this.token)),
    );
    const entry = { token: this.token, gone: this.#released };
    leaving.set(this.key, entry);
    const forget = (): void => {
      if (leaving.get(this.key) === entry) leaving.delete(this.key);
    };
    entry.gone.then(forget, forget);
    this.#end(undefined);
    // The next caller of this process may ask for the same key now: the two requests travel together, and share what the cluster does for them.
    this.#leave?.();
    this.#leave = undefined;
  }

  #lost(): LockLostError {
    const error = new LockLostError({ key: this.key });
    this.#end(error);
    return error;
  }

  #end(cause: unknown): void {
    if (this.signal.aborted) return;
    this.#forget?.();
    const lost = cause instanceof LockLostError ? cause : new LockLostError({ key: this.key }, { cause });
    this.#ended.abort(lost);
  }
}

/**
 * Takes a place in line and waits until nobody is ahead. If the wait ends early, the place is given up: no key stays behind.
 * @throws `canceled`, `deadline-exceeded`, `lease-lost`, LockLostError (the key was deleted while it waited)
 */
export async function claim<V, K>(session: Session<V, K>, options: ClaimOptions, wait: WaitOptions | undefined): Promise<Claim<V, K>> {
  return (await take(session, options, wait, true)) as Claim<V, K>;
}

/** The same, without waiting for others: undefined when somebody is ahead. */
export function tryClaim<V, K>(
  session: Session<V, K>,
  options: ClaimOptions,
  wait: WaitOptions | undefined,
): Promise<Claim<V, K> | undefined> {
  return take(session, options, wait, false);
}

async function take<V, K>(
  session: Session<V, K>,
  { key, ahead, value = EMPTY }: ClaimOptions,
  wait: WaitOptions | undefined,
  patient: boolean,
): Promise<Claim<V, K> | undefined> {
  const deadline = new Deadline(session.client.clock, wait?.timeoutMs ?? 0, wait?.signal, session.over);
  let leave: (() => void) | undefined;
  let token: number | undefined;
  try {
    deadline.throwIfOver();
    leave = await session.turns.take(key, deadline.signal);
    let first = await create(session, key, ahead, value, deadline.signal);
    while (first === undefined) {
      // It came before the one that was to delete the old key.
      await unlessAborted(session.leaving.get(key)?.gone ?? Promise.resolve(), deadline.signal);
      first = await create(session, key, ahead, value, deadline.signal);
    }
    token = first.token;
    if (!first.isFirst) {
      if (!patient) {
        giveUp(session, key, token, leave);
        return undefined;
      }
      await untilFirst(session, { key, ahead }, token, deadline.signal);
    }
    return new Claim(session, key, token, leave);
  } catch (error) {
    if (leave !== undefined) giveUp(session, key, token, leave);
    throw deadline.error ?? error;
  } finally {
    deadline.done();
  }
}

/** In the background: who gave up does not wait for it. The turn is passed on when the key is gone. */
function giveUp<V, K>(session: Session<V, K>, key: string, token: number | undefined, leave: () => void): void {
  void session.discard(key, token).then(leave, leave);
}

/**
 * Doing this twice is as good as once, so it may be repeated until the answer comes.
 * @returns undefined: there is still the key of an earlier claim of this session, which is being given back
 */
async function create<V, K>(
  session: Session<V, K>,
  key: string,
  ahead: string,
  value: Uint8Array,
  signal: AbortSignal,
): Promise<{ token: number; isFirst: boolean } | undefined> {
  const old = session.leaving.get(key);
  const oldest = op.range(ahead, { prefix: true, sort: { by: "createRevision" }, limit: 1 });
  const result = await session.raw
    .txn()
    .if(compare.absent(key))
    .do(op.put(key, value, { lease: session.lease.id }), oldest)
    .else(op.get(key), oldest)
    .commit({ retry: "always", signal });
  // Not created now: an attempt before this one did, or another process that shares the lease; its last word counts.
  const present = result.succeeded ? undefined : result.results[0];
  const own = result.succeeded ? result.revision : present?.createRevision;
  if (own === undefined) throw new LockLostError({ key });
  if (own === old?.token) return undefined;
  if (present !== undefined && !equalBytes(present.value, value)) {
    await session.raw
      .txn()
      .if(compare.createRevision(key, "=", own))
      .do(op.put(key, value, { lease: session.lease.id }))
      .commit({ retry: "always", signal });
  }
  const first = result.results[1].kvs[0];
  return { token: own, isFirst: first === undefined || first.createRevision >= own };
}

/** Waits for the one just ahead, then looks again: so a release wakes one waiter, not all. */
async function untilFirst<V, K>(session: Session<V, K>, { key, ahead }: Line, token: number, signal: AbortSignal): Promise<void> {
  const { raw } = session;
  const older = { prefix: true, maxCreateRevision: token - 1, sort: { by: "createRevision", order: "descending" }, limit: 1 } as const;
  for (;;) {
    // In one reading: that nobody is ahead counts only if the own key is still there (the lease may have ended while it waited).
    const { results, revision } = await raw.txn().do(op.get(key), op.range(ahead, older)).commit({ signal });
    const [own, others] = results as readonly [{ createRevision: number } | undefined, { kvs: readonly { key: Uint8Array }[] }];
    if (own?.createRevision !== token) throw new LockLostError({ key });
    const next = others.kvs[0];
    if (next === undefined) return;
    await untilDeleted(session, next.key, revision + 1, signal);
  }
}

/** Resolves when the key is deleted at or after `fromRevision`, or when that cannot be told any more: look again. */
export async function untilDeleted<V, K>(
  session: Pick<Session<V, K>, "raw">,
  key: Uint8Array | string,
  fromRevision: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const watch = session.raw.watch(key, { fromRevision, only: "deletes", signal });
  try {
    await watch.next();
  } catch (error) {
    if (!EtcdError.is(error) || error.reason !== "compacted") throw error;
  } finally {
    watch.close();
  }
}
