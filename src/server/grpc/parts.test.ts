import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EtcdError } from "../../base/errors.ts";
import { DeadlineWheel, type Timed } from "./deadline-wheel.ts";
import { framed, MessageReader } from "./message-reader.ts";
import { percentEncoded } from "./status-message.ts";
import { timeoutMsOf } from "./timeout.ts";
import { ReceiveBudget } from "./transport.ts";

describe("grpc-timeout", () => {
  it("is read in all its units", () => {
    const read = ["1H", "2M", "3S", "40m", "500u", "6000n", "0S", "0n", "99999999H", "00000001S"].map(timeoutMsOf);
    expect(read).toEqual([3_600_000, 120_000, 3000, 40, 0.5, 0.006, 0, 0, 99_999_999 * 3_600_000, 1000]);
  });

  it("is refused in the words of gRPC", () => {
    const said = ["", "S", "123456789S", "1s", "abc", "-1S", "+1S", "1.5S", " 1S", "S1", "99999999x"].map((text) => {
      try {
        return timeoutMsOf(text);
      } catch (error) {
        return EtcdError.is(error) ? `${error.grpcCode} ${error.message}` : error;
      }
    });
    expect(said).toEqual([
      '13 malformed grpc-timeout: transport: timeout string is too short: ""',
      '13 malformed grpc-timeout: transport: timeout string is too short: "S"',
      '13 malformed grpc-timeout: transport: timeout string is too long: "123456789S"',
      '13 malformed grpc-timeout: transport: timeout unit is not recognized: "1s"',
      '13 malformed grpc-timeout: transport: timeout unit is not recognized: "abc"',
      '13 malformed grpc-timeout: strconv.ParseUint: parsing "-1": invalid syntax',
      '13 malformed grpc-timeout: strconv.ParseUint: parsing "+1": invalid syntax',
      '13 malformed grpc-timeout: strconv.ParseUint: parsing "1.5": invalid syntax',
      '13 malformed grpc-timeout: strconv.ParseUint: parsing " 1": invalid syntax',
      '13 malformed grpc-timeout: transport: timeout unit is not recognized: "S1"',
      '13 malformed grpc-timeout: transport: timeout unit is not recognized: "99999999x"',
    ]);
  });
});

it("status texts are written as gRPC wants them", () => {
  expect(percentEncoded("etcdserver: key is not provided")).toBe("etcdserver: key is not provided");
  expect(percentEncoded("100 %\t€\n~")).toBe("100 %25%09%E2%82%AC%0A~");
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (text) => decodeURIComponent(percentEncoded(text)) === text));
});

