/** Programs that use a recipe under faults and find out whether it keeps its promise. They throw what they find; see `faultRun`. */
import {
  type HeldLock,
  type LeaderContext,
  type Leadership,
  LockLostError,
  observeLeader,
  openSession,
  PriorityQueue,
  Queue,
  runWhileLeader,
  Sequence,
  type Session,
  stm,
} from "../../src/client/concurrency/index.ts";
import { type EtcdClient, EtcdError, op } from "../../src/client/index.ts";
import type { FaultRun } from "../../src/testing/index.ts";

/** Something that must never be seen was seen. */
class BrokenPromiseError extends Error {}

function check(holds: boolean, what: string): void {
  if (!holds) throw new BrokenPromiseError(what);
}

/** What the cluster and the way to it may do to a call. Everything else is a finding. */
function isExpected(error: unknown): boolean {
  return EtcdError.is(error) && error.reason !== "invalid-use" && error.reason !== "bad-answer";
}

/** Repeats until the faults are over; errors that faults cause are part of the game. */
async function untilOver(run: FaultRun, step: () => Promise<void>): Promise<void> {
  while (!run.signal.aborted) {
    try {
      await step();
    } catch (error) {
      if (!isExpected(error)) throw error;
      await run.sleep(20 + run.random.below(200));
    }
    await run.sleep(run.random.below(50));
  }
}

/** Waits until it is so; the cluster is well again by then. */
async function settle(run: FaultRun, what: string, holds: () => Promise<boolean>): Promise<void> {
  const endMs = run.clock.monotonicMs() + 60_000;
  for (;;) {
    try {
      if (await holds()) return;
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
    check(run.clock.monotonicMs() < endMs, `not within a minute after all faults: ${what}`);
    await run.sleep(500);
  }
}

/** Sessions that are lost are replaced. */
class Sessions {
  readonly #client: EtcdClient;
  readonly #ttlSeconds: number;
  #opened: Session | undefined;
  #opening: Promise<Session> | undefined;

  constructor(client: EtcdClient, ttlSeconds: number) {
    this.#client = client;
    this.#ttlSeconds = ttlSeconds;
  }

  async get(): Promise<Session> {
    if (this.#opened?.lost.aborted !== false) {
      this.#opening ??= openSession(this.#client, { ttlSeconds: this.#ttlSeconds, timeoutMs: 5000 }).finally(() => {
        this.#opening = undefined;
      });
      this.#opened = await this.#opening;
    }
    return this.#opened;
  }

  async close(): Promise<void> {
    try {
      await this.#opened?.close({ timeoutMs: 5000 });
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
  }
}

/** All leases end and what hung on them goes, whatever became of the answers. */
async function nothingIsLeft(run: FaultRun, client: EtcdClient, prefix: string): Promise<void> {
  await settle(run, "all leases have ended", async () => (await client.leases.list()).length === 0);
  await settle(run, `no key is left below ${prefix}`, async () => (await client.count(prefix, { prefix: true })) === 0);
}

/** Values of a key in the order in which they were written. */
async function historyOf(client: EtcdClient, key: string): Promise<string[]> {
  const values: string[] = [];
  const { revision } = await client.put(key, "end");
  await using watch = client.watch(key, { fromRevision: 1 });
  for await (const batch of watch) {
    for (const event of batch.events) if (event.type === "put" && event.kv.value !== "end") values.push(event.kv.value);
    if (batch.revision >= revision) break;
  }
  return values;
}

/** Who believes to hold something, by a clock that all share. */
class Holders {
  readonly #holders = new Map<object, { readonly kind: "read" | "write"; readonly held: Pick<HeldLock, "token" | "throwIfLost"> }>();
  granted = 0;

  enter(held: Pick<HeldLock, "token" | "throwIfLost">, kind: "read" | "write" = "write"): void {
    for (const other of this.#holders.values()) {
      if (kind === "read" && other.kind === "read") continue;
      check(
        !believes(other.held),
        `${kind} was granted with token ${held.token} while ${other.kind} with token ${other.held.token} was held`,
      );
      if (kind === "write" || other.kind === "write") check(other.held.token !== held.token, `token ${held.token} was given out twice`);
    }
    this.granted += 1;
    this.#holders.set(held, { kind, held });
  }

