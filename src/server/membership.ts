/**
 * Who belongs to the cluster: the one store of membership (failure catalogue BM5, BM6), changed only by applied entries and written in the same batch as
 * everything else. Removed ids are kept for good, so that they can never come back.
 */
import { Member } from "../api/index.ts";
import { rpcError } from "../api/rpc-errors.ts";
import { type BackendBatch, RowSpace } from "../backend/index.ts";
import { assert } from "../base/assert.ts";
import { concatBytes, EMPTY_BYTES } from "../base/bytes.ts";
import type { EtcdError } from "../base/errors.ts";
import { hexId, type MemberId } from "../base/ids.ts";
import { openRow, sealRow } from "./checked-row.ts";

export interface MemberRecord {
  readonly id: MemberId;
  /** Empty until the member has started and published itself. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
}

const ACTIVE = 0x61; // "a"
const REMOVED = 0x72; // "r"

function rowKey(kind: number, id: MemberId): Uint8Array {
  const bytes = new Uint8Array(10);
  bytes[0] = RowSpace.member;
  bytes[1] = kind;
  new DataView(bytes.buffer).setBigUint64(2, id);
  return bytes;
}

export const MEMBER_ROWS = { gte: new Uint8Array([RowSpace.member]), lt: new Uint8Array([RowSpace.member + 1]) } as const;

function encodeRecord(record: MemberRecord): Uint8Array {
  return Member.encode(toMessage(record));
}

export function toMessage(record: MemberRecord): Member {
  return Member.create({
    id: record.id,
    name: record.name,
    peerUrls: [...record.peerUrls],
    clientUrls: [...record.clientUrls],
    isLearner: record.isLearner,
  });
}

function fromMessage(message: Member): MemberRecord {
  return {
    id: message.id as MemberId,
    name: message.name,
    peerUrls: message.peerUrls,
    clientUrls: message.clientUrls,
    isLearner: message.isLearner,
  };
}

/** What a conf-change entry carries beside raft's own steps. */
export interface MemberChange {
  readonly action: "add" | "promote" | "update" | "remove";
  /** The new record of an add; for the others only the named fields count (id; peer URLs of an update). */
  readonly member: MemberRecord;
  /** Id of the request, for its waiter; 0n when nobody waits (bootstrap). */
  readonly requestId: bigint;
}

const ACTIONS = ["add", "promote", "update", "remove"] as const;

/** Byte 0: the action's number; bytes 1-8: request id; the rest: a Member message. */
export function encodeMemberChange(change: MemberChange): Uint8Array {
  const head = new Uint8Array(9);
  head[0] = ACTIONS.indexOf(change.action);
  new DataView(head.buffer).setBigUint64(1, BigInt.asUintN(64, change.requestId));
  return concatBytes([head, encodeRecord(change.member)]);
}

/** Undefined for bytes that are none. */
export function decodeMemberChange(bytes: Uint8Array): MemberChange | undefined {
  const action = ACTIONS[bytes[0] ?? -1];
  if (action === undefined || bytes.byteLength < 9) return undefined;
  const requestId = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(1);
  return { action, requestId, member: fromMessage(Member.decode(bytes.subarray(9))) };
}

export class Membership {
  readonly #members = new Map<MemberId, MemberRecord>();
  readonly #removed = new Set<MemberId>();
  readonly #learnersMax: number;

  constructor(options: { learnersMax: number }) {
    this.#learnersMax = options.learnersMax;
  }

  /** Rows below {@link MEMBER_ROWS}. @throws BackendBrokenError when one is not what was written. */
  load(rows: Iterable<readonly [Uint8Array, Uint8Array]>): void {
    for (const [key, value] of rows) {
      const id = new DataView(key.buffer, key.byteOffset, key.byteLength).getBigUint64(2) as MemberId;
      if (key[1] === REMOVED) {
        this.#removed.add(id);
        openRow(key, value, `the row of the removed member ${hexId(id)}`);
      } else {
        assert(key[1] === ACTIVE, "a member row is active or removed", { kind: key[1] });
        this.#members.set(id, fromMessage(Member.decode(openRow(key, value, `the row of member ${hexId(id)}`))));
      }
    }
  }

