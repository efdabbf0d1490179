/**
 * Raft messages and the other contents of peer frames as MessagePack records. The records' fields and numbers are fixed by the protocol
 * version and never negotiated inside the stream, so both sides decode without state. Layout: docs/FORMATS.md, "Peer frames".
 *
 * Encoding is msgpackr's; decoding is ours (see pack-reader.ts) and checks every type and range, so that a malformed message ends as
 * a {@link PeerFrameError} and never reaches raft (failure catalogue BR22, I14).
 */
import type * as Msgpackr from "msgpackr";
import { assert, unreachable } from "../../base/assert.ts";
import { utf8Bytes, utf8Text } from "../../base/bytes.ts";
import type { GrpcCode } from "../../base/errors.ts";
import { EtcdError } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import { requirePackage } from "../../base/require-system.ts";
import type { ConfState, Entry, EntryType, Message, SnapshotRequest } from "../../raft/index.ts";
import { errorFields, PeerFrameError } from "./errors.ts";
import { PackReader } from "./pack-reader.ts";
import type { PeerRequestKind, SnapshotInfo } from "./transport.ts";

/** Record numbers of protocol version 1. The number is the position in {@link RECORDS}. */
const Record = {
  voteRequest: 0,
  voteResponse: 1,
  appendRequest: 2,
  appendResponse: 3,
  heartbeat: 4,
  heartbeatResponse: 5,
  snapshot: 6,
  propose: 7,
  readIndexRequest: 8,
  readIndexResponse: 9,
  transferLeader: 10,
  timeoutNow: 11,
  request: 12,
  error: 13,
  snapshotOffer: 14,
} as const;

/** Field lists must differ from each other: msgpackr finds the record by them. Exported for tests. */
export const RECORDS: readonly (readonly string[])[] = [
  ["from", "to", "term", "pre", "lastIndex", "lastTerm", "commit", "commitTerm", "transfer"],
  ["from", "to", "term", "pre", "granted", "commit", "commitTerm"],
  ["from", "to", "term", "prevIndex", "prevTerm", "commit", "entries"],
  ["from", "to", "term", "rejected", "index", "hintIndex", "hintTerm"],
  ["from", "to", "term", "commit", "round"],
  ["from", "to", "term", "round"],
  ["from", "to", "term", "index", "indexTerm", "voters", "votersOutgoing", "learners", "learnersNext", "autoLeave"],
  ["from", "to", "term", "entries"],
  ["from", "to", "term", "context"],
  ["from", "to", "term", "context", "index"],
  ["from", "to", "term", "transferee"],
  ["from", "to", "term"],
  ["sequence", "kind", "body"],
  ["sequence", "code", "reason", "message"],
  ["id", "sizeBytes", "message"],
];

/** Loaded with the first message: a member that is alone sends none. */
let packr: Msgpackr.Packr | undefined;
/** msgpackr's RESERVE_START_SPACE. */
let reserveStartSpace = 0;

/** Encodes with `headerBytes` (at most 255) left free in front. */
function pack(value: unknown, headerBytes: number): Uint8Array {
  packr ??= makePackr();
  return packr.pack(value, reserveStartSpace + headerBytes);
}

function makePackr(): Msgpackr.Packr {
  const { Packr, RESERVE_START_SPACE } = requirePackage("msgpackr") as typeof Msgpackr;
  reserveStartSpace = RESERVE_START_SPACE;
  return new Packr({
    structures: RECORDS.map((fields) => [...fields]),
    maxSharedStructures: RECORDS.length,
    moreTypes: false,
    useToJSON: false,
  });
}

const ENTRY_TYPES: readonly EntryType[] = ["normal", "conf-change"];

function entryTypeNumber(type: EntryType): number {
  return type === "normal" ? 0 : 1;
}

function entryTypeOf(number: number): EntryType {
  const type = ENTRY_TYPES[number];
  if (type === undefined) throw new PeerFrameError("unknown entry type");
  return type;
}

