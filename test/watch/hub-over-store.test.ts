/** The hub over the real store: what it delivers from memory, from the backend, across restarts and compactions, against the checker. */
import { describe, expect, it } from "vitest";
import { DeleteRangeRequest, KeyValue, PutRequest, RequestOp, TxnRequest } from "../../src/api/index.ts";
import { createBatch, MemoryBackend, MemoryStorage } from "../../src/backend/index.ts";
import { type KeyString, keyStringOf, utf8Bytes } from "../../src/base/bytes.ts";
import { NO_LEASE } from "../../src/base/ids.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { type MvccEvent, MvccStore } from "../../src/mvcc/index.ts";
import { WatchHub } from "../../src/watch/index.ts";
import { checkWatchStream, WatchModel } from "../support/watch-checker.ts";
import { RecordedStream, type WatchAsk } from "../support/watch-harness.ts";

const NO_LEASES = { exists: () => false, leaseOf: () => NO_LEASE };
const KEYS = ["a", "aa", "ab", "b", "c", "d", "\xfe"];
const yieldNow = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

class Member {
  readonly random: Random;
  readonly storage = new MemoryStorage();
  readonly model = new WatchModel();
  readonly #pairs = new Map<KeyString, KeyValue>();
  readonly streams: RecordedStream[] = [];
  #backend!: MemoryBackend;
  store!: MvccStore;
  hub!: WatchHub;
  #time = 0;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  async open(): Promise<void> {
    this.#backend = new MemoryBackend(this.storage);
    this.store = await MvccStore.open({
      backend: this.#backend,
      // Small, so that most of the history comes from the backend.
      cacheBytesMax: 3000,
      yieldNow,
      nowMs: () => this.#time++,
    });
    if (this.hub !== undefined) {
      this.hub.restore(this.store);
      return;
    }
    this.hub = new WatchHub({
      source: this.store,
      streamBytesMax: this.pick([1000, 20_000]),
      fragmentBytes: this.pick([300, 1 << 20]),
      catchUpRevisionsMax: this.pick([3, 50, 1000]),
      watchersPerStreamMax: 100,
      yieldNow,
    });
  }

  /** The process ends and starts again; what clients hold goes on, as after an installed snapshot. */
  async restart(): Promise<void> {
    this.storage.kill();
    await this.open();
  }

  pick<T>(from: readonly T[]): T {
    return from[this.random.below(from.length)] as T;
  }

  async execute(): Promise<void> {
    const batch = createBatch();
    const { random, store } = this;
    const dice = random.below(10);
    let events: readonly MvccEvent[];
    if (dice < 6) {
      events = store.put(this.#put(), NO_LEASES, batch).events;
    } else if (dice < 8) {
      events = store.deleteRange(this.#delete(), batch).events;
    } else {
      const success = [...new Set([this.pick(KEYS), this.pick(KEYS), this.pick(KEYS)])].map((key) =>
        random.below(4) === 0
          ? RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key: utf8Bytes(key) }) })
          : RequestOp.create({ requestPut: this.#put(key) }),
      );
      events = store.txn(TxnRequest.create({ success }), NO_LEASES, batch).events;
    }
    for (const event of events) {
      const previous = this.#pairs.get(event.key);
      const kv = event.type === "put" ? KeyValue.create({ ...event.kv, wire: undefined }) : undefined;
      this.model.append({ revision: event.kv.modRevision, key: event.key, kv, previous });
      if (kv === undefined) this.#pairs.delete(event.key);
      else this.#pairs.set(event.key, kv);
    }
    await this.#backend.write(batch);
    store.written(batch);
    if (events.length > 0) this.hub.notify(store.revision, events);
  }

  #put(key = this.pick(KEYS)): PutRequest {
    return PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes("v".repeat(this.random.below(60))) });
  }

  #delete(): DeleteRangeRequest {
    const key = this.pick(KEYS);
    return DeleteRangeRequest.create({
      key: utf8Bytes(key),
      rangeEnd: this.random.below(3) === 0 ? utf8Bytes(`${key}\xff`) : new Uint8Array(0),
    });
  }

  async compact(): Promise<void> {
    const { store, random } = this;
    const revision = store.compactRevision + 1 + random.below(Math.max(1, (store.revision - store.compactRevision) >> 1));
    if (revision <= 1 || revision > store.revision) return;
    const batch = createBatch();
    store.compact({ revision }, batch);
    this.model.compactions.push(revision);
    await this.#backend.write(batch);
    store.written(batch);
    await this.compactSlice();
  }

  async compactSlice(): Promise<void> {
    if (!this.store.compactionPending) return;
    const batch = createBatch();
    await this.store.compactSlice(() => batch, 1 + this.random.below(30));
    await this.#backend.write(batch);
    this.store.written(batch);
  }

  watch(): void {
    const { random } = this;
    const stream = this.streams.length < 6 ? this.#openStream() : this.pick(this.streams);
    const ask: { -readonly [Name in keyof WatchAsk]: WatchAsk[Name] } = {
      key: this.pick(KEYS),
      prevKv: random.below(2) === 0,
      progress: true,
    };
    if (random.below(2) === 0) ask.end = "\0";
    if (random.below(4) !== 0) ask.from = Math.max(1, this.store.revision + 5 - random.below(this.store.revision + 5));
    if (random.below(4) === 0) ask.fragment = true;
    stream.create(ask);
  }

  #openStream(): RecordedStream {
    const stream = new RecordedStream(this.hub);
    this.streams.push(stream);
    return stream;
  }
}

describe("the hub over the store", () => {
  it.each([1, 2, 3, 4, 5, 6])("keeps all watch promises, seed %i", async (seed) => {
    const member = new Member(seed);
    await member.open();
    const { random } = member;
    let round: Promise<void> | undefined;
    for (let n = 0; n < 2500; n += 1) {
      const dice = random.below(1000);
      if (dice < 600) await member.execute();
      else if (dice < 640) member.watch();
      else if (dice < 900 && member.streams.length > 0) member.pick(member.streams).take(member.pick([1, 500, 1 << 20]));
      else if (dice < 930 && member.streams.length > 0) member.pick(member.streams).stream.requestProgress();
      else if (dice < 950 && member.streams.length > 0) member.pick(member.streams).stream.notifyProgress();
      else if (dice < 954) await member.compact();
      else if (dice < 980) await member.compactSlice();
      else if (dice < 983) {
        await round;
        await member.restart();
      }
      if (member.hub.lagging && round === undefined && random.below(4) === 0) {
        round = member.hub.catchUp().finally(() => {
          round = undefined;
        });
      }
    }
    await round;
    for (let idle = 0; idle < 2; idle += 1) {
      for (const stream of member.streams) if (stream.drain().length > 0) idle = -1;
      if (member.hub.lagging) idle = -1;
      await member.hub.catchUp();
    }
    member.hub.check();
    const violations = member.streams.flatMap(({ record }) => checkWatchStream(member.model, record, { liveUpTo: member.store.revision }));
    expect(violations.slice(0, 5)).toEqual([]);
    const events = member.streams.flatMap(({ taken }) => taken.flatMap((response) => response.events));
    expect(events.length).toBeGreaterThan(1000);
    // Keys of the model are those of the events, byte for byte.
    expect(events.some((event) => event.kv !== undefined && keyStringOf(event.kv.key) === ("\xc3\xbe" as KeyString))).toBe(true);
  });
});
