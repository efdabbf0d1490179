/** A client process for the scale suites: many watchers, or many leases, over gRPC streams. Its own cost is the same for every server. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import * as api from "../../../src/api/index.ts";

export interface WatchJob {
  readonly kind: "watch";
  readonly url: string;
  readonly streams: number;
  readonly watchers: number;
  /** Watchers that each put wakes. */
  readonly matching: number;
}

export interface DeliverJob {
  readonly kind: "deliver";
  readonly puts: number;
  readonly valueBytes: number;
}

export interface LeaseJob {
  readonly kind: "lease";
  readonly url: string;
  readonly leases: number;
  readonly ttl: number;
  /** So long the leases are renewed, each three times per TTL. */
  readonly durationMs: number;
  /** Leases of five seconds with a key each, nobody renews them. */
  readonly expiring: number;
}

export type ScaleJob = WatchJob | DeliverJob | LeaseJob;

export interface LeaseResult {
  readonly grantsPerSecond: number;
  readonly renewals: number;
  readonly refusedRenewals: number;
  readonly slowestRenewalMs: number;
  /** From the end of its time to the event that its key is gone. */
  readonly latestExpiryMs: number;
  readonly medianExpiryMs: number;
  /** Keys that went before their lease's time was over. */
  readonly early: number;
}

export type ScaleAnswer =
  | { readonly kind: "watching" }
  | { readonly kind: "delivered"; readonly events: number; readonly elapsedMs: number }
  | { readonly kind: "leased"; readonly result: LeaseResult }
  | { readonly kind: "failed"; readonly reason: string };

const CONNECTIONS = 10;
const WINDOW = 16 * 1024 * 1024;
const IN_FLIGHT = 16;
const DEADLINE_MS = 120_000;
const EXPIRING_TTL = 5;

/** One stream: messages go out as they are, and come in whole. */
class Stream {
  readonly #stream: ClientHttp2Stream;
  #pending: Buffer = Buffer.alloc(0);

  constructor(session: ClientHttp2Session, path: string, take: (message: Buffer) => void, ended: () => void = () => undefined) {
    this.#stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers" });
    this.#stream.on("error", ended);
    this.#stream.on("close", ended);
    this.#stream.on("data", (bytes: Buffer) => {
      const all = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
      let at = 0;
      while (all.length - at >= 5) {
        const end = at + 5 + all.readUInt32BE(at + 1);
        if (end > all.length) break;
        take(all.subarray(at + 5, end));
        at = end;
      }
      this.#pending = all.subarray(at);
    });
  }

  send(message: Uint8Array, last = false): void {
    const bytes = Buffer.alloc(5 + message.length);
    bytes.writeUInt32BE(message.length, 1);
    bytes.set(message, 5);
    if (last) this.#stream.end(bytes);
    else this.#stream.write(bytes);
  }

  close(): void {
    this.#stream.close();
  }
}

function open(url: string): ClientHttp2Session {
  const session = connect(url, { settings: { initialWindowSize: WINDOW } });
  session.on("error", (error: Error) =>
    process.send?.({ kind: "failed", reason: `the connection: ${error.message}` } satisfies ScaleAnswer),
  );
  session.on("connect", () => session.setLocalWindowSize(WINDOW));
  return session;
}

function unary(session: ClientHttp2Session, path: string, request: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let answer: Buffer | undefined;
    const stream = new Stream(
      session,
      path,
      (message) => {
        answer = message;
      },
      () => (answer === undefined ? reject(new Error(`${path} was refused`)) : resolve(answer)),
    );
    stream.send(request, true);
  });
}

/** Runs `count` calls, so many at once. */
async function inFlight(count: number, atOnce: number, call: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await call(next - 1);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker));
}

/** Resolves when `done` says so; it is asked after every turn of {@link poke}. */
class Condition {
  #check: (() => void) | undefined;

  poke(): void {
    this.#check?.();
  }

  until(what: string, done: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS);
      this.#check = () => {
        if (!done()) return;
        clearTimeout(timer);
        this.#check = undefined;
        resolve();
      };
      this.poke();
    });
  }
}