/** msgpackr recognises Buffers fastest; no copy. */
function packedBytes(bytes: Uint8Array): Buffer {
  return bytes instanceof Buffer ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A number that the other side would refuse must not leave: it would end the connection again and again. */
function counter(value: number): number {
  assert(Number.isSafeInteger(value) && value >= 0, "a counter is a non-negative safe integer");
  return value;
}

const ID_MAX = 0xffff_ffff_ffff_ffffn;

function id(value: bigint): bigint {
  assert(value >= 0n && value <= ID_MAX, "an id has 64 bits and no sign");
  return value;
}

const MESSAGE_BYTES_BASE = 128;
const ENTRY_BYTES_BASE = 32;

/** Upper bound of the encoded size of a message, without walking its bytes. */
export function messageBytesMax(message: Message): number {
  let bytes = MESSAGE_BYTES_BASE;
  if (message.type === "append-request" || message.type === "propose") {
    const { entries } = message;
    for (let i = 0; i < entries.length; i++) bytes += ENTRY_BYTES_BASE + (entries[i] as { data: Uint8Array }).data.byteLength;
  } else if (message.type === "snapshot") {
    const { voters, votersOutgoing, learners, learnersNext } = message.snapshot.metadata.confState;
    bytes += 9 * (voters.length + votersOutgoing.length + learners.length + learnersNext.length);
  }
  return bytes;
}

function wireMessage(message: Message): object {
  const from = id(message.from);
  const to = id(message.to);
  const term = counter(message.term);
  switch (message.type) {
    case "vote-request": {
      const { pre, lastIndex, lastTerm, commit, commitTerm, transfer } = message;
      return {
        from,
        to,
        term,
        pre,
        lastIndex: counter(lastIndex),
        lastTerm: counter(lastTerm),
        commit: counter(commit),
        commitTerm: counter(commitTerm),
        transfer,
      };
    }
    case "vote-response": {
      const { pre, granted, commit, commitTerm } = message;
      return { from, to, term, pre, granted, commit: counter(commit), commitTerm: counter(commitTerm) };
    }
    case "append-request":
      return {
        from,
        to,
        term,
        prevIndex: counter(message.prevIndex),
        prevTerm: counter(message.prevTerm),
        commit: counter(message.commit),
        entries: wireEntries(message.entries, message.prevIndex),
      };
    case "append-response": {
      const { rejected, index, hintIndex, hintTerm } = message;
      return { from, to, term, rejected, index: counter(index), hintIndex: counter(hintIndex), hintTerm: counter(hintTerm) };
    }
    case "heartbeat":
      return { from, to, term, commit: counter(message.commit), round: counter(message.round) };
    case "heartbeat-response":
      return { from, to, term, round: counter(message.round) };
    case "snapshot":
      return wireSnapshot(message);
    case "propose": {
      const entries: unknown[] = [];
      for (const entry of message.entries) entries.push(entryTypeNumber(entry.type), packedBytes(entry.data));
      return { from, to, term, entries };
    }
    case "read-index-request":
      return { from, to, term, context: id(message.context) };
    case "read-index-response":
      return { from, to, term, context: id(message.context), index: counter(message.index) };
    case "transfer-leader":
      return { from, to, term, transferee: id(message.transferee) };
    case "timeout-now":
      return { from, to, term };
    default:
      return unreachable(message, "message type");
  }
}

/** Flat triples of type, term and data. The index is not sent: the first entry follows prevIndex, and so on. */
function wireEntries(entries: readonly Entry[], prevIndex: number): unknown[] {
  const flat: unknown[] = new Array(entries.length * 3);
  let at = 0;
  let expected = prevIndex;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i] as Entry;
    expected++;
    assert(entry.index === expected, "entries of an append follow each other");
    flat[at++] = entryTypeNumber(entry.type);
    flat[at++] = counter(entry.term);
    flat[at++] = packedBytes(entry.data);
  }
  return flat;
}

function wireSnapshot(message: SnapshotRequest): object {
  const { index, term, confState } = message.snapshot.metadata;
  return {
    from: id(message.from),
    to: id(message.to),
    term: counter(message.term),
    index: counter(index),
    indexTerm: counter(term),
    voters: confState.voters.map(id),
    votersOutgoing: confState.votersOutgoing.map(id),
    learners: confState.learners.map(id),
    learnersNext: confState.learnersNext.map(id),
    autoLeave: confState.autoLeave,
  };
}

/** The body of a message frame: an array of records. `headerBytes` are left free in front for the frame's header. */
export function encodeMessages(messages: readonly Message[], headerBytes = 0): Uint8Array {
  const records: object[] = new Array(messages.length);
  for (let i = 0; i < messages.length; i++) records[i] = wireMessage(messages[i] as Message);
  return pack(records, headerBytes);
}

