import { describe, expect, test } from "vitest";
import type { Clock, Timer } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import { silentLogger } from "../base/logger.ts";
import { type Life, Supervisor } from "./supervisor.ts";

class StepClock implements Clock {
  nowMs = 0;
  readonly timers: { atMs: number; fn: () => void }[] = [];

  monotonicMs(): number {
    return this.nowMs;
  }

  wallMs(): number {
    return this.nowMs;
  }

  timer(ms: number, fn: () => void): Timer {
    const entry = { atMs: this.nowMs + ms, fn };
    this.timers.push(entry);
    return { cancel: () => this.timers.splice(0, this.timers.length, ...this.timers.filter((one) => one !== entry)) };
  }

  /** Fires the only timer; gives how long it was. */
  async fire(): Promise<number> {
    expect(this.timers).toHaveLength(1);
    const [timer] = this.timers.splice(0) as [{ atMs: number; fn: () => void }];
    const waitedMs = timer.atMs - this.nowMs;
    this.nowMs = timer.atMs;
    timer.fn();
    await settle();
    return waitedMs;
  }
}

/** Lets everything happen that needs no clock. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

class StubLife implements Life<Error> {
  readonly ready: Promise<void>;
  readonly failed: Promise<Error>;
  becomeReady: () => void = () => undefined;
  fail: (error: Error) => void = () => undefined;
  closed: { transfer?: boolean }[] = [];

  constructor() {
    this.ready = new Promise((resolve) => {
      this.becomeReady = resolve;
    });
    this.failed = new Promise((resolve) => {
      this.fail = resolve;
    });
  }

  close(options: { transfer?: boolean } = {}): Promise<void> {
    this.closed.push(options);
    return Promise.resolve();
  }
}

const SPACE = new EtcdError("space", 14, "no space");
const BROKEN = new EtcdError("broken", 14, "broken");

function stage(begin?: () => Promise<StubLife>) {
  const clock = new StepClock();
  const lives: StubLife[] = [];
  const outages: EtcdError[] = [];
  const supervisor = new Supervisor<StubLife, Error>({
    clock,
    logger: silentLogger,
    begin:
      begin ??
      (() => {
        lives.push(new StubLife());
        return Promise.resolve(lives.at(-1) as StubLife);
      }),
    onBegun: () => undefined,
    onOutage: (outage) => outages.push(outage),
    passes: (failure) => (failure === SPACE ? SPACE : undefined),
    mayRetry: (error) => error === SPACE,
    toFailure: (error) => error as Error,
  });
  return { clock, lives, outages, supervisor };
}

describe("a supervisor of lives", () => {
  test("begins another one when the last ended by something that passes, later each time, up to ten seconds", async () => {
    const { clock, lives, outages, supervisor } = stage();
    await supervisor.start();
    const waits: number[] = [];
    for (let i = 0; i < 6; i++) {
      lives[i]?.fail(SPACE);
      await settle();
      expect(supervisor.outage).toBe(SPACE);
      expect(lives[i]?.closed).toEqual([{ transfer: false }]);
      waits.push(await clock.fire());
      expect(supervisor.life).toBe(lives[i + 1]);
      expect(supervisor.outage).toBeUndefined();
    }
    expect(waits).toEqual([1000, 2000, 4000, 8000, 10_000, 10_000]);
    expect(outages).toHaveLength(6);
    lives[6]?.becomeReady();
    await supervisor.ready;
    // A minute of service, and the next pause is short again.
    clock.nowMs += 60_000;
    lives[6]?.fail(SPACE);
    await settle();
    expect(await clock.fire()).toBe(1000);
  });

  test("ends for good with what does not pass", async () => {
    const { clock, lives, supervisor } = stage();
    await supervisor.start();
    lives[0]?.fail(BROKEN);
    expect(await supervisor.failed).toBe(BROKEN);
    await expect(supervisor.ready).rejects.toBe(BROKEN);
    expect(clock.timers).toEqual([]);
    expect(lives).toHaveLength(1);
    // It is still there to be closed.
    expect(lives[0]?.closed).toEqual([]);
    await supervisor.close();
    expect(lives[0]?.closed).toHaveLength(1);
  });

  test("tries again as long as a life cannot be begun for the same reason, and gives up with another one", async () => {
    const errors: unknown[] = [undefined, SPACE, SPACE, BROKEN];
    const first = new StubLife();
    const { clock, supervisor } = stage(() => {
      const error = errors.shift();
      return error === undefined ? Promise.resolve(first) : Promise.reject(error);
    });
    await supervisor.start();
    first.fail(SPACE);
    await settle();
    for (let i = 0; i < 3; i++) {
      expect(supervisor.outage).toBe(SPACE);
      await clock.fire();
    }
    expect(await supervisor.failed).toBe(BROKEN);
    expect(errors).toEqual([]);
  });

  test("that the first cannot be begun is the caller's to hear", async () => {
    const { supervisor } = stage(() => Promise.reject(SPACE));
    await expect(supervisor.start()).rejects.toBe(SPACE);
    await supervisor.close();
  });

  test("is closed at once while it waits, and begins nothing any more", async () => {
    const { clock, lives, supervisor } = stage();
    await supervisor.start();
    lives[0]?.fail(SPACE);
    await settle();
    await supervisor.close();
    expect(clock.timers).toEqual([]);
    expect(lives).toHaveLength(1);
    await expect(supervisor.ready).rejects.toMatchObject({ reason: "server-stopped" });
  });

  test("a life that was being begun when it was closed is ended, too", async () => {
    const begun: ((life: StubLife) => void)[] = [];
    const { clock, supervisor } = stage(() => new Promise((resolve) => begun.push(resolve)));
    const [first, second] = [new StubLife(), new StubLife()];
    const started = supervisor.start();
    begun[0]?.(first);
    await started;
    first.fail(SPACE);
    await settle();
    await clock.fire();
    const closed = supervisor.close();
    await settle();
    begun[1]?.(second);
    await closed;
    expect(second.closed).toHaveLength(1);
  });

  test("a life that cannot be ended has no successor", async () => {
    const life = new StubLife();
    life.close = () => Promise.reject(BROKEN);
    const { clock, supervisor } = stage(() => Promise.resolve(life));
    await supervisor.start();
    life.fail(SPACE);
    expect(await supervisor.failed).toBe(BROKEN);
    expect(clock.timers).toEqual([]);
  });
});
