/** Random requests for the store: few keys with awkward names, every option, sensible and odd numbers. */
import { Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest } from "../../src/api/index.ts";
import { EMPTY_BYTES } from "../../src/base/bytes.ts";
import type { Random } from "../../src/base/random.ts";

export function latin1(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "latin1"));
}

export interface RequestSettings {
  /** Names to choose from. */
  readonly keys: readonly string[];
  /** Lease ids; those in `leases` exist. */
  readonly leases: readonly bigint[];
  /** Also make what the reference dies of (an open-ended delete and a put of the same key in one transaction). */
  readonly fatalToReference: boolean;
}

/** Some keys, among them prefixes of each other and the ends of the order. */
export const AWKWARD_KEYS: readonly string[] = [
  ..."abcdefg",
  "a\0",
  "a\0\0",
  "a\xff",
  "ab",
  "abc",
  "abcdefgh",
  "abcdefgh1",
  "abcdefgh2",
  "abcdefgh2\0",
  "b\xfe",
  "b\xff\xff",
  "\0",
  "\0\0",
  "\x01",
  "\xff",
  "\xff\xff",
  "é",
  "key/0000001",
  "key/0000002",
  "key/0000010",
  "key/00000100",
  "key/1",
];

export class RequestMaker {
  readonly #random: Random;
  readonly #settings: RequestSettings;
  #value = 0;

  constructor(random: Random, settings: RequestSettings) {
    this.#random = random;
    this.#settings = settings;
  }

  #one<T>(of: readonly T[]): T {
    return of[this.#random.below(of.length)] as T;
  }

  #chance(of: number, outOf: number): boolean {
    return this.#random.chance({ of, outOf });
  }

  key(): string {
    return this.#one(this.#settings.keys);
  }

  #keyBytes(): Uint8Array {
    return this.#chance(1, 200) ? EMPTY_BYTES : latin1(this.key());
  }

  /** Every kind of end: none, another key (often below), open, a prefix end. */
  #end(): Uint8Array {
    const dice = this.#random.below(10);
    if (dice < 3) return EMPTY_BYTES;
    if (dice < 4) return latin1("\0");
    if (dice < 5) return latin1("\0\0");
    return latin1(this.key());
  }

  #revision(current: number): number {
    const dice = this.#random.below(20);
    if (dice < 9) return 0;
    if (dice < 10) return -this.#random.below(4);
    if (dice < 11) return current + this.#random.below(3);
    if (dice < 12) return this.#one([Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER, 1, 2]);
    return Math.max(0, current - this.#random.below(40));
  }

  range(current: number): RangeRequest {
    const bound = (): number => (this.#chance(1, 6) ? Math.max(-1, current - this.#random.below(60)) : 0);
    const sorted = this.#chance(1, 2);
    return RangeRequest.create({
      key: this.#keyBytes(),
      rangeEnd: this.#chance(1, 3) ? EMPTY_BYTES : this.#end(),
      limit: this.#chance(1, 2) ? 0 : this.#random.below(8) - 1,
      revision: this.#revision(current),
      sortOrder: sorted ? this.#random.below(this.#chance(1, 50) ? 5 : 3) : 0,
      sortTarget: sorted ? this.#random.below(this.#chance(1, 50) ? 7 : 5) : 0,
      serializable: this.#chance(1, 4),
      keysOnly: this.#chance(1, 4),
      countOnly: this.#chance(1, 8),
      minModRevision: bound(),
      maxModRevision: bound(),
      minCreateRevision: bound(),
      maxCreateRevision: bound(),
    });
  }

  put(): PutRequest {
    const ignoreValue = this.#chance(1, 10);
    const ignoreLease = this.#chance(1, 10);
    this.#value += 1;
    const size = this.#random.below(10);
    const value =
      size === 0 ? "" : size === 1 ? `${this.#value}`.repeat(100) : size < 5 ? this.#one(["x", "y", "\0", "\xff"]) : `v${this.#value}`;
    return PutRequest.create({
      key: this.#keyBytes(),
      value: ignoreValue && !this.#chance(1, 20) ? EMPTY_BYTES : latin1(value),
      lease: (ignoreLease && !this.#chance(1, 20)) || this.#chance(2, 3) ? 0n : this.#one(this.#settings.leases),
      prevKv: this.#chance(1, 3),
      ignoreValue,
      ignoreLease,
    });
  }

  deleteRange(): DeleteRangeRequest {
    return DeleteRangeRequest.create({
      key: this.#keyBytes(),
      rangeEnd: this.#chance(1, 2) ? EMPTY_BYTES : this.#end(),
      prevKv: this.#chance(1, 3),
    });
  }

  compare(current: number): Compare {
    const compare = Compare.create({
      result: this.#random.below(this.#chance(1, 20) ? 6 : 4),
      target: this.#random.below(this.#chance(1, 20) ? 7 : 5),
      key: this.#keyBytes(),
      rangeEnd: this.#chance(2, 3) ? EMPTY_BYTES : this.#end(),
    });
    const member = this.#chance(1, 10) ? this.#random.below(6) : compare.target;
    if (member === 0) compare.version = this.#random.below(4);
    if (member === 1) compare.createRevision = this.#chance(1, 2) ? 0 : Math.max(0, current - this.#random.below(30));
    if (member === 2) compare.modRevision = this.#chance(1, 3) ? 0 : Math.max(0, current - this.#random.below(30));
    if (member === 3) compare.value = latin1(this.#one(["x", "y", "\0", "\xff", ""]));
    if (member === 4) compare.lease = this.#one([0n, ...this.#settings.leases]);
    return compare;
  }

  txn(current: number, depth = 0): TxnRequest {
    const list = <T>(max: number, make: () => T): T[] => Array.from({ length: this.#random.below(max) }, make);
    return TxnRequest.create({
      compare: list(3, () => this.compare(current)),
      success: list(5, () => this.#op(current, depth)),
      failure: list(5, () => this.#op(current, depth)),
    });
  }

  #op(current: number, depth: number): RequestOp {
    const dice = this.#random.below(100);
    if (dice < 30) return RequestOp.create({ requestRange: this.range(current) });
    if (dice < 65) return RequestOp.create({ requestPut: this.put() });
    if (dice < 85 || depth >= 3) {
      const requestDeleteRange = this.deleteRange();
      const isOpen = requestDeleteRange.rangeEnd.length === 1 && requestDeleteRange.rangeEnd[0] === 0;
      if (isOpen && !this.#settings.fatalToReference) requestDeleteRange.rangeEnd = EMPTY_BYTES;
      return RequestOp.create({ requestDeleteRange });
    }
    if (dice < 99) return RequestOp.create({ requestTxn: this.txn(current, depth + 1) });
    return RequestOp.create({});
  }
}

/** True if the transaction only reads: it takes the read path. */
export function isReadOnly(request: TxnRequest): boolean {
  return [...request.success, ...request.failure].every((op) => op.requestRange !== undefined);
}
