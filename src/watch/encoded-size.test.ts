import { describe, expect, it } from "vitest";
import { Event, EventType, KeyValue, WatchResponse } from "../api/index.ts";
import type { KeyString } from "../base/bytes.ts";
import { type Random, seededRandom } from "../base/random.ts";
import { keyValueBytes, varintBytes } from "./encoded-size.ts";
import { SharedEvent, WatchEvent } from "./watch-event.ts";

function counter(random: Random): number {
  // All lengths of varints are equally likely.
  const bits = random.below(54);
  return bits === 0 ? 0 : Math.min(2 ** bits - 1 - random.below(Math.min(2 ** bits, 3)), Number.MAX_SAFE_INTEGER);
}

function pair(random: Random): KeyValue {
  return KeyValue.create({
    key: new Uint8Array(random.below(300)),
    createRevision: Math.max(counter(random), 0),
    modRevision: Math.max(counter(random), 0),
    version: random.below(3),
    value: new Uint8Array(random.below(4) === 0 ? 16_000 + random.below(1000) : random.below(200)),
    lease: random.below(3) === 0 ? 0n : BigInt.asIntN(64, random.bits64() >> BigInt(random.below(64))),
  });
}

describe("encoded sizes", () => {
  it("of varints are right at every border", () => {
    for (let bits = 0; bits <= 53; bits += 1) {
      for (const value of [2 ** bits - 1, 2 ** bits]) {
        if (value > 0 && value <= Number.MAX_SAFE_INTEGER)
          expect(varintBytes(value)).toBe(KeyValue.byteLength(KeyValue.create({ version: value })) - 1);
      }
    }
    expect(varintBytes(0)).toBe(1);
  });

  it("of pairs and events are those of the codec", () => {
    const random = seededRandom(7);
    for (let n = 0; n < 3000; n += 1) {
      const kv = pair(random);
      const prevKv = random.below(2) === 0 ? pair(random) : undefined;
      expect(keyValueBytes(kv)).toBe(KeyValue.byteLength(kv));
      const type = random.below(2) === 0 ? EventType.PUT : EventType.DELETE;
      const event = new SharedEvent(type, kv, prevKv);
      const empty = WatchResponse.byteLength(WatchResponse.create());
      expect(event.responseBytes).toBe(WatchResponse.byteLength(WatchResponse.create({ events: [event] })) - empty);
      kv.wire = KeyValue.encode(kv);
      expect(new SharedEvent(type, kv, prevKv).responseBytes).toBe(event.responseBytes);
      event.uses = 2;
      expect(event.wire?.length).toBe(Event.byteLength({ type, kv, prevKv }));
    }
  });

  it("a creation has one form, whether the previous pair is wanted or not", () => {
    const kv = KeyValue.create({ key: Uint8Array.of(97), modRevision: 2, createRevision: 2 });
    const event = new WatchEvent({ type: "put", key: "a" as KeyString, kv, previous: undefined });
    expect(event.previousToLookUp).toBeUndefined();
    expect(event.setPrevious(undefined)).toBe(event.plain);
    const change = new WatchEvent({ type: "put", key: "a" as KeyString, kv, previous: { main: 1, sub: 0 } });
    expect(change.previousToLookUp).toEqual({ main: 1, sub: 0 });
    expect(change.setPrevious(kv)).not.toBe(change.plain);
    expect(change.previousToLookUp).toBeUndefined();
  });
});
