import { expect, test } from "vitest";
import { EtcdError } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import { seededRandom } from "../../base/random.ts";
import type { ConfChange, ConfChangeKind } from "../entry.ts";
import { ConfChangeDecodeError, decodeConfChange, encodeConfChange } from "./codec.ts";

const KINDS: ConfChangeKind[] = ["add-voter", "add-learner", "remove", "update"];

function some(random: ReturnType<typeof seededRandom>): ConfChange {
  const flag = (): boolean => random.chance({ of: 1, outOf: 2 });
  return {
    steps: Array.from({ length: random.below(4) }, () => ({
      kind: KINDS[random.below(4)] as ConfChangeKind,
      memberId: (random.bits64() | 1n) as MemberId,
    })),
    ...(flag() && { joint: flag() }),
    ...(flag() && { autoLeave: flag() }),
    context: Uint8Array.from({ length: random.below(20) }, () => random.below(256)),
  };
}

test("what was encoded is decoded again, 64-bit ids included", () => {
  const random = seededRandom(6);
  for (let i = 0; i < 500; i++) {
    const change = some(random);
    expect(decodeConfChange(encodeConfChange(change))).toEqual(change);
  }
  const max = { steps: [{ kind: "remove", memberId: (2n ** 64n - 1n) as MemberId }], context: new Uint8Array(0) } as const;
  expect(decodeConfChange(encodeConfChange(max))).toEqual(max);
});

test("the bytes are those documented", () => {
  const bytes = encodeConfChange({
    steps: [{ kind: "add-learner", memberId: 0x0102030405060708n as MemberId }],
    joint: true,
    autoLeave: false,
    context: Uint8Array.of(9),
  });
  expect([...bytes]).toEqual([1, 0b0111, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 9]);
});

test("it decodes a view in the middle of a larger buffer", () => {
  const change: ConfChange = { steps: [{ kind: "update", memberId: 5n as MemberId }], context: Uint8Array.of(1, 2) };
  const bytes = encodeConfChange(change);
  const larger = new Uint8Array(bytes.length + 10);
  larger.set(bytes, 5);
  expect(decodeConfChange(larger.subarray(5, 5 + bytes.length))).toEqual(change);
});

test("garbage gives a typed error, never an exception", () => {
  const random = seededRandom(7);
  let errors = 0;
  for (let i = 0; i < 5000; i++) {
    const bytes = encodeConfChange(some(random));
    let garbage: Uint8Array;
    if (random.chance({ of: 1, outOf: 3 })) garbage = Uint8Array.from({ length: random.below(40) }, () => random.below(256));
    else if (random.chance({ of: 1, outOf: 2 })) garbage = bytes.subarray(0, random.below(bytes.length));
    else {
      garbage = bytes.slice();
      garbage[random.below(bytes.length)] = random.below(256);
    }
    const decoded = decodeConfChange(garbage);
    if (decoded instanceof ConfChangeDecodeError) {
      errors += 1;
      expect(EtcdError.is(decoded)).toBe(true);
      expect(decoded.reason).toBe("conf-change-malformed");
    } else {
      expect([...encodeConfChange(decoded)]).toEqual([...garbage]);
    }
  }
  expect(errors).toBeGreaterThan(1000);
});

test("an id that could not be decoded is not encoded", () => {
  for (const memberId of [0n, -1n, 2n ** 64n] as MemberId[]) {
    expect(() => encodeConfChange({ steps: [{ kind: "remove", memberId }], context: new Uint8Array(0) })).toThrow("64 bits");
  }
});

test("zero ids and unknown kinds are refused", () => {
  const bytes = encodeConfChange({ steps: [{ kind: "remove", memberId: 1n as MemberId }], context: new Uint8Array(0) });
  const zero = bytes.slice();
  zero[12] = 0;
  expect(decodeConfChange(zero)).toBeInstanceOf(ConfChangeDecodeError);
  const kind = bytes.slice();
  kind[4] = 5;
  expect(decodeConfChange(kind)).toBeInstanceOf(ConfChangeDecodeError);
});
