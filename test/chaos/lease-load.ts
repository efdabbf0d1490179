/**
 * Clients that hold leases with a key each, renew them for a while and then stop; and the judgement (failure catalogue, promises L2, L3, L6, method E5): no key goes
 * before its time, none stays for good, no renewal is acknowledged after the end was seen.
 */
import * as api from "../../src/api/index.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { sleep } from "../support/server-process.ts";
import { now, type Operation } from "./history.ts";
import { type Endpoint, HttpCaller, RecordingClient } from "./json-client.ts";

export interface LeaseLoadOptions {
  readonly holders: number;
  readonly seed: number;
  /** Where the puts are recorded. */
  readonly history: Operation[];
  readonly endpoint: (holder: number) => Endpoint;
}

interface Renewal {
  readonly call: number;
  readonly ret: number;
}

/** The life of one lease, as its holder saw it. */
export interface Held {
  readonly key: string;
  readonly ttlMs: number;
  readonly grantCall: number;
  /** The grant, then the renewals that were answered with a time to live. */
  readonly renewals: Renewal[];
  /** Known to have its key attached. */
  attached: boolean;
}

const CALL_MS = 5000;
/** Of two clocks in one second. */
const DRIFT = 0.001;
/** Between "the lease is over" in the server and "the deletion was seen" there is only delay, but a timer may fire a millisecond early. */
const EARLY_MS = 2;
/** Numbers of clients that are not the workload's. */
const FIRST_CLIENT = 1000;

export class LeaseLoad {
  readonly #options: LeaseLoadOptions;
  readonly #held: Held[] = [];
  /** When the deletion of a key was first seen by anybody. */
  readonly #deletedAt = new Map<string, number>();
  readonly #running: Promise<void>[];
  #stopped = false;

  constructor(options: LeaseLoadOptions) {
    this.#options = options;
    this.#running = Array.from({ length: options.holders }, (_, holder) => this.#hold(holder, seededRandom(options.seed * 77 + holder)));
  }

  /** For the recorders of watches. */
  readonly onEvent = ({ type, kv }: api.Event, receivedAt: number): void => {
    if (type !== api.EventType.DELETE || kv === undefined) return;
    const key = Buffer.from(kv.key).toString("latin1");
    this.#deletedAt.set(key, Math.min(this.#deletedAt.get(key) ?? Number.POSITIVE_INFINITY, receivedAt));
  };

  get count(): number {
    return this.#held.length;
  }

  get ended(): number {
    return this.#held.filter(({ key }) => this.#deletedAt.has(key)).length;
  }

  /** Keys that are known to hang on a lease and are still there. */
  get attachedLeft(): number {
    return this.#held.filter(({ key, attached }) => attached && !this.#deletedAt.has(key)).length;
  }

  async #hold(holder: number, random: Random): Promise<void> {
    const http = new HttpCaller(1);
    const client = new RecordingClient(FIRST_CLIENT + holder, this.#options.history, CALL_MS);
    for (let n = 1; !this.#stopped; n += 1) {
      try {
        await this.#holdOne(`lease/${holder}-${n}`, http, client, holder, random);
      } catch {
        // The member is away: another one, next time.
        await sleep(200);
      }
    }
    http.close();
    client.close();
  }

  async #holdOne(key: string, http: HttpCaller, client: RecordingClient, holder: number, random: Random): Promise<void> {
    const ttl = 3 + random.below(3);
    const grantCall = now();
    const granted = await http.post(this.#options.endpoint(holder).url, "/v3/lease/grant", JSON.stringify({ TTL: ttl }), CALL_MS);
    if (granted.status !== 200) throw new Error(granted.text);
    const { id: lease, ttl: seconds } = api.parseJson(api.LeaseGrantResponse, granted.text);
    const held: Held = { key, ttlMs: seconds * 1000, grantCall, renewals: [{ call: grantCall, ret: now() }], attached: false };
    this.#held.push(held);
    const request = api.PutRequest.create({ key: Buffer.from(key), value: Buffer.from(`held-${key}`), lease });
    const put = await client.call(this.#options.endpoint(holder), { kind: "put", request });
    held.attached = put.outcome === "yes";
    const renewUntil = now() + random.below(15_000);
    while (!this.#stopped && now() < renewUntil) {
      await sleep(held.ttlMs / 3);
      const call = now();
      try {
        const url = this.#options.endpoint(holder + random.below(2)).url;
        const answer = await http.post(url, "/v3/lease/keepalive", JSON.stringify({ ID: lease.toString() }), CALL_MS);
        const line = /^\{"result":(.*)\}\s*$/.exec(answer.text)?.[1];
        const left = line === undefined ? undefined : api.parseJson(api.LeaseKeepAliveResponse, line).ttl;
        if (left !== undefined && left > 0) held.renewals.push({ call, ret: now() });
        // Over: no use in going on.
        else if (left === 0) return;
      } catch {
        // Perhaps renewed, perhaps not: that can only make the lease longer.
      }
    }
  }

  /** No more renewals, no more leases. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
  }

  /** How long after everything is well again the last key may still be there. */
  get longestEndMs(): number {
    return Math.max(0, ...this.#held.map(({ ttlMs }) => ttlMs));
  }

  /** After the last lease must have ended. */
  violations(): string[] {
    return judgeLeases(this.#held, this.#deletedAt);
  }
}

/** `deletedAt`: when the end of a key was first seen by anybody; what is not in it is still there. */
export function judgeLeases(all: readonly Held[], deletedAt: ReadonlyMap<string, number>): string[] {
  const found: string[] = [];
  for (const { key, ttlMs, renewals, attached } of all) {
    const seen = deletedAt.get(key);
    if (seen === undefined) {
      if (attached) found.push(`L3-not-forever: ${key} is still there`);
      continue;
    }
    for (const { call, ret } of renewals) {
      if (ret < seen && seen < call + ttlMs * (1 - DRIFT) - EARLY_MS)
        found.push(`L2-not-early: ${key} went ${Math.round(seen - call)} ms after a renewal was called, its time is ${ttlMs} ms`);
      if (call > seen) found.push(`L6-renewal-truth: ${key} was renewed ${Math.round(call - seen)} ms after its end was seen`);
    }
  }
  return found;
}
