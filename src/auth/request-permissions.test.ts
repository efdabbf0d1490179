/** Random requests and grants against a checker that knows nothing of intervals: it goes through all keys of a small world one by one. */
import { describe, expect, it } from "vitest";
import * as api from "../api/index.ts";
import type { BackendBatch } from "../backend/backend.ts";
import { bytesOfKey, EMPTY_BYTES, type KeyString, keyStringOf, latin1Bytes } from "../base/bytes.ts";
import { EtcdError } from "../base/errors.ts";
import type { LeaseId } from "../base/ids.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { AuthStore } from "./auth-store.ts";
import {
  type AttachedKeys,
  requireDeleteRange,
  requireLeaseRead,
  requireLeaseWrite,
  requirePut,
  requireRange,
  requireTxn,
} from "./request-permissions.ts";
import type { Rights } from "./rights.ts";

const EMPTY = EMPTY_BYTES;
/** Nothing is stored here. */
const batch: BackendBatch = { put() {}, delete() {}, operations: [], bytes: 0 };
const ZERO = Uint8Array.of(0);

/** Every key that can matter: what requests and grants name, and a neighbour behind each. "\xff\xff\xff" stands for all that is far away. */
const NAMES = ["\0", "a", "a\0", "ab", "b", "c", "ca", "d", "x"];
const WORLD = [...new Set([...NAMES, ...NAMES.flatMap((name) => [`${name}\0`, `${name}\0\0`]), "\xff\xff\xff"])].sort();

type Grant = { type: number; key: string; end: Uint8Array };

function inRange(one: string, key: string, end: Uint8Array): boolean {
  if (end.length === 0) return one === key;
  if (end.length === 1 && end[0] === 0) return one >= key;
  return key <= one && one < keyStringOf(end);
}

/** The naive checker. */
class Naive {
  readonly grants: readonly Grant[];
  readonly leases: ReadonlyMap<bigint, readonly string[]>;

  constructor(grants: readonly Grant[], leases: ReadonlyMap<bigint, readonly string[]>) {
    this.grants = grants;
    this.leases = leases;
  }

  allows(write: boolean, key: Uint8Array, end: Uint8Array): boolean {
    const name = keyStringOf(key);
    const types: number[] = [api.PermissionType.READWRITE, write ? api.PermissionType.WRITE : api.PermissionType.READ];
    const granted = (one: string): boolean => this.grants.some((grant) => types.includes(grant.type) && inRange(one, grant.key, grant.end));
    const asked = WORLD.filter((one) => inRange(one, name, end));
    // Nothing selected: as for the key itself.
    return asked.length === 0 ? granted(name) : asked.every(granted);
  }

  leaseKeys(write: boolean, id: bigint): boolean {
    return (this.leases.get(id) ?? []).every((key) => this.allows(write, latin1Bytes(key), EMPTY));
  }

  put(request: api.PutRequest): boolean {
    const { key } = request;
    return this.allows(true, key, EMPTY) && this.leaseKeys(true, request.lease) && (!request.prevKv || this.allows(false, key, EMPTY));
  }

  deleteRange({ key, rangeEnd, prevKv }: api.DeleteRangeRequest): boolean {
    return this.allows(true, key, rangeEnd) && (!prevKv || this.allows(false, key, rangeEnd));
  }

  txn(request: api.TxnRequest): boolean {
    if (!request.compare.every(({ key, rangeEnd }) => this.allows(false, key, rangeEnd))) return false;
    return [...request.success, ...request.failure].every((op) => {
      if (op.requestRange !== undefined) return this.allows(false, op.requestRange.key, op.requestRange.rangeEnd);
      if (op.requestPut !== undefined) return this.put(op.requestPut);
      if (op.requestDeleteRange !== undefined) return this.deleteRange(op.requestDeleteRange);
      return op.requestTxn === undefined || this.txn(op.requestTxn);
    });
  }
}

class Maker {
  readonly random: Random;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  one<T>(list: readonly T[]): T {
    return list[this.random.below(list.length)] as T;
  }

  coin(outOf = 2): boolean {
    return this.random.chance({ of: 1, outOf });
  }

  key(): Uint8Array {
    return latin1Bytes(this.one(NAMES));
  }

  end(): Uint8Array {
    return this.one([() => EMPTY, () => ZERO, () => this.key(), () => this.key()])();
  }

  list<T>(most: number, make: () => T): T[] {
    return Array.from({ length: this.random.below(most + 1) }, make);
  }

  put(): api.PutRequest {
    return api.PutRequest.create({ key: this.key(), lease: this.coin() ? 0n : BigInt(this.random.below(4)), prevKv: this.coin(3) });
  }

  deletion(): api.DeleteRangeRequest {
    return api.DeleteRangeRequest.create({ key: this.key(), rangeEnd: this.end(), prevKv: this.coin(3) });
  }

