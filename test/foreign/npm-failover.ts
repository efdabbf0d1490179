/** npm's etcd3 while members end: it writes and watches, and what it saw is checked against history. */
import { Etcd3, type Watcher } from "etcd3";
import { sleep, until } from "../support/server-process.ts";

const PREFIX = "npm-failover/";
const WRITERS = 4;
const WARM_UP = 100;
const CALL_MS = 5000;

export interface Check {
  readonly name: string;
  /** Undefined if it passed. */
  readonly failure: string | undefined;
  readonly note: string;
}

interface Seen {
  readonly revision: number;
  readonly written: string;
}

/** Writes and watches until `faults` is through. */
export async function npmFailover(urls: readonly string[], faults: () => Promise<void>): Promise<Check[]> {
  const client = new Etcd3({ hosts: [...urls] });
  const watching = new Etcd3({ hosts: [...urls] });
  const answered = new Map<number, string>();
  let unknown = 0;
  let working = true;
  try {
    const begin = await client.put(`${PREFIX}begin`).value("x");
    const first = Number(begin.header.revision);
    const seen: Seen[] = [];
    const failures: string[] = [];
    const watcher = await recording(watching, first, seen, failures);
    const write = async (writer: number): Promise<void> => {
      const key = `${PREFIX}writer/${writer}`;
      for (let n = 0; working; n++) {
        try {
          const put = await client
            .put(key)
            .value(n)
            .options({ deadline: Date.now() + CALL_MS });
          answered.set(Number(put.header.revision), `${key}=${n}`);
        } catch {
          // Whatever it says: the write may have been done or not.
          unknown++;
          await sleep(20);
        }
      }
    };
    const writers = Array.from({ length: WRITERS }, (_, i) => write(i));
    await until("the npm client has written", 30_000, () => answered.size >= WARM_UP);
    await faults();
    const before = answered.size;
    await until("the npm client writes again", 30_000, () => answered.size > before + 10);
    working = false;
    await Promise.all(writers);
    const end = Number((await client.put(`${PREFIX}end`).value("x")).header.revision);
    const history: Seen[] = [];
    const reader = await recording(client, first, history, failures);
    const passed = async (what: string, list: readonly Seen[]): Promise<void> => {
      await until(`${what} has come to revision ${end}: is at ${list.at(-1)?.revision}`, 30_000, () => list.at(-1)?.revision === end);
    };
    await passed("history", history);
    const resumed = await passed("the watch", seen).then(
      () => undefined,
      (error: unknown) => String(error),
    );
    await watcher.cancel();
    await reader.cancel();
    const gap = history.findIndex(({ revision }, i) => revision !== first + i);
    const lost = [...answered].find(([revision, written]) => history[revision - first]?.written !== written);
    const differing = history.findIndex((event, i) => event.revision !== seen[i]?.revision || event.written !== seen[i]?.written);
    return [
      check("history-has-answered-writes", lost && `revision ${lost[0]}: ${lost[1]}`, `${answered.size} answered, ${unknown} unknown`),
      check("revisions-without-gap", gap < 0 ? undefined : `at event ${gap}`, `${history.length} events`),
      check(
        "watch-saw-all-once-in-order",
        resumed ??
          failures[0] ??
          (differing < 0 && seen.length === history.length ? undefined : `differs at ${differing}, ${seen.length} seen`),
        `${seen.length} events`,
      ),
    ];
  } catch (error) {
    return [check("runs", String(error instanceof Error ? (error.stack ?? error) : error), "")];
  } finally {
    working = false;
    client.close();
    watching.close();
  }
}

function check(name: string, failure: string | undefined, note: string): Check {
  return { name: `npm-etcd3-failover-${name}`, failure, note };
}

async function recording(client: Etcd3, first: number, seen: Seen[], failures: string[]): Promise<Watcher> {
  const watcher = await client.watch().prefix(PREFIX).startRevision(String(first)).create();
  watcher.on("data", ({ events }) => {
    for (const { kv } of events) seen.push({ revision: Number(kv.mod_revision), written: `${kv.key.toString()}=${kv.value.toString()}` });
  });
  watcher.on("error", (error) => failures.push(String(error)));
  return watcher;
}