// -- watchers --------------------------------------------------------------------------------------------------------------------------------

interface Watching {
  readonly url: string;
  readonly matching: number;
  readonly keys: number;
}

let watching: Watching | undefined;
let created = 0;
let delivered = 0;
const progress = new Condition();

function watchedKey(n: number): Uint8Array {
  return Buffer.from(`/scale/watch/${n}`);
}

/** How many events a WatchResponse has (field 11), without decoding them; the first response of a watcher says that it is created (field 3). */
function scan(message: Buffer): void {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++] ?? 0;
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    if ((tag & 7) === 0) {
      varint();
      if (tag >> 3 === 3) created += 1;
    } else {
      const length = varint();
      at += length;
      if (tag >> 3 === 11) delivered += 1;
    }
  }
}

async function watch(job: WatchJob): Promise<void> {
  const sessions = Array.from({ length: Math.min(CONNECTIONS, job.streams) }, () => open(job.url));
  const streams = Array.from(
    { length: job.streams },
    (_, n) =>
      new Stream(sessions[n % sessions.length] as ClientHttp2Session, "/etcdserverpb.Watch/Watch", (message) => {
        scan(message);
        progress.poke();
      }),
  );
  const keys = Math.max(1, Math.round(job.watchers / job.matching));
  for (let n = 0; n < job.watchers; n += 1) {
    const createRequest = api.WatchCreateRequest.create({ key: watchedKey(n % keys) });
    streams[n % streams.length]?.send(api.WatchRequest.encode(api.WatchRequest.create({ createRequest })));
  }
  await progress.until("all watchers exist", () => created === job.watchers);
  watching = { url: job.url, matching: job.watchers / keys, keys };
}

async function deliver(job: DeliverJob): Promise<ScaleAnswer> {
  if (watching === undefined) throw new Error("nobody watches");
  const { url, matching, keys } = watching;
  const session = open(url);
  const before = delivered;
  const wanted = before + job.puts * matching;
  const value = Buffer.alloc(job.valueBytes, "v");
  const start = performance.now();
  const all = progress.until("every event is delivered", () => delivered >= wanted);
  await inFlight(job.puts, IN_FLIGHT, async (n) => {
    await unary(session, "/etcdserverpb.KV/Put", api.PutRequest.encode(api.PutRequest.create({ key: watchedKey(n % keys), value })));
  });
  await all;
  const elapsedMs = performance.now() - start;
  session.close();
  return { kind: "delivered", events: delivered - before, elapsedMs };
}

// -- leases ----------------------------------------------------------------------------------------------------------------------------------

async function lease(job: LeaseJob): Promise<ScaleAnswer> {
  const sessions = Array.from({ length: CONNECTIONS }, () => open(job.url));
  const sessionOf = (n: number): ClientHttp2Session => sessions[n % sessions.length] as ClientHttp2Session;
  const grant = async (n: number, ttl: number): Promise<bigint> => {
    const request = api.LeaseGrantRequest.encode(api.LeaseGrantRequest.create({ ttl }));
    return api.LeaseGrantResponse.decode(await unary(sessionOf(n), "/etcdserverpb.Lease/LeaseGrant", request)).id;
  };
  const ids: bigint[] = [];
  const started = performance.now();
  await inFlight(job.leases, 64, async (n) => {
    ids.push(await grant(n, job.ttl));
  });
  const grantsPerSecond = (job.leases * 1000) / (performance.now() - started);

  // Renewals, evenly spread over a third of the TTL.
  let [renewals, refusedRenewals, slowestRenewalMs, ended] = [0, 0, 0, false];
  const waiting: number[][] = sessions.map(() => []);
  const streams = sessions.map(
    (session, n) =>
      new Stream(session, "/etcdserverpb.Lease/LeaseKeepAlive", (message) => {
        const answer = api.LeaseKeepAliveResponse.decode(message);
        renewals += 1;
        if (Number(answer.ttl) <= 0) refusedRenewals += 1;
        slowestRenewalMs = Math.max(slowestRenewalMs, performance.now() - (waiting[n]?.shift() ?? 0));
      }),
  );
  const messages = ids.map((id) => api.LeaseKeepAliveRequest.encode(api.LeaseKeepAliveRequest.create({ id })));
  const periodMs = (job.ttl * 1000) / 3;
  const renew = async (): Promise<void> => {
    const begin = performance.now();
    for (let sent = 0; !ended; ) {
      const due = Math.floor(((performance.now() - begin) * ids.length) / periodMs);
      for (; sent < due; sent += 1) {
        const n = sent % ids.length;
        waiting[n % streams.length]?.push(performance.now());
        streams[n % streams.length]?.send(messages[n] as Uint8Array);
      }
      await pause(10);
    }
  };
  const renewing = renew();

  const result = await expire(job, sessions, grant);
  await pause(Math.max(0, job.durationMs - (performance.now() - started)));
  ended = true;
  await renewing;
  for (const stream of streams) stream.close();
  return { kind: "leased", result: { grantsPerSecond, renewals, refusedRenewals, slowestRenewalMs, ...result } };
}