/** Throws {@link PeerFrameError} when any message of the frame is malformed; then none of them may be used. */
export function decodeMessages(body: Uint8Array): Message[] {
  const reader = new PackReader(body);
  const count = reader.arrayLength();
  const messages: Message[] = [];
  for (let i = 0; i < count; i++) messages.push(readMessage(reader));
  reader.end();
  return messages;
}

function readMessage(reader: PackReader): Message {
  const record = reader.record();
  if (record > Record.timeoutNow) throw new PeerFrameError("not a message record");
  const from = memberId(reader);
  const to = memberId(reader);
  const term = reader.counter();
  switch (record) {
    case Record.voteRequest: {
      const pre = reader.flag();
      const lastIndex = reader.counter();
      const lastTerm = reader.counter();
      const commit = reader.counter();
      const commitTerm = reader.counter();
      return { type: "vote-request", from, to, term, pre, lastIndex, lastTerm, commit, commitTerm, transfer: reader.flag() };
    }
    case Record.voteResponse: {
      const pre = reader.flag();
      const granted = reader.flag();
      const commit = reader.counter();
      return { type: "vote-response", from, to, term, pre, granted, commit, commitTerm: reader.counter() };
    }
    case Record.appendRequest: {
      const prevIndex = reader.counter();
      const prevTerm = reader.counter();
      const commit = reader.counter();
      if (prevTerm > term) throw new PeerFrameError("previous entry of a later term than its leader's");
      return {
        type: "append-request",
        from,
        to,
        term,
        prevIndex,
        prevTerm,
        commit,
        entries: readEntries(reader, prevIndex, prevTerm, term),
      };
    }
    case Record.appendResponse: {
      const rejected = reader.flag();
      const index = reader.counter();
      const hintIndex = reader.counter();
      return { type: "append-response", from, to, term, rejected, index, hintIndex, hintTerm: reader.counter() };
    }
    case Record.heartbeat: {
      const commit = reader.counter();
      return { type: "heartbeat", from, to, term, commit, round: reader.counter() };
    }
    case Record.heartbeatResponse:
      return { type: "heartbeat-response", from, to, term, round: reader.counter() };
    case Record.snapshot:
      return readSnapshot(reader, from, to, term);
    case Record.propose: {
      const values = reader.arrayLength();
      if (values % 2 !== 0) throw new PeerFrameError("odd proposal list");
      const entries: { type: EntryType; data: Uint8Array }[] = [];
      for (let i = 0; i < values; i += 2) {
        const type = entryTypeOf(reader.counter());
        entries.push({ type, data: reader.bytes() });
      }
      return { type: "propose", from, to, term, entries };
    }
    case Record.readIndexRequest:
      return { type: "read-index-request", from, to, term, context: reader.id() };
    case Record.readIndexResponse: {
      const context = reader.id();
      return { type: "read-index-response", from, to, term, context, index: reader.counter() };
    }
    case Record.transferLeader:
      return { type: "transfer-leader", from, to, term, transferee: memberId(reader) };
    case Record.timeoutNow:
      return { type: "timeout-now", from, to, term };
    default:
      throw new PeerFrameError("not a message record");
  }
}

function memberId(reader: PackReader): MemberId {
  const value = reader.id();
  if (value === 0n) throw new PeerFrameError("member id 0");
  return value as MemberId;
}

/** Terms never decrease along a log (I5) and never pass the leader's. */
function readEntries(reader: PackReader, prevIndex: number, prevTerm: number, leaderTerm: number): Entry[] {
  const values = reader.arrayLength();
  if (values % 3 !== 0) throw new PeerFrameError("entry list not in triples");
  if (prevIndex + values / 3 > Number.MAX_SAFE_INTEGER) throw new PeerFrameError("index out of range");
  const entries: Entry[] = [];
  let termMin = Math.max(prevTerm, 1);
  for (let i = 0, index = prevIndex + 1; i < values; i += 3, index++) {
    const type = entryTypeOf(reader.counter());
    const term = reader.counter();
    if (term < termMin || term > leaderTerm) throw new PeerFrameError("entry terms out of order");
    termMin = term;
    entries.push({ term, index, type, data: reader.bytes() });
  }
  return entries;
}