  /** Independent of this one. */
  copy(): Membership {
    const copy = new Membership({ learnersMax: this.#learnersMax });
    for (const [id, member] of this.#members) copy.#members.set(id, member);
    for (const id of this.#removed) copy.#removed.add(id);
    return copy;
  }

  get(id: MemberId): MemberRecord | undefined {
    return this.#members.get(id);
  }

  isRemoved(id: MemberId): boolean {
    return this.#removed.has(id);
  }

  /** Ascending by id. */
  list(): MemberRecord[] {
    return [...this.#members.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  }

  removedIds(): MemberId[] {
    return [...this.#removed].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  }

  get size(): number {
    return this.#members.size;
  }

  voters(): MemberRecord[] {
    return this.list().filter((member) => !member.isLearner);
  }

  /** Why the change must be refused at this point of the log (api-semantics.md section 14), or undefined. */
  check(change: MemberChange): EtcdError | undefined {
    const { id } = change.member;
    const known = this.#members.get(id);
    switch (change.action) {
      case "add":
        if (this.#removed.has(id)) return rpcError("member-not-found");
        if (known !== undefined) return rpcError("member-exists");
        if (this.#urlTaken(change.member)) return rpcError("peer-url-exists");
        if (change.member.isLearner && this.list().filter((member) => member.isLearner).length >= this.#learnersMax) {
          return rpcError("too-many-learners");
        }
        return undefined;
      case "promote":
        if (known === undefined) return rpcError("member-not-found");
        return known.isLearner ? undefined : rpcError("member-not-learner");
      case "update":
        if (known === undefined) return rpcError("member-not-found");
        return this.#urlTaken(change.member) ? rpcError("peer-url-exists") : undefined;
      case "remove":
        return known === undefined ? rpcError("member-not-found") : undefined;
      default:
        return change.action satisfies never;
    }
  }

  /** Applies a checked change. Changes only the fields that the action names (failure catalogue BM7). */
  apply(change: MemberChange, batch: BackendBatch): void {
    const { id } = change.member;
    const known = this.#members.get(id);
    switch (change.action) {
      case "add":
        this.#put({ ...change.member, clientUrls: [...change.member.clientUrls] }, batch);
        return;
      case "promote":
        assert(known !== undefined, "a promoted member is known");
        this.#put({ ...known, isLearner: false }, batch);
        return;
      case "update":
        assert(known !== undefined, "an updated member is known");
        this.#put({ ...known, peerUrls: change.member.peerUrls }, batch);
        return;
      case "remove":
        this.#members.delete(id);
        this.#removed.add(id);
        batch.delete(rowKey(ACTIVE, id));
        batch.put(rowKey(REMOVED, id), sealRow(rowKey(REMOVED, id), EMPTY_BYTES));
        return;
      default:
        change.action satisfies never;
    }
  }

  /** A member publishes its name and client URLs. Unknown (removed meanwhile) ids are ignored. */
  setAttributes(id: MemberId, attributes: { name: string; clientUrls: readonly string[] }, batch: BackendBatch): void {
    const known = this.#members.get(id);
    if (known === undefined) return;
    this.#put({ ...known, name: attributes.name, clientUrls: attributes.clientUrls }, batch);
  }

  #put(record: MemberRecord, batch: BackendBatch): void {
    this.#members.set(record.id, record);
    const key = rowKey(ACTIVE, record.id);
    batch.put(key, sealRow(key, encodeRecord(record)));
  }

  #urlTaken(candidate: MemberRecord): boolean {
    for (const member of this.#members.values()) {
      if (member.id !== candidate.id && member.peerUrls.some((url) => candidate.peerUrls.includes(url))) return true;
    }
    return false;
  }
}