  txn(depth: number): api.TxnRequest {
    const op = (): api.RequestOp => {
      switch (this.random.below(depth > 0 ? 4 : 3)) {
        case 0:
          return api.RequestOp.create({ requestRange: api.RangeRequest.create({ key: this.key(), rangeEnd: this.end() }) });
        case 1:
          return api.RequestOp.create({ requestPut: this.put() });
        case 2:
          return api.RequestOp.create({ requestDeleteRange: this.deletion() });
        default:
          return api.RequestOp.create({ requestTxn: this.txn(depth - 1) });
      }
    };
    return api.TxnRequest.create({
      compare: this.list(1, () => api.Compare.create({ key: this.key(), rangeEnd: this.coin() ? EMPTY : this.end() })),
      success: this.list(2, op),
      failure: this.list(2, op),
    });
  }
}

function passes(check: () => void): boolean {
  try {
    check();
    return true;
  } catch (error) {
    if (EtcdError.is(error) && error.reason === "permission-denied") return false;
    throw error;
  }
}

describe("permissions of requests", () => {
  it("BA5, BA6: agree with a checker that looks at every key", () => {
    let allowed = 0;
    let total = 0;
    for (let seed = 1; seed <= 400; seed++) {
      const make = new Maker(seed);
      const store = AuthStore.open([]);
      store.addUser(api.AuthUserAddRequest.create({ name: "root" }), batch);
      store.addUser(api.AuthUserAddRequest.create({ name: "u" }), batch);
      store.grantRole("root", "root", batch);
      store.enable(batch);
      const grants: Grant[] = [];
      for (const role of ["r1", "r2"]) {
        store.addRole(role, batch);
        for (let n = make.random.below(5); n > 0; n--) {
          const perm = api.Permission.create({ permType: make.one([0, 1, 2, 2, 2, 7]), key: make.key(), rangeEnd: make.end() });
          const key = keyStringOf(perm.key);
          const open = perm.rangeEnd.length === 1 && perm.rangeEnd[0] === 0;
          if (perm.rangeEnd.length > 0 && !open && keyStringOf(perm.rangeEnd) <= key) continue;
          store.grantPermission(api.AuthRoleGrantPermissionRequest.create({ name: role, perm }), batch);
        }
        store.grantRole("u", role, batch);
        for (const { permType, key, rangeEnd } of store.permissionsOf(role))
          grants.push({ type: permType, key: keyStringOf(key), end: rangeEnd });
      }
      const attached = new Map<bigint, string[]>([
        [1n, make.list(2, () => make.one(NAMES))],
        [2n, make.list(1, () => make.one(NAMES))],
      ]);
      const leases: AttachedKeys = { attachedKeys: (id: LeaseId) => (attached.get(id) ?? []) as KeyString[] };
      const naive = new Naive(grants, attached);
      const rights: Rights = store.rightsOf("u", store.revision);
      const compare = (what: string, expected: boolean, check: () => void): void => {
        total += 1;
        if (expected) allowed += 1;
        expect(passes(check), `${what}, seed ${seed}`).toBe(expected);
      };
      for (let n = 0; n < 20; n++) {
        const [key, rangeEnd] = [make.key(), make.end()];
        compare("range", naive.allows(false, key, rangeEnd), () => requireRange(rights, { key, rangeEnd }));
        const put = make.put();
        compare("put", naive.put(put), () => requirePut(rights, put, leases));
        const deletion = make.deletion();
        compare("delete", naive.deleteRange(deletion), () => requireDeleteRange(rights, deletion));
        const txn = make.txn(3);
        compare("txn", naive.txn(txn), () => requireTxn(rights, txn, leases));
        const lease = BigInt(make.random.below(4)) as LeaseId;
        compare("lease write", naive.leaseKeys(true, lease), () => requireLeaseWrite(rights, lease, leases));
        compare("lease read", naive.leaseKeys(false, lease), () => requireLeaseRead(rights, lease, leases));
      }
    }
    // The comparison means something only if both answers are frequent.
    expect(allowed / total).toBeGreaterThan(0.25);
    expect(allowed / total).toBeLessThan(0.75);
  });

  it("are not asked for where authentication is off, or of root", () => {
    const store = AuthStore.open([]);
    const rights = store.rightsOf("", 0);
    const untouchable: AttachedKeys = {
      attachedKeys() {
        throw new Error("nothing is looked up");
      },
    };
    const put = api.PutRequest.create({ key: bytesOfKey("k" as KeyString), lease: 1n, prevKv: true });
    requirePut(rights, put, untouchable);
    requireTxn(rights, api.TxnRequest.create({ success: [api.RequestOp.create({ requestPut: put })] }), untouchable);
    expect(rights.unlimited).toBe(true);
  });

  it("are not needed for a transaction that touches nothing, not even a name", () => {
    const store = AuthStore.open([]);
    store.addUser(api.AuthUserAddRequest.create({ name: "root" }), batch);
    store.grantRole("root", "root", batch);
    store.enable(batch);
    const leases: AttachedKeys = { attachedKeys: () => [] };
    const inner = api.RequestOp.create({ requestTxn: api.TxnRequest.create() });
    requireTxn(store.rightsOf("", 0), api.TxnRequest.create({ success: [inner] }), leases);
    const range = api.RequestOp.create({ requestRange: api.RangeRequest.create({ key: latin1Bytes("a") }) });
    expect(() => requireTxn(store.rightsOf("", 0), api.TxnRequest.create({ success: [inner], failure: [range] }), leases)).toThrow(
      "user name is empty",
    );
  });
});