function readSnapshot(reader: PackReader, from: MemberId, to: MemberId, term: number): SnapshotRequest {
  const index = reader.counter();
  const indexTerm = reader.counter();
  if (index === 0 || indexTerm === 0 || indexTerm > term) throw new PeerFrameError("snapshot position out of range");
  const voters = memberIds(reader);
  const votersOutgoing = memberIds(reader);
  const learners = memberIds(reader);
  const learnersNext = memberIds(reader);
  const confState: ConfState = { voters, votersOutgoing, learners, learnersNext, autoLeave: reader.flag() };
  return { type: "snapshot", from, to, term, snapshot: { metadata: { index, term: indexTerm, confState } } };
}

/** Ascending without duplicates. */
function memberIds(reader: PackReader): MemberId[] {
  const count = reader.arrayLength();
  const ids: MemberId[] = [];
  let last = 0n;
  for (let i = 0; i < count; i++) {
    const next = memberId(reader);
    if (next <= last) throw new PeerFrameError("member ids out of order");
    last = next;
    ids.push(next);
  }
  return ids;
}

/** Numbers on the wire; never reuse one. */
const REQUEST_KINDS: readonly PeerRequestKind[] = [
  "lease-renew",
  "lease-time-to-live",
  "member-promote",
  "hash-kv",
  "status",
  "progress-reset",
];

export interface WireRequest {
  readonly sequence: number;
  readonly kind: PeerRequestKind;
  readonly body: Uint8Array;
}

export function encodeRequest(sequence: number, kind: PeerRequestKind, body: Uint8Array, headerBytes = 0): Uint8Array {
  return pack({ sequence: counter(sequence), kind: REQUEST_KINDS.indexOf(kind), body: packedBytes(body) }, headerBytes);
}

/** `kind` is undefined when this build does not know it (a newer member asks). */
export function decodeRequest(body: Uint8Array): { sequence: number; kind: PeerRequestKind | undefined; body: Uint8Array } {
  const reader = new PackReader(body);
  if (reader.record() !== Record.request) throw new PeerFrameError("request record expected");
  const sequence = reader.counter();
  const kind = REQUEST_KINDS[reader.counter()];
  const bytes = reader.bytes();
  reader.end();
  return { sequence, kind, body: bytes };
}

/** Longest error text that travels, in UTF-8 bytes. */
const ERROR_TEXT_BYTES_MAX = 8192;

export function encodeError(sequence: number, error: unknown, headerBytes = 0): Uint8Array {
  const { reason, code, message } = errorFields(error);
  const fields = { sequence: counter(sequence), code, reason: errorText(reason), message: errorText(message) };
  return pack(fields, headerBytes);
}

function errorText(text: string): Buffer {
  return packedBytes(utf8Bytes(text).subarray(0, ERROR_TEXT_BYTES_MAX));
}

export function decodeError(body: Uint8Array): { sequence: number; error: EtcdError } {
  const reader = new PackReader(body);
  if (reader.record() !== Record.error) throw new PeerFrameError("error record expected");
  const sequence = reader.counter();
  const code = reader.counter();
  if (code < 1 || code > 16) throw new PeerFrameError("unknown error code");
  const reason = utf8Text(reader.bytes());
  const message = utf8Text(reader.bytes());
  reader.end();
  return { sequence, error: new EtcdError(reason, code as GrpcCode, message) };
}

const SNAPSHOT_ID_BYTES_MAX = 255;

export function encodeSnapshotOffer(info: SnapshotInfo, message: SnapshotRequest, headerBytes = 0): Uint8Array {
  const name = packedBytes(utf8Bytes(info.id));
  assert(name.byteLength > 0 && name.byteLength <= SNAPSHOT_ID_BYTES_MAX, "a snapshot id has 1 to 255 bytes");
  return pack({ id: name, sizeBytes: counter(info.sizeBytes), message: wireSnapshot(message) }, headerBytes);
}

export function decodeSnapshotOffer(body: Uint8Array): { info: SnapshotInfo; message: SnapshotRequest } {
  const reader = new PackReader(body);
  if (reader.record() !== Record.snapshotOffer) throw new PeerFrameError("snapshot offer expected");
  const name = reader.bytes();
  if (name.byteLength === 0 || name.byteLength > SNAPSHOT_ID_BYTES_MAX) throw new PeerFrameError("snapshot id out of range");
  const sizeBytes = reader.counter();
  const message = readMessage(reader);
  if (message.type !== "snapshot") throw new PeerFrameError("a snapshot offer carries another message");
  reader.end();
  return { info: { id: utf8Text(name), sizeBytes }, message };
}
