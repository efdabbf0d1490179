/**
 * Files as they lie on a disk, loaded into a member as key = path, value = bytes over the JSON API; then everything that a reader may expect of them: the same bytes
 * through JSON and in the process, also after a restart, each exactly once and in order for watches from the first revision on, and nothing left after a deletion.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as api from "../../src/api/index.ts";
import type { EtcdClient } from "../../src/client/index.ts";
import { HttpCaller } from "../chaos/json-client.ts";
import { WatchStream } from "../chaos/watch-recorder.ts";
import { until } from "../support/server-process.ts";

export interface RealFile {
  readonly path: string;
  readonly bytes: Buffer;
}

/** One life of a member on the data directory of the one before. */
export interface OpenMember {
  readonly url: string;
  close(): Promise<unknown>;
}

export interface RealInputOptions {
  /** All paths begin with it; it ends with a slash. */
  readonly prefix: string;
  readonly files: readonly RealFile[];
  /** A member that is loaded and read over the network. */
  readonly first: () => Promise<OpenMember>;
  /** A member in this process, after the first has ended. */
  readonly second: () => Promise<OpenMember & { readonly client: EtcdClient }>;
  /** For a line of the report. */
  readonly say: (line: string) => void;
}

/** Something is not as it was loaded. */
export class RealInputError extends Error {}

/** etcd's limit of a request, less what surrounds a value, and half as much again for base64. */
const VALUE_BYTES_MAX = 1_000_000;
const CALLERS = 16;
const CALL_MS = 30_000;
const ALL_MS = 120_000;

