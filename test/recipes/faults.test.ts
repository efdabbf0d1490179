/** A little of what `npm run recipes:faults` does at length, and what `faultRun` itself promises. */
import { describe, expect, it } from "vitest";
import { openSession, Queue, stm } from "../../src/client/concurrency/index.ts";
import { type EtcdClient, op } from "../../src/client/index.ts";
import { type FaultRun, FaultRunError, faultRun } from "../../src/testing/index.ts";
import { BODIES } from "./bodies.ts";

const DURATION_MS = 2500;

/** Simulated time is short, but a loaded machine takes long for it. */
const timeout = 120_000;

describe("recipes under faults keep their promises", { timeout }, () => {
  it.each(Object.entries(BODIES))("%s", async (_, body) => {
    const { value } = await faultRun({ seed: 3, durationMs: DURATION_MS, body });
    expect(value).toBeGreaterThan(0);
  });

  it("and the checks find a lock that does not exclude", async () => {
    const { locks } = BODIES;
    if (locks === undefined) throw new Error("there is a body for locks");
    const sabotage = (run: FaultRun): Promise<number> =>
      locks({
        ...run,
        client: (name) => {
          const client = run.client(name);
          // An operator that deletes locks.
          const timer = setInterval(() => void client.delete("lock/", { prefix: true }).catch(() => undefined), 300);
          run.signal.addEventListener("abort", () => clearInterval(timer), { once: true });
          return client;
        },
      });
    const failures: unknown[] = [];
    for (let seed = 1; seed <= 5 && failures.length === 0; seed += 1) {
      await faultRun({ seed, durationMs: DURATION_MS, faults: [], body: sabotage }).catch((error: unknown) => failures.push(error));
    }
    expect(failures[0]).toBeInstanceOf(FaultRunError);
    expect((failures[0] as FaultRunError).message).toMatch(/was granted with token|after one with token/);
  });
});

/** A program with everything in it: locks are left out only because the bodies have them. */
async function program(run: FaultRun): Promise<string> {
  const words: string[] = [];
  const worker = async (name: string): Promise<void> => {
    const client = run.client(name);
    while (!run.signal.aborted) {
      try {
        const { revision } = await stm(client, async (tx) => tx.put("n", String(Number((await tx.get("n")) ?? 0) + 1)), {
          timeoutMs: 2000,
        });
        words.push(`${name}${revision}`);
      } catch (error) {
        words.push(`${name}:${(error as { reason: string }).reason}`);
      }
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 100));
    }
  };
  await Promise.all(["a", "b", "c"].map(worker));
  return words.join(" ");
}

describe("a fault run", { timeout }, () => {
  it("is the same again with the same seed, and another one with another", async () => {
    const [first, again, other] = await Promise.all([7, 7, 8].map((seed) => faultRun({ seed, durationMs: 3500, body: program })));
    expect(again).toEqual(first);
    expect(first?.faults.length).toBeGreaterThan(0);
    expect(other?.fingerprint).not.toBe(first?.fingerprint);
    expect(other?.value).not.toBe(first?.value);
  });

  it("gives the runtime's time and chance back, also after a failure", async () => {
    const before = [setTimeout, setInterval, setImmediate, clearTimeout, Math.random, Date.now, performance.now];
    let simulated = 0;
    const failing = faultRun({
      seed: 1,
      faults: [],
      body: async (run) => {
        const began = Date.now();
        await run.sleep(3_600_000);
        simulated = Date.now() - began;
        throw new Error("of the program");
      },
    });
    const error = await failing.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    // It had the time until the settling was over, an hour was too long.
    expect(error).toBeInstanceOf(FaultRunError);
    expect((error as FaultRunError).message).toContain("it did not end within 120000 ms after the last fault");
    expect(simulated).toBe(0);
    const thrown = faultRun({ seed: 1, faults: [], body: () => Promise.reject(new Error("of the program")) });
    await expect(thrown).rejects.toMatchObject({ message: expect.stringContaining("seed 1: of the program"), seed: 1 });
    const atOnce = (): Promise<void> => {
      throw new Error("before there was a promise");
    };
    await expect(faultRun({ seed: 2, faults: [], body: atOnce })).rejects.toBeInstanceOf(FaultRunError);
    expect([setTimeout, setInterval, setImmediate, clearTimeout, Math.random, Date.now, performance.now]).toEqual(before);
  });

  it("takes a program through the death of every member", async () => {
    const { value, faults } = await faultRun({
      seed: 5,
      members: 1,
      durationMs: 6000,
      faults: ["kill"],
      body: async (run) => {
        const client = run.client();
        let n = 0;
        while (!run.signal.aborted) {
          n += 1;
          await client.put("n", String(n), { retry: "always" });
          await run.sleep(20);
        }
        return [n, Number((await client.get("n"))?.value)];
      },
    });
    expect(faults.filter(({ what }) => what === "m1 is killed").length).toBeGreaterThan(0);
    expect(value[0]).toBe(value[1]);
    expect(value[0]).toBeGreaterThan(10);
  });
});

describe("a queue with receipts", { timeout }, () => {
  it("loses nothing when answers are lost", async () => {
    const { value } = await faultRun({
      seed: 11,
      durationMs: 5000,
      faults: ["kill", "client-cut"],
      body: async (run) => {
        const [producer, consumer]: EtcdClient[] = [run.client("producer"), run.client("consumer")];
        if (producer === undefined || consumer === undefined) throw new Error("two clients");
        const session = await openSession(consumer, { ttlSeconds: 60 });
        const queue = new Queue(consumer, "q", { session });
        const items = Array.from({ length: 60 }, (_, i) => String(i));
        for (const item of items) {
          await producer
            .txn()
            .do(op.put(`q/${item.padStart(19, "0")}`, item))
            .commit({ retry: "always" });
        }
        const taken: string[] = [];
        while (taken.length < items.length) {
          const item = await queue.tryDequeue().catch(() => undefined);
          if (item !== undefined) taken.push(item.value);
          else if ((await producer.count("q/", { prefix: true }).catch(() => 1)) === 0) break;
          await run.sleep(50);
        }
        await session.close();
        const left = await consumer.count("", { prefix: true });
        return { taken: taken.sort((a, b) => Number(a) - Number(b)), items, left };
      },
    });
    expect(value.taken).toEqual(value.items);
    expect(value.left).toBe(0);
  });
});
