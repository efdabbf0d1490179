import type { RequestId } from "../base/ids.ts";
import type { Random } from "../base/random.ts";

const LOW_BITS = 48;
const LOW_MAX = 2 ** LOW_BITS;

/**
 * Unique ids for requests and generated leases: the low 16 bits of the member id on top, then a 48-bit counter that begins at a random number with every start.
 * What an earlier life put into the log is applied while this one already has requests of its own, and must never be taken for the answer to one of them. The
 * time of the start, which would also be unique on most machines, is not on one whose clock comes up with the same time at every boot, or was set back.
 */
export class RequestIdGenerator {
  readonly #prefix: bigint;
  #low: number;

  constructor(memberId: bigint, random: Random) {
    this.#prefix = (memberId & 0xffffn) << BigInt(LOW_BITS);
    this.#low = Number(random.bits64() & (BigInt(LOW_MAX) - 1n));
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
