/** A barrier, by the key of etcd's own recipe: it is up while the key exists. */
import type { EtcdClient } from "../client.ts";
import { type CallOptions, Deadline } from "../deadline.ts";
import { compare, op } from "../txn.ts";
import { untilDeleted } from "./claim.ts";
import { BarrierHeldError } from "./errors.ts";
import type { WaitOptions } from "./session.ts";

/** Who waits is let through when the barrier is released, by anybody. It outlives who put it up: nothing releases it by itself. */
export class Barrier {
  readonly name: string;
  readonly #client: EtcdClient<Uint8Array, Uint8Array>;

  constructor(client: Pick<EtcdClient, "raw">, name: string) {
    this.#client = client.raw();
    this.name = name;
  }

  /** Puts it up. @throws BarrierHeldError if it is up already */
  async hold(options?: CallOptions): Promise<void> {
    const { succeeded } = await this.#client
      .txn()
      .if(compare.version(this.name, "=", 0))
      .do(op.put(this.name, new Uint8Array(0)))
      .commit(options);
    if (!succeeded) throw new BarrierHeldError(this.name);
  }

  /** Lets everybody through. */
  async release(options?: CallOptions): Promise<void> {
    await this.#client.delete(this.name, { retry: "always", ...options });
  }

  /** Resolves when it is not up. @throws `canceled`, `deadline-exceeded` */
  async wait(options?: WaitOptions): Promise<void> {
    const deadline = new Deadline(this.#client.clock, options?.timeoutMs ?? 0, options?.signal);
    try {
      for (;;) {
        const { kvs, revision } = await this.#client.range(this.name, { signal: deadline.signal });
        if (kvs.length === 0) return;
        await untilDeleted({ raw: this.#client }, this.name, revision + 1, deadline.signal);
      }
    } catch (error) {
      throw deadline.error ?? error;
    } finally {
      deadline.done();
    }
  }
}