/** Every `package.json` and README below `directory` (a name in `root`), by path, each at its own place only; larger ones than a request may be are counted in `tooLarge`. */
export function findRealFiles(root: string, directory: string): { files: RealFile[]; tooLarge: number } {
  const files: RealFile[] = [];
  let tooLarge = 0;
  const visit = (below: string): void => {
    for (const entry of readdirSync(join(root, below), { withFileTypes: true })) {
      const path = `${below}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile() && (entry.name === "package.json" || /^readme(\.|$)/i.test(entry.name))) {
        if (statSync(join(root, path)).size > VALUE_BYTES_MAX) tooLarge += 1;
        else files.push({ path, bytes: readFileSync(join(root, path)) });
      }
    }
  };
  visit(directory);
  files.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
  return { files, tooLarge };
}

/** @throws RealInputError */
export async function checkRealInput(options: RealInputOptions): Promise<void> {
  const { files, say } = options;
  const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const longest = files.reduce((most, { bytes }) => Math.max(most, bytes.length), 0);
  say(`${files.length} files, ${mega(total)}; the longest has ${longest} bytes`);
  const first = await options.first();
  let revisions: Map<string, number>;
  try {
    revisions = await overJson(options, first.url);
  } finally {
    await first.close();
  }
  const second = await options.second();
  try {
    await inProcess(options, second, revisions);
  } finally {
    await second.close();
  }
}

async function overJson({ prefix, files, say }: RealInputOptions, url: string): Promise<Map<string, number>> {
  const http = new HttpCaller(CALLERS);
  const post = async <T extends object>(type: api.MessageType<T>, path: string, body: string): Promise<T> => {
    const { status, text } = await http.post(url, path, body, CALL_MS);
    if (status !== 200) throw new RealInputError(`${path}: ${status} ${text}`);
    return api.parseJson(type, text);
  };
  const all = api.WatchCreateRequest.create({ ...range(prefix), startRevision: 1 });
  const live: api.Event[] = [];
  const streams = [new WatchStream(url, all, ({ events }) => void live.push(...events))];
  try {
    const revisions = new Map<string, number>();
    const putting = timer();
    await each(files, async ({ path, bytes }) => {
      const request = api.PutRequest.create({ key: Buffer.from(path), value: bytes });
      const { header } = await post(api.PutResponse, "/v3/kv/put", api.PutRequest.printJson(request));
      revisions.set(path, header?.revision ?? 0);
    });
    say(`put over JSON by ${CALLERS} callers: ${rate(putting(), files)}`);

    await until("the watch that was there before has everything", ALL_MS, () => live.length >= files.length);
    checkEvents("the watch that was there before", files, revisions, live.map(eventOf));
    const watching = timer();
    const past: api.Event[] = [];
    streams.push(new WatchStream(url, all, ({ events }) => void past.push(...events)));
    await until("the watch from the first revision on has everything", ALL_MS, () => past.length >= files.length, 5);
    say(`watched from revision 1 over JSON: ${rate(watching(), files)}`);
    checkEvents("the watch from the first revision on", files, revisions, past.map(eventOf));

    const reading = timer();
    await each(files, async ({ path, bytes }) => {
      const request = api.RangeRequest.create({ key: Buffer.from(path) });
      const { kvs } = await post(api.RangeResponse, "/v3/kv/range", api.RangeRequest.printJson(request));
      checkPair("JSON", { path, bytes }, kvs[0], revisions.get(path));
    });
    say(`read one by one over JSON: ${rate(reading(), files)}`);
    const ranging = timer();
    const { kvs, count } = await post(
      api.RangeResponse,
      "/v3/kv/range",
      api.RangeRequest.printJson(api.RangeRequest.create(range(prefix))),
    );
    say(`read at once over JSON: ${rate(ranging(), files)}`);
    if (count !== files.length) throw new RealInputError(`there are ${count} keys, not ${files.length}`);
    for (const [at, file] of files.entries()) checkPair("a range over JSON", file, kvs[at], revisions.get(file.path));
    return revisions;
  } finally {
    for (const stream of streams) stream.close();
    http.close();
  }
}

async function inProcess(
  { prefix, files, say }: RealInputOptions,
  { client }: { readonly client: EtcdClient },
  revisions: ReadonlyMap<string, number>,
): Promise<void> {
  const raw = client.raw();
  const reading = timer();
  await each(files, async (file) => checkPair("the process", file, await raw.get(file.path), revisions.get(file.path)));
  say(`read one by one in the process, after a restart: ${rate(reading(), files)}`);
  let at = 0;
  for await (const kv of raw.entries(prefix, { prefix: true })) {
    const file = files[at];
    if (file === undefined) throw new RealInputError("there are more keys than files");
    checkPair("a range in the process", file, kv, revisions.get(file.path));
    at += 1;
  }
  if (at !== files.length) throw new RealInputError(`there are ${at} keys, not ${files.length}`);

  const watcher = raw.watch(prefix, { prefix: true, fromRevision: 1, signal: AbortSignal.timeout(ALL_MS) });
  const watching = timer();
  const seen: SeenEvent[] = [];
  let deletedAt: number | undefined;
  let deletions = 0;
  try {
    for await (const { events } of watcher) {
      for (const event of events) {
        if (event.type === "put") seen.push({ key: event.key, value: event.kv.value, revision: event.revision });
        else {
          if (event.revision !== deletedAt || Buffer.compare(event.key, Buffer.from(files[deletions]?.path ?? "")) !== 0)
            throw new RealInputError(`a deletion of ${Buffer.from(event.key)} at ${event.revision}`);
          deletions += 1;
        }
      }
      if (seen.length >= files.length && deletedAt === undefined) {
        say(`watched from revision 1 in the process: ${rate(watching(), files)}`);
        checkEvents("the watch in the process", files, revisions, seen);
        const before = await raw.maintenance.status();
        const deleting = timer();
        const { deleted, revision } = await raw.delete(prefix, { prefix: true });
        deletedAt = revision;
        say(`deleted as one prefix: ${deleting().toFixed(0)} ms; the store had ${mega(before.dbSize)}`);
        if (deleted !== files.length) throw new RealInputError(`${deleted} keys were deleted, not ${files.length}`);
      }
      if (deletions >= files.length) break;
    }
  } finally {
    watcher.close();
  }
  if (seen.length !== files.length) throw new RealInputError(`${seen.length} events for ${files.length} files`);
  const left = await raw.count(prefix, { prefix: true });
  if (left !== 0) throw new RealInputError(`${left} keys are left after the deletion`);
}

interface SeenEvent {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly revision: number;
}

function eventOf({ kv, type }: api.Event): SeenEvent {
  if (kv === undefined || type !== api.EventType.PUT) throw new RealInputError("an event that is no put");
  return { key: kv.key, value: kv.value, revision: kv.modRevision };
}

/** Each file exactly once, in the order of the revisions that the puts were answered with. */
function checkEvents(what: string, files: readonly RealFile[], revisions: ReadonlyMap<string, number>, events: readonly SeenEvent[]): void {
  const inOrder = [...files].sort((a, b) => (revisions.get(a.path) ?? 0) - (revisions.get(b.path) ?? 0));
  if (events.length !== files.length) throw new RealInputError(`${what}: ${events.length} events for ${files.length} files`);
  for (const [at, { path, bytes }] of inOrder.entries()) {
    const event = events[at];
    const isRight = event !== undefined && event.revision === revisions.get(path) && Buffer.from(path).equals(event.key);
    if (!isRight || !bytes.equals(event.value))
      throw new RealInputError(`${what}: event ${at} should be ${path} at ${revisions.get(path)}, is ${event?.revision}`);
  }
}

interface Pair {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
}

function checkPair(what: string, { path, bytes }: RealFile, kv: Pair | undefined, revision: number | undefined): void {
  if (kv === undefined) throw new RealInputError(`${what}: ${path} is not there`);
  if (!Buffer.from(path).equals(kv.key)) throw new RealInputError(`${what}: ${Buffer.from(kv.key)} in the place of ${path}`);
  if (!bytes.equals(kv.value)) throw new RealInputError(`${what}: ${path} has other bytes`);
  if (kv.version !== 1 || kv.createRevision !== revision || kv.modRevision !== revision)
    throw new RealInputError(`${what}: ${path} was put once, at ${revision}: ${kv.version} ${kv.createRevision} ${kv.modRevision}`);
}

/** Of everything below a prefix that ends with a slash. */
function range(prefix: string): { key: Uint8Array; rangeEnd: Uint8Array } {
  return { key: Buffer.from(prefix), rangeEnd: Buffer.from(prefix.replace(/\/$/, "0")) };
}

/** With some at a time; the first error ends it. */
async function each<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    for (let one = all[next]; one !== undefined; one = all[next]) {
      next += 1;
      await work(one);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, run));
}

function timer(): () => number {
  const start = performance.now();
  return () => performance.now() - start;
}

function rate(ms: number, files: readonly RealFile[]): string {
  const bytes = files.reduce((sum, one) => sum + one.bytes.length, 0);
  return `${ms.toFixed(0)} ms, ${Math.round((files.length / ms) * 1000)} files/s, ${mega((bytes / ms) * 1000)}/s`;
}

function mega(bytes: number): string {
  return `${(bytes / 1e6).toFixed(2)} MB`;
}