  leave(held: object): void {
    this.#holders.delete(held);
  }
}

function believes(held: Pick<HeldLock, "throwIfLost">): boolean {
  try {
    held.throwIfLost();
    return true;
  } catch (error) {
    if (!(error instanceof LockLostError)) throw error;
    return false;
  }
}

/** Tokens grow along the history of what was written through them, and each belongs to one holder only. */
function checkTokens(history: readonly string[]): void {
  let newest = 0;
  const owners = new Map<number, string>();
  for (const value of history) {
    const [token = "", owner = ""] = value.split(" ");
    check(Number(token) >= newest, `a write with token ${token} came after one with token ${newest}`);
    newest = Number(token);
    check((owners.get(newest) ?? owner) === owner, `token ${token} was used by ${owner} and by ${owners.get(newest)}`);
    owners.set(newest, owner);
  }
}

const LOCK_TTL_SECONDS = 3;

/** Mutual exclusion, seen from the holders and from what they wrote. */
export async function locks(run: FaultRun): Promise<number> {
  const holders = new Holders();
  // A resource outside of the cluster that compares tokens, as it should.
  let outside = 0;
  let refusedOutside = 0;
  const worker = async (name: string, patience: number): Promise<void> => {
    const sessions = new Sessions(run.client(name), LOCK_TTL_SECONDS);
    // Two callers of one session hand the lock to each other before its giving back is confirmed.
    await Promise.all([`${name}1`, `${name}2`].map((caller) => callerOf(sessions, caller, patience)));
    await sessions.close();
  };
  const callerOf = async (sessions: Sessions, name: string, patience: number): Promise<void> => {
    await untilOver(run, async () => {
      const session = await sessions.get();
      const held = await session.mutex("lock").lock({ timeoutMs: patience });
      holders.enter(held);
      try {
        for (let step = 0; step < 3; step += 1) {
          await held
            .txn()
            .do(op.put("register", `${held.token} ${name}`))
            .commit({ timeoutMs: 4000 });
          await run.sleep(run.random.below(400));
          if (held.token < outside) refusedOutside += 1;
          else outside = held.token;
        }
        holders.leave(held);
        if (run.random.chance({ of: 1, outOf: 2 })) await held.finish(op.put("register", `${held.token} ${name}`));
      } finally {
        holders.leave(held);
        await held.release({ timeoutMs: 2000 });
      }
    });
  };
  await Promise.all(["a", "b", "c", "d"].map((name, i) => worker(name, 500 + 3000 * i)));
  const client = run.client("judge");
  await client.put("register", "start", { retry: "always" });
  checkTokens((await historyOf(client, "register")).filter((value) => value !== "start"));
  await nothingIsLeft(run, client, "lock/");
  // It still works.
  const session = await openSession(client, { ttlSeconds: 5 });
  await (await session.mutex("lock").lock({ timeoutMs: 20_000 })).unlock();
  await session.close();
  return holders.granted + refusedOutside;
}

export async function rwLocks(run: FaultRun): Promise<number> {
  const holders = new Holders();
  const worker = async (name: string): Promise<void> => {
    const sessions = new Sessions(run.client(name), LOCK_TTL_SECONDS);
    await untilOver(run, async () => {
      const lock = (await sessions.get()).rwMutex("rw");
      const kind = run.random.chance({ of: 2, outOf: 3 }) ? "read" : "write";
      const held = await (kind === "read" ? lock.readLock({ timeoutMs: 5000 }) : lock.writeLock({ timeoutMs: 5000 }));
      holders.enter(held, kind);
      try {
        if (kind === "write") {
          await held
            .txn()
            .do(op.put("register", `${held.token} ${name}`))
            .commit({ timeoutMs: 4000 });
        }
        await run.sleep(run.random.below(500));
      } finally {
        holders.leave(held);
        await held.release({ timeoutMs: 2000 });
      }
    });
    await sessions.close();
  };
  await Promise.all(["a", "b", "c", "d", "e"].map(worker));
  const client = run.client("judge");
  checkTokens(await historyOf(client, "register"));
  await nothingIsLeft(run, client, "rw/");
  return holders.granted;
}

