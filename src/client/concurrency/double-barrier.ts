/** A double barrier, by the keys of etcd's own recipe: `name/waiters/<nanoseconds>` for who is inside, `name/ready` once all have come. */
import { EtcdError } from "../../base/errors.ts";
import { Deadline } from "../deadline.ts";
import { InvalidUseError } from "../errors.ts";
import { compare, op } from "../txn.ts";
import { untilDeleted } from "./claim.ts";
import { LockLostError, TooManyClientsError } from "./errors.ts";
import type { Session, WaitOptions } from "./session.ts";
import { uniqueNanos } from "./unique-key.ts";

/**
 * A number of participants begin together and end together. Each has a session, on which its place hangs: who dies lets the others go on leaving (though not
 * entering: those wait until there are enough).
 */
export class DoubleBarrier<V = string, K = string> {
  readonly name: string;
  readonly count: number;
  readonly #session: Session<V, K>;
  #own: { readonly key: string; readonly revision: number } | undefined;

  /** Use `session.doubleBarrier(name, count)`. */
  constructor(session: Session<V, K>, name: string, count: number) {
    if (!Number.isInteger(count) || count < 1) throw new InvalidUseError(`a double barrier needs at least one participant, not ${count}`);
    this.#session = session;
    this.name = name;
    this.count = count;
  }

  /**
   * Takes a place and waits until all have one. If the wait ends early the place is given up.
   * @throws TooManyClientsError, `canceled`, `deadline-exceeded`, `lease-lost`
   */
  async enter(options?: WaitOptions): Promise<void> {
    if (this.#own !== undefined) throw new InvalidUseError("this participant has entered already");
    const session = this.#session;
    const { raw } = session;
    const ready = `${this.name}/ready`;
    const key = `${this.name}/waiters/${uniqueNanos(session.client.clock)}`;
    const deadline = new Deadline(session.client.clock, options?.timeoutMs ?? 0, options?.signal, session.over);
    const { signal } = deadline;
    let revision: number | undefined;
    let taken = false;
    try {
      deadline.throwIfOver();
      if ((await this.#waiters(signal)).length >= this.count) throw new TooManyClientsError(this.name);
      taken = true;
      const put = await raw
        .txn()
        .if(compare.absent(key))
        .do(op.put(key, new Uint8Array(0), { lease: session.lease.id }))
        .else(op.get(key))
        .commit({ retry: "always", signal });
      revision = put.succeeded ? put.revision : put.results[0]?.createRevision;
      if (revision === undefined) throw new LockLostError({ key });
      const waiters = await this.#waiters(signal);
      const last = waiters[this.count - 1];
      if (last !== undefined && revision > last.createRevision) throw new TooManyClientsError(this.name);
      if (last?.createRevision === revision) await raw.put(ready, new Uint8Array(0), { retry: "always", signal });
      else await this.#untilReady(ready, revision, signal);
      this.#own = { key, revision };
    } catch (error) {
      if (taken) void session.discard(key, revision);
      throw deadline.error ?? error;
    } finally {
      deadline.done();
    }
  }

  /**
   * Gives the place back and waits until all others have, too.
   * @throws `canceled`, `deadline-exceeded`, `lease-lost`; the place may then be given back or not: call it again
   */
  async leave(options?: WaitOptions): Promise<void> {
    const own = this.#own;
    if (own === undefined) throw new InvalidUseError("this participant has not entered");
    const session = this.#session;
    const { raw } = session;
    const deadline = new Deadline(session.client.clock, options?.timeoutMs ?? 0, options?.signal, session.over);
    const { signal } = deadline;
    try {
      // A loop, not a recursion: there may be many participants.
      for (;;) {
        deadline.throwIfOver();
        const waiters = await this.#waiters(signal);
        const lowest = waiters[0];
        const highest = waiters.at(-1);
        if (lowest === undefined || highest === undefined) break;
        const isLowest = lowest.name === own.key;
        if (isLowest && waiters.length === 1) {
          await raw.delete(`${this.name}/ready`, { retry: "always", signal });
          await raw.delete(own.key, { retry: "always", signal });
          break;
        }
        // The first one waits for the last one, everybody else goes and waits for the first one: so all see each other leave, and who dies is not waited for.
        if (!isLowest) await raw.delete(own.key, { retry: "always", signal });
        const other = isLowest ? highest : lowest;
        await untilDeleted(session, other.name, other.revision + 1, signal);
      }
      this.#own = undefined;
    } catch (error) {
      throw deadline.error ?? error;
    } finally {
      deadline.done();
    }
  }

  /** In the order in which they entered. */
  async #waiters(signal: AbortSignal): Promise<{ name: string; createRevision: number; revision: number }[]> {
    const { keys, revision } = await this.#session.client.withTextKeys().keys(`${this.name}/waiters`, {
      prefix: true,
      sort: { by: "createRevision" },
      signal,
    });
    return keys.map(({ key, createRevision }) => ({ name: key, createRevision, revision }));
  }

  async #untilReady(ready: string, fromRevision: number, signal: AbortSignal): Promise<void> {
    const watch = this.#session.raw.watch(ready, { fromRevision, only: "puts", signal });
    try {
      await watch.next();
    } catch (error) {
      // That it was put up is known only as long as the history is: then it shows in the key itself, which stays until all have left.
      if (!EtcdError.is(error) || error.reason !== "compacted") throw error;
      const present = await this.#session.raw.range(ready, { signal });
      if (present.kvs.length === 0) await this.#untilReady(ready, present.revision + 1, signal);
    } finally {
      watch.close();
    }
  }
}
