import { describe, expect, test } from "vitest";
import { rpcError } from "../../api/index.ts";
import type { Clock } from "../../base/clock.ts";
import { GatewayCall, timeoutMsOf } from "./gateway-call.ts";

const ANONYMOUS = { token: undefined, requireLeader: false, clientApiVersion: undefined };

describe("timeouts", () => {
  test.each([
    [undefined, undefined],
    ["", undefined],
    ["0S", undefined],
    ["1H", 3_600_000],
    ["2M", 120_000],
    ["3S", 3000],
    ["4m", 4],
    ["5u", 0.005],
    ["6n", 0.000006],
    ["+7S", 7000],
    ["-7S", -7000],
    // 99999999 hours are more nanoseconds than 64 bits hold.
    ["99999999H", -8_934_885_074_191.033],
  ])("%s", (header, ms) => {
    expect(timeoutMsOf(header === undefined ? {} : { "grpc-timeout": header })).toBe(ms);
  });

  test.each(["1", "S", " 1S", "1.5S", "1e3S", "1s", "9223372036854775808n", "--1S"])("%s is malformed", (header) => {
    expect(() => timeoutMsOf({ "grpc-timeout": header })).toThrow(`invalid grpc-timeout: ${header}`);
  });
});

describe("the signal of a call", () => {
  test("is made when asked for, before or after the end", () => {
    const before = new GatewayCall(ANONYMOUS);
    const { signal } = before;
    expect(signal.aborted).toBe(false);
    before.giveUp(rpcError("canceled"));
    expect(signal.reason).toMatchObject({ reason: "canceled" });
    const after = new GatewayCall(ANONYMOUS);
    after.giveUp(rpcError("deadline-exceeded"));
    after.giveUp(rpcError("canceled"));
    expect(after.signal.reason).toMatchObject({ reason: "deadline-exceeded" });
    expect(after.signal).toBe(after.signal);
  });

  test("a deadline farther away than timers reach is waited for in steps", () => {
    let nowMs = 0;
    const waits: { ms: number; fn: () => void }[] = [];
    const clock: Clock = {
      monotonicMs: () => nowMs,
      wallMs: () => nowMs,
      timer: (ms, fn) => {
        waits.push({ ms: Math.min(ms, 1000), fn });
        return { cancel: () => undefined };
      },
    };
    const call = new GatewayCall(ANONYMOUS);
    let passed = 0;
    call.startDeadline(clock, 2500, () => passed++);
    for (const expected of [1000, 1000, 500]) {
      expect(passed).toBe(0);
      const wait = waits.pop() as { ms: number; fn: () => void };
      expect(wait.ms).toBe(expected);
      nowMs += wait.ms;
      wait.fn();
    }
    expect(passed).toBe(1);
    expect(waits).toEqual([]);
  });
});