/** At most one leader per election revision, for candidates and for observers; no observer goes back. */
export async function elections(run: FaultRun): Promise<number> {
  const leaders = new Map<number, string>();
  const ruling = new Map<Leadership, string>();
  const candidate = async (name: string): Promise<void> => {
    const sessions = new Sessions(run.client(name), LOCK_TTL_SECONDS);
    await untilOver(run, async () => {
      const session = await sessions.get();
      const leadership = await session.election("el").campaign(name, { timeoutMs: 8000 });
      const { token } = leadership;
      for (const [other, otherName] of ruling) {
        check(!isHeld(other), `${name} became leader with token ${token} while ${otherName} led with token ${other.token}`);
      }
      check(!leaders.has(token), `${name} and ${leaders.get(token)} became leaders with token ${token}`);
      leaders.set(token, name);
      ruling.set(leadership, name);
      try {
        for (let step = 0; step < 3; step += 1) {
          await run.sleep(run.random.below(500));
          await leadership.proclaim(`${name} ${step}`, { timeoutMs: 4000 });
        }
      } finally {
        ruling.delete(leadership);
        await leadership.resign({ timeoutMs: 2000 });
      }
    });
    await sessions.close();
  };
  const seen = new Map<number, string>();
  const observer = async (name: string): Promise<void> => {
    const client = run.client(name);
    let newest = 0;
    let revision = 0;
    try {
      for await (const leader of observeLeader(client, "el", { signal: run.signal })) {
        check(leader.token >= newest, `${name} saw the leader with token ${leader.token} after ${newest}`);
        // Who leads later may have said its last word earlier.
        check(leader.token > newest || leader.revision > revision, `${name} saw revision ${leader.revision} after ${revision}`);
        newest = leader.token;
        revision = leader.revision;
        const who = leader.value.split(" ")[0] ?? "";
        check((seen.get(newest) ?? who) === who, `token ${newest} was seen of ${seen.get(newest)} and of ${who}`);
        seen.set(newest, who);
      }
    } catch (error) {
      if (!run.signal.aborted) throw error;
    }
  };
  await Promise.all([...["a", "b", "c"].map(candidate), ...["o1", "o2"].map(observer)]);
  for (const [token, who] of leaders) check((seen.get(token) ?? who) === who, `token ${token}: ${who} led, ${seen.get(token)} was seen`);
  await nothingIsLeft(run, run.client("judge"), "el/");
  return leaders.size;
}

function isHeld(leadership: Leadership): boolean {
  return !leadership.signal.aborted && leadership.safeForMs > 0;
}