/** Leases that nobody renews: when their keys go. */
async function expire(
  job: LeaseJob,
  sessions: readonly ClientHttp2Session[],
  grant: (n: number, ttl: number) => Promise<bigint>,
): Promise<{ latestExpiryMs: number; medianExpiryMs: number; early: number }> {
  const prefix = "/scale/expiring/";
  /** The earliest and the latest moment at which the server may have begun to count. */
  const begun = new Map<string, { from: number; to: number }>();
  const late: number[] = [];
  let [early, watchExists] = [0, false];
  const seen = new Condition();
  const [session] = sessions as [ClientHttp2Session];
  const events = new Stream(session, "/etcdserverpb.Watch/Watch", (message) => {
    const now = performance.now();
    const response = api.WatchResponse.decode(message);
    if (response.created) watchExists = true;
    for (const { kv } of response.events) {
      const time = begun.get(Buffer.from(kv?.key ?? "").toString());
      if (time === undefined) continue;
      if (now < time.from + EXPIRING_TTL * 1000) early += 1;
      late.push(now - time.to - EXPIRING_TTL * 1000);
    }
    seen.poke();
  });
  const createRequest = api.WatchCreateRequest.create({
    key: Buffer.from(prefix),
    rangeEnd: Buffer.from("/scale/expiring0"),
    filters: [api.FilterType.NOPUT],
  });
  events.send(api.WatchRequest.encode(api.WatchRequest.create({ createRequest })));
  await seen.until("the keys are watched", () => watchExists);
  await inFlight(job.expiring, 64, async (n) => {
    const from = performance.now();
    const id = await grant(n, EXPIRING_TTL);
    const key = `${prefix}${n}`;
    begun.set(key, { from, to: performance.now() });
    const request = api.PutRequest.create({ key: Buffer.from(key), lease: id });
    await unary(sessions[n % sessions.length] as ClientHttp2Session, "/etcdserverpb.KV/Put", api.PutRequest.encode(request));
  });
  await seen.until("every key without a renewal is gone", () => late.length >= job.expiring);
  events.close();
  late.sort((a, b) => a - b);
  return { latestExpiryMs: late.at(-1) ?? 0, medianExpiryMs: late[late.length >> 1] ?? 0, early };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function answer(job: ScaleJob): Promise<ScaleAnswer> {
  switch (job.kind) {
    case "watch":
      await watch(job);
      return { kind: "watching" };
    case "deliver":
      return deliver(job);
    case "lease":
      return lease(job);
    default:
      return job satisfies never;
  }
}

process.on("disconnect", () => process.exit());
process.on("message", (job: ScaleJob) => {
  answer(job).then(
    (message) => process.send?.(message),
    (error: Error) => process.send?.({ kind: "failed", reason: error.stack ?? error.message } satisfies ScaleAnswer),
  );
});
