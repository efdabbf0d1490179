import type { RequestId } from "../base/ids.ts";

const LOW_BITS = 48;
const LOW_MAX = 2 ** LOW_BITS;

/**
 * Unique ids for requests and generated leases (cluster-behaviour.md section 9): the low 16 bits of the member id on top, then 40 bits of the start
 * time in milliseconds and an 8-bit counter, incremented together so that a long-lived member runs into the time part, which is
 * intended. Two starts of one member less than 1/256 ms apart per request made would collide; the clock makes that impossible in practice.
 */
export class RequestIdGenerator {
  readonly #prefix: bigint;
  #low: number;

  constructor(memberId: bigint, wallMs: number) {
    this.#prefix = (memberId & 0xffffn) << BigInt(LOW_BITS);
    this.#low = (Math.floor(wallMs) % 2 ** 40) * 256;
  }

  next(): RequestId {
    this.#low = (this.#low + 1) % LOW_MAX;
    return (this.#prefix | BigInt(this.#low)) as RequestId;
  }

  /** A positive 63-bit id, for leases whose id the server picks. */
  nextPositive(): bigint {
    return this.next() & 0x7fffffffffffffffn;
  }
}