/** Items are neither lost nor doubled, and those of one producer come in order. */
async function queued(
  run: FaultRun,
  make: (client: EtcdClient, session: Session | undefined) => { enqueue(item: string): Promise<unknown>; dequeue: Queue["dequeue"] },
  prefix: string,
  ordered: boolean,
): Promise<number> {
  const put = new Set<string>();
  const uncertain = new Set<string>();
  const taken: { readonly item: string; readonly revision: number }[] = [];
  const producer = async (name: string): Promise<void> => {
    const queue = make(run.client(name), undefined);
    let n = 0;
    await untilOver(run, async () => {
      n += 1;
      const item = `${name}-${n}`;
      uncertain.add(item);
      await queue.enqueue(item);
      uncertain.delete(item);
      put.add(item);
    });
  };
  let lostSessions = 0;
  const consumer = async (name: string): Promise<void> => {
    const client = run.client(name);
    while (!run.signal.aborted) {
      let session: Session;
      try {
        session = await openSession(client, { ttlSeconds: 60, timeoutMs: 5000 });
      } catch (error) {
        if (!isExpected(error)) throw error;
        await run.sleep(100);
        continue;
      }
      const queue = make(client, session);
      while (!run.signal.aborted && !session.lost.aborted) {
        try {
          const { value, revision } = await queue.dequeue({ timeoutMs: 200 + run.random.below(3000) });
          taken.push({ item: value, revision });
        } catch (error) {
          if (!isExpected(error)) throw error;
        }
        await run.sleep(run.random.below(30));
      }
      if (session.lost.aborted) lostSessions += 1;
      await session.close().catch((error: unknown) => check(isExpected(error), String(error)));
    }
  };
  await Promise.all([...["p1", "p2"].map(producer), ...["c1", "c2", "c3"].map(consumer)]);
  check(lostSessions === 0, "a session of a minute does not end in a run of seconds");
  const client = run.client("judge");
  const rest = make(client, undefined);
  for (;;) {
    if ((await client.count(prefix, { prefix: true })) === 0) break;
    const { value, revision } = await rest.dequeue({ timeoutMs: 20_000 });
    taken.push({ item: value, revision });
  }
  const seen = new Set<string>();
  for (const { item } of taken) {
    check(!seen.has(item), `${item} was taken twice`);
    check(put.has(item) || uncertain.has(item), `${item} was taken, but never put in`);
    seen.add(item);
  }
  for (const item of put) check(seen.has(item), `${item} was put in and is lost`);
  if (ordered) {
    for (const name of ["p1", "p2"]) {
      const own = taken.filter(({ item }) => item.startsWith(`${name}-`));
      const byRevision = [...own].sort((a, b) => a.revision - b.revision);
      const numbers = byRevision.map(({ item }) => Number(item.split("-")[1]));
      // A try whose answer was lost may have come in late, but never two of which both were answered.
      const sure = numbers.filter((n) => put.has(`${name}-${n}`));
      check(
        sure.every((n, i) => i === 0 || n > (sure[i - 1] as number)),
        `the items of ${name} changed places`,
      );
    }
  }
  return taken.length;
}

export function queues(run: FaultRun): Promise<number> {
  return queued(
    run,
    (client, session) => {
      const queue = new Queue(client, "q", { session });
      return { enqueue: (item) => queue.enqueue(item, { timeoutMs: 3000 }), dequeue: (options) => queue.dequeue(options) };
    },
    "q/",
    true,
  );
}

export function priorityQueues(run: FaultRun): Promise<number> {
  return queued(
    run,
    (client, session) => {
      const queue = new PriorityQueue(client, "pq", { session });
      return {
        enqueue: (item) => queue.enqueue(item, run.random.below(3), { timeoutMs: 3000 }),
        dequeue: (options) => queue.dequeue(options),
      };
    },
    "pq/",
    false,
  );
}

/** A job that runs on one instance: what it writes never goes back to an earlier reign, and an instance never runs it twice at once. */
export async function jobs(run: FaultRun): Promise<number> {
  let steps = 0;
  const instance = async (name: string): Promise<void> => {
    const client = run.client(name);
    let running = 0;
    const options = { value: name, ttlSeconds: LOCK_TTL_SECONDS, signal: run.signal };
    const job = async ({ token, signal, txn }: LeaderContext): Promise<void> => {
      running += 1;
      check(running === 1, `${name} runs its job ${running} times at once`);
      try {
        while (!signal.aborted) {
          await txn()
            .do(op.put("register", `${token} ${name}`))
            .commit({ timeoutMs: 3000 });
          steps += 1;
          await run.sleep(run.random.below(200));
          // Now and then it is done, and somebody else gets the chance.
          if (run.random.chance({ of: 1, outOf: 15 })) return;
        }
      } finally {
        running -= 1;
      }
    };
    await untilOver(run, () => runWhileLeader(client, "job", job, options));
  };
  await Promise.all(["a", "b", "c"].map(instance));
  const client = run.client("judge");
  checkTokens(await historyOf(client, "register"));
  await nothingIsLeft(run, client, "job/");
  return steps;
}

