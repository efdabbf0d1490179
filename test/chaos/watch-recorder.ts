/** Records what a member's watch streams deliver: one for all keys from the first revision on, resumed over faults, and short ones of every kind. */
import { type ClientRequest, request } from "node:http";
import * as api from "../../src/api/index.ts";
import { type Random, seededRandom } from "../../src/base/random.ts";
import { sleep } from "../support/server-process.ts";
import { StreamRecord } from "../support/watch-checker.ts";
import { now } from "./history.ts";
import type { Endpoint } from "./json-client.ts";

/** Longer lines than any answer of a scenario mean that something is broken. */
const LINE_BYTES_MAX = 64 << 20;

/** One watch over HTTP: a single create request, then lines until either side ends it. */
export class WatchStream {
  readonly record = new StreamRecord();
  readonly #call: ClientRequest;
  readonly ended: Promise<string>;

  constructor(url: string, create: api.WatchCreateRequest, onResponse: (response: api.WatchResponse) => void = () => undefined) {
    this.record.create(create);
    let end: (why: string) => void = () => undefined;
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    const body = api.WatchRequest.printJson(api.WatchRequest.create({ createRequest: create }));
    this.#call = request(`${url}/v3/watch`, { method: "POST", agent: false }, (answer) => {
      let rest = "";
      answer.setEncoding("latin1");
      answer.on("data", (text: string) => {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        if (rest.length > LINE_BYTES_MAX) this.#call.destroy();
        for (const line of lines) {
          const response = readLine(line);
          if (response === undefined) {
            end(`unreadable: ${line.slice(0, 200)}`);
            this.#call.destroy();
            return;
          }
          this.record.response(response, now());
          onResponse(response);
        }
      });
      answer.on("close", () => end("closed"));
      answer.on("error", () => end("broken"));
    });
    this.#call.on("error", (error) => end(error.message));
    this.#call.end(body);
  }

  close(): void {
    this.#call.destroy();
  }
}

function readLine(line: string): api.WatchResponse | undefined {
  const prefix = '{"result":';
  if (!line.startsWith(prefix)) return undefined;
  return api.parseJson(api.WatchResponse, Buffer.from(line.slice(prefix.length, -1), "latin1"));
}

const EVERYTHING = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };

export class WatchRecorder {
  readonly member: string;
  /** Every stream that was ever opened to the member. */
  readonly streams: StreamRecord[] = [];
  /** All events of all keys, resumed over all streams. */
  readonly events: api.Event[] = [];
  /** Stretches that were compacted before this member could deliver them: [from, to). */
  readonly gaps: (readonly [number, number])[] = [];
  readonly #endpoint: () => Endpoint;
  readonly #running: Promise<void>[];
  #next = 1;
  #stopped = false;
  readonly #open = new Set<WatchStream>();

  readonly #onEvent: (event: api.Event, receivedAt: number) => void;

  constructor(
    member: string,
    endpoint: () => Endpoint,
    seed: number,
    onEvent: (event: api.Event, receivedAt: number) => void = () => undefined,
  ) {
    this.member = member;
    this.#endpoint = endpoint;
    this.#onEvent = onEvent;
    this.#running = [this.#follow(), this.#sample(seededRandom(seed))];
  }

  /** Everything below this revision has been delivered. */
  get reached(): number {
    return this.#next;
  }

  async #follow(): Promise<void> {
    while (!this.#stopped) {
      const create = api.WatchCreateRequest.create({ ...EVERYTHING, startRevision: this.#next, prevKv: this.streams.length % 2 === 0 });
      const stream = this.#start(create, (response) => {
        for (const event of response.events) {
          this.events.push(event);
          this.#onEvent(event, now());
          this.#next = Math.max(this.#next, (event.kv?.modRevision ?? 0) + 1);
        }
        if (response.canceled && response.compactRevision > 0) {
          this.gaps.push([this.#next, response.compactRevision]);
          this.#next = Math.max(this.#next, response.compactRevision);
          stream.close();
        }
      });
      await stream.ended;
      this.#open.delete(stream);
      await sleep(50);
    }
  }

  /** One short watch after the other: past, present and future starts, single keys and prefixes, with and without filters. */
  async #sample(random: Random): Promise<void> {
    while (!this.#stopped) {
      const start = random.below(4);
      const create = api.WatchCreateRequest.create({
        ...(random.chance({ of: 1, outOf: 2 })
          ? { key: Buffer.from("k/"), rangeEnd: Buffer.from("k0") }
          : { key: Buffer.from(`k/${random.below(10)}`) }),
        startRevision: start === 0 ? 0 : start === 1 ? this.#next + random.below(50) : Math.max(1, this.#next - random.below(2000)),
        prevKv: random.chance({ of: 1, outOf: 2 }),
        filters: random.chance({ of: 1, outOf: 4 }) ? [random.below(2) === 0 ? api.FilterType.NOPUT : api.FilterType.NODELETE] : [],
      });
      const stream = this.#start(create);
      await Promise.race([stream.ended, sleep(200 + random.below(3000))]);
      stream.close();
      this.#open.delete(stream);
      await sleep(50);
    }
  }

  #start(create: api.WatchCreateRequest, onResponse?: (response: api.WatchResponse) => void): WatchStream {
    const stream = new WatchStream(this.#endpoint().url, create, onResponse);
    this.streams.push(stream.record);
    this.#open.add(stream);
    return stream;
  }

  get isStopped(): boolean {
    return this.#stopped;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const stream of this.#open) stream.close();
    await Promise.all(this.#running);
  }
}