describe("messages", () => {
  const reader = (limit = 1000, budget = new ReceiveBudget(1_000_000)): MessageReader => new MessageReader(limit, budget);

  it("come out as they went in, however they are cut", () => {
    const message = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(fc.array(fc.tuple(message, fc.constantFrom(0, 1)), { maxLength: 6 }), fc.array(fc.nat({ max: 40 })), (messages, cuts) => {
        const bytes = Buffer.concat(messages.map(([body, flag]) => framed(body, flag)));
        const budget = new ReceiveBudget(10_000);
        const read = reader(300, budget);
        const found: [Uint8Array, number][] = [];
        let from = 0;
        for (const cut of [...cuts, bytes.byteLength]) {
          const to = Math.min(bytes.byteLength, from + cut);
          for (let at = from; at < to; ) {
            at = read.read(bytes, at, to);
            if (read.complete) found.push([read.bytes.slice(read.from, read.to), read.flag]);
          }
          from = to;
        }
        expect(found.map(([body, flag]) => [Buffer.from(body), flag])).toEqual(messages.map(([body, flag]) => [Buffer.from(body), flag]));
        expect(read.position).toBe("between-messages");
        expect(budget.used).toBe(0);
      }),
    );
  });

  it("that are too large are refused by their length, and nothing is kept for them", () => {
    const budget = new ReceiveBudget(1_000_000);
    const huge = Buffer.from([0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    expect(() => reader(1000, budget).read(huge, 0, 8)).toThrow("grpc: received message larger than max (4294967295 vs. 1000)");
    expect(() => reader(1000, budget).read(framed(Buffer.alloc(1001), 0), 0, 5)).toThrow("(1001 vs. 1000)");
    expect(() => reader(1000, budget).read(Buffer.from([2, 0, 0, 0, 1, 1]), 0, 6)).toThrow("grpc: received unexpected payload format 2");
    expect(budget.used).toBe(0);
  });

  it("take memory as they come, not as they announce", () => {
    const budget = new ReceiveBudget(10_000_000);
    const read = reader(2_000_000, budget);
    const bytes = framed(Buffer.alloc(2_000_000), 0);
    read.read(bytes, 0, 6);
    expect(budget.used).toBeLessThan(20_000);
    expect(read.missing).toBe(1_999_999);
    read.read(bytes, 6, 500_000);
    expect(budget.used).toBeLessThan(1_100_000);
    read.close();
    expect(budget.used).toBe(0);
  });

  it("are refused when memory for unfinished ones has run out", () => {
    const budget = new ReceiveBudget(20_000);
    const [one, two] = [reader(50_000, budget), reader(50_000, budget)];
    const bytes = framed(Buffer.alloc(50_000), 0);
    one.read(bytes, 0, 1000);
    expect(() => two.read(bytes, 0, 1000)).toThrow("too many requests");
    one.close();
    two.close();
    expect(budget.used).toBe(0);
  });
});

describe("deadlines", () => {
  class FakeClock {
    now = 1000;
    timers = new Set<{ at: number; fn: () => void }>();
    monotonicMs(): number {
      return this.now;
    }
    wallMs(): number {
      return this.now;
    }
    timer(ms: number, fn: () => void): { cancel(): void } {
      const timer = { at: this.now + ms, fn };
      this.timers.add(timer);
      return { cancel: () => this.timers.delete(timer) };
    }
    advance(ms: number): void {
      const end = this.now + ms;
      for (;;) {
        const due = [...this.timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
        if (due === undefined) break;
        this.timers.delete(due);
        this.now = Math.max(this.now, due.at);
        due.fn();
      }
      this.now = end;
    }
  }

  const entry = (clock: FakeClock, ms: number, log: [number, number][]): Timed => ({
    deadlineMs: clock.now + ms,
    wheelSlot: -1,
    wheelIndex: -1,
    deadlinePassed() {
      log.push([this.deadlineMs, clock.now]);
    },
  });

  it("pass on time, never early, whatever else is taken out", () => {
    const waits = fc.array(fc.record({ ms: fc.integer({ min: 0, max: 60_000 }), removed: fc.boolean() }), { maxLength: 60 });
    fc.assert(
      fc.property(waits, fc.array(fc.integer({ min: 1, max: 20_000 }), { maxLength: 5 }), (list, jumps) => {
        const clock = new FakeClock();
        const wheel = new DeadlineWheel(clock);
        const log: [number, number][] = [];
        const entries = list.map(({ ms }) => entry(clock, ms, log));
        for (const one of entries) wheel.add(one);
        for (const [i, { removed }] of list.entries()) if (removed) wheel.remove(entries[i] as Timed);
        for (const jump of jumps) clock.advance(jump);
        clock.advance(70_000);
        expect(log.length).toBe(list.filter(({ removed }) => !removed).length);
        for (const [deadline, at] of log) {
          expect(at).toBeGreaterThanOrEqual(deadline);
          expect(at - deadline).toBeLessThanOrEqual(64);
        }
        expect(wheel.size).toBe(0);
        expect(clock.timers.size).toBe(0);
      }),
    );
  });

  it("are forgotten when the wheel is closed, and a late removal is no mistake", () => {
    const clock = new FakeClock();
    const wheel = new DeadlineWheel(clock);
    const log: [number, number][] = [];
    const one = entry(clock, 100, log);
    wheel.add(one);
    wheel.close();
    wheel.remove(one);
    clock.advance(1000);
    expect(log).toEqual([]);
    expect(clock.timers.size).toBe(0);
  });
});