/** Two begin together and end together, round after round, whatever happens; who cannot come lets the other one go. */
export async function barriers(run: FaultRun): Promise<number> {
  let inside = 0;
  let rounds = 0;
  const participant = async (name: string): Promise<void> => {
    const sessions = new Sessions(run.client(name), LOCK_TTL_SECONDS);
    await untilOver(run, async () => {
      const session = await sessions.get();
      const barrier = session.doubleBarrier("db", 2);
      await barrier.enter({ timeoutMs: 5000 });
      inside += 1;
      check(inside <= 2, `${inside} are inside of a barrier for two`);
      try {
        await run.sleep(run.random.below(100));
      } finally {
        inside -= 1;
      }
      rounds += 1;
      await barrier.leave({ timeoutMs: 5000 }).catch(async (error: unknown) => {
        // It may be inside still: its lease decides.
        await session.close({ timeoutMs: 2000 }).catch((reason: unknown) => check(isExpected(reason), String(reason)));
        throw error;
      });
    });
    await sessions.close();
  };
  await Promise.all(["a", "b"].map(participant));
  const client = run.client("judge");
  await settle(run, "all leases have ended", async () => (await client.leases.list()).length === 0);
  check((await client.count("db/waiters", { prefix: true })) === 0, "a place is taken still");
  return rounds;
}

const ACCOUNTS = ["a", "b", "c", "d"];
const BALANCE = 100;

/** A bank whose sum must stay, read in transactions that change nothing. */
export async function transactions(run: FaultRun): Promise<number> {
  const judge = run.client("judge");
  for (const account of ACCOUNTS)
    await settle(run, "an account", async () => (await judge.put(`acc/${account}`, String(BALANCE))) !== undefined);
  let done = 0;
  const read = (client: EtcdClient): Promise<number> =>
    stm(client, (tx) => Promise.all(ACCOUNTS.map((account) => tx.get(`acc/${account}`))), { timeoutMs: 5000 }).then(({ value }) =>
      value.reduce((sum, one) => sum + Number(one), 0),
    );
  const teller = async (name: string, isolation: "serializable-snapshot" | "serializable" | "repeatable-reads"): Promise<void> => {
    const client = run.client(name);
    await untilOver(run, async () => {
      const from = ACCOUNTS[run.random.below(4)];
      const to = ACCOUNTS[run.random.below(4)];
      if (from === to) return;
      await stm(
        client,
        async (tx) => {
          const [a, b] = await Promise.all([tx.get(`acc/${from}`), tx.get(`acc/${to}`)]);
          tx.put(`acc/${from}`, String(Number(a) - 1));
          tx.put(`acc/${to}`, String(Number(b) + 1));
        },
        { isolation, timeoutMs: 5000 },
      );
      done += 1;
    });
  };
  const auditor = async (name: string): Promise<void> => {
    const client = run.client(name);
    await untilOver(run, async () => {
      const sum = await read(client);
      check(sum === BALANCE * ACCOUNTS.length, `the sum was ${sum}`);
    });
  };
  await Promise.all([
    teller("t1", "serializable-snapshot"),
    teller("t2", "serializable"),
    teller("t3", "repeatable-reads"),
    auditor("auditor"),
  ]);
  const sum = await read(judge);
  check(sum === BALANCE * ACCOUNTS.length, `the sum is ${sum}`);
  return done;
}

/** No number is given out twice. */
export async function sequences(run: FaultRun): Promise<number> {
  const given = new Set<number>();
  await Promise.all(
    [1, 4, 10].map(async (block, i) => {
      const sequence = new Sequence(run.client(`s${i}`), "seq", { block });
      await untilOver(run, async () => {
        const numbers = await Promise.all(Array.from({ length: 5 }, () => sequence.next()));
        for (const number of numbers) {
          check(!given.has(number), `${number} was given out twice`);
          given.add(number);
        }
      });
    }),
  );
  return given.size;
}

export const BODIES: Readonly<Record<string, (run: FaultRun) => Promise<number>>> = {
  locks,
  "rw-locks": rwLocks,
  elections,
  jobs,
  barriers,
  queues,
  "priority-queues": priorityQueues,
  transactions,
  sequences,
};
