/** Many readers or one writer, by the keys of etcd's own recipe: `name/read/<nanoseconds>`, `name/write/<nanoseconds>`. */
import { type Claim, claim } from "./claim.ts";
import { HeldLock } from "./mutex.ts";
import type { Session, WaitOptions } from "./session.ts";
import { uniqueNanos } from "./unique-key.ts";

/**
 * A reader waits for the writers that asked before it, a writer for everybody. A lock may be held several times by one session; so one that holds it as reader
 * and asks for it as writer waits for itself, forever.
 */
export class RwMutex<V = string, K = string> {
  readonly name: string;
  readonly #session: Session<V, K>;

  /** Use `session.rwMutex(name)`. */
  constructor(session: Session<V, K>, name: string) {
    this.#session = session;
    this.name = name;
  }

  /** @throws as `Mutex.lock` */
  async readLock(options?: WaitOptions): Promise<HeldLock<V, K>> {
    return new HeldLock(await this.#claim("read", `${this.name}/write`, options));
  }

  /** @throws as `Mutex.lock` */
  async writeLock(options?: WaitOptions): Promise<HeldLock<V, K>> {
    return new HeldLock(await this.#claim("write", `${this.name}/`, options));
  }

  #claim(kind: "read" | "write", ahead: string, options: WaitOptions | undefined): Promise<Claim<V, K>> {
    const key = `${this.name}/${kind}/${uniqueNanos(this.#session.client.clock)}`;
    return claim(this.#session, { key, ahead }, options);
  }
}
