/**
 * Clients of the watch service. Each stream lives on one member until it is closed, breaks or the member dies; then the client goes on from what it has seen,
 * on the same member or another. Every response is recorded as it arrives (test/support/watch-checker.ts judges them), and for each watcher the events of all
 * its streams together.
 */
import * as api from "../../../src/api/index.ts";
import type { WatchSession } from "../../../src/server/services/services.contract.ts";
import { StreamRecord } from "../../support/watch-checker.ts";
import { Dice, seedFor } from "./dice.ts";
import type { Life, Machine } from "./machine.ts";
import { bytesOf } from "./model.ts";
import type { ClientPlan } from "./plan.ts";
import type { World } from "./world.ts";

/** All events of one resumed watcher between two gaps. */
export interface Span {
  readonly request: Pick<api.WatchCreateRequest, "key" | "rangeEnd" | "filters">;
  readonly from: number;
  /** Everything up to here must have arrived. */
  upTo: number;
  readonly events: api.Event[];
}

/** What the watchers of a run saw. */
export interface WatchRecords {
  /** `liveUpTo`: what the member of a stream that is still open has applied. */
  readonly streams: { readonly machine: string; readonly record: StreamRecord; readonly liveUpTo: () => number | undefined }[];
  readonly spans: { readonly who: string; readonly span: Span }[];
}

interface Watching {
  readonly create: api.WatchCreateRequest;
  /** Where to go on; 0 before the first answer of one that starts now. */
  next: number;
  span: Span | undefined;
  /** Events of a revision of which not all fragments have come. */
  unfinished: api.Event[];
  id: bigint;
  isDone: boolean;
}

/** One stream, read until it ends. */
class Stream {
  readonly record = new StreamRecord();
  readonly machine: Machine;
  readonly #world: World;
  readonly #life: Life;
  readonly #session: WatchSession;
  readonly #dice: Dice;
  readonly #watching: Watching[];
  readonly #answers: Watching[] = [];
  readonly #records: WatchRecords;
  readonly #who: string;
  readonly #slowPercent: number;
  ended = false;
  #wake: () => void = () => undefined;
  /** Resolves when the stream is over for the client. */
  readonly over: Promise<void>;

  constructor(
    world: World,
    records: WatchRecords,
    who: string,
    machine: Machine,
    life: Life,
    session: WatchSession,
    watching: Watching[],
    dice: Dice,
    slowPercent: number,
  ) {
    this.#world = world;
    this.#records = records;
    this.#who = who;
    this.machine = machine;
    this.#life = life;
    this.#session = session;
    this.#watching = watching;
    this.#dice = dice;
    this.#slowPercent = slowPercent;
    this.over = new Promise((resolve) => {
      this.#wake = resolve;
    });
    records.streams.push({
      machine: machine.name,
      record: this.record,
      liveUpTo: () => (this.ended || life.dead ? undefined : life.server?.store.revision),
    });
    life.onDeath.add(() => this.end());
    void this.#read();
  }

  create(watching: Watching): void {
    const { create } = watching;
    const request = api.WatchCreateRequest.create({ ...create, startRevision: watching.next });
    this.record.create(request);
    this.#answers.push(watching);
    this.#session.send(api.WatchRequest.create({ createRequest: request }));
  }

  cancel(watching: Watching): void {
    if (watching.id < 0n || watching.isDone) return;
    this.record.cancel(watching.id);
    this.#session.send(api.WatchRequest.create({ cancelRequest: api.WatchCancelRequest.create({ watchId: watching.id }) }));
    watching.isDone = true;
  }

  requestProgress(): void {
    this.#session.send(api.WatchRequest.create({ progressRequest: api.WatchProgressRequest.create({}) }));
  }

  /** The client has had enough, or the connection is gone. */
  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (!this.#life.dead) this.#world.deliver(this.machine, () => this.#session.close());
    this.#wake();
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        const responses = await this.#session.next(this.#dice.percent(20) ? 1 + this.#dice.below(300) : undefined);
        if (this.ended || this.#life.dead) return;
        if (responses === undefined) break;
        for (const response of responses) this.#take(response);
        // A slow reader: the server has to do without it.
        if (!this.#world.stopping && this.#dice.percent(this.#slowPercent)) await this.#world.sleep(this.#dice.exponential(800));
        if (this.ended || this.#life.dead) return;
      }
    } catch {
      // The server ended it: no leader, stopped, too slow.
    }
    this.end();
  }

  #take(response: api.WatchResponse): void {
    const world = this.#world;
    this.record.response(response, world.now);
    world.hash.number(response.events.length);
    if (response.created) {
      const watching = this.#answers.shift();
      if (watching === undefined) return;
      if (response.canceled) {
        watching.isDone = true;
        return;
      }
      watching.id = response.watchId;
      if (watching.next === 0) watching.next = (response.header?.revision ?? 0) + 1;
      watching.span ??= this.#newSpan(watching, watching.next);
      return;
    }
    const one = this.#watching.find((watching) => watching.id === response.watchId && !watching.isDone);
    if (response.canceled) {
      if (one === undefined) return;
      one.isDone = true;
      if (response.compactRevision > 0) {
        // What lies between is lost, and the client was told.
        one.next = response.compactRevision;
        one.span = undefined;
        one.unfinished = [];
      }
      return;
    }
    if (response.events.length > 0) {
      if (one === undefined) return;
      for (const event of response.events) one.unfinished.push(event);
      if (response.fragment) return;
      const last = response.events[response.events.length - 1]?.kv?.modRevision ?? 0;
      for (const event of one.unfinished) one.span?.events.push(event);
      one.unfinished = [];
      this.#reached(one, last);
      return;
    }
    // A bookmark, of one watcher or of all.
    const revision = response.header?.revision ?? 0;
    const told =
      response.watchId === -1n
        ? this.#watching.filter((watching) => !watching.isDone && watching.id >= 0n)
        : one === undefined
          ? []
          : [one];
    for (const watching of told) if (watching.unfinished.length === 0) this.#reached(watching, revision);
  }

  #reached(watching: Watching, revision: number): void {
    if (revision + 1 <= watching.next) return;
    watching.next = revision + 1;
    if (watching.span !== undefined) watching.span.upTo = revision;
  }

  #newSpan(watching: Watching, from: number): Span {
    const span: Span = { request: watching.create, from, upTo: from - 1, events: [] };
    this.#records.spans.push({ who: this.#who, span });
    return span;
  }
}

function openStream(
  world: World,
  records: WatchRecords,
  who: string,
  machine: Machine,
  watching: Watching[],
  dice: Dice,
  slowPercent: number,
): Stream | undefined {
  const { life } = machine;
  if (life?.server === undefined || life.dead || life.blockedUntil > world.now) return undefined;
  for (const one of watching) {
    one.id = -1n;
    one.isDone = false;
    one.unfinished = [];
  }
  try {
    const session = life.server.services.watch.watch({ requireLeader: dice.percent(20) });
    const stream = new Stream(world, records, who, machine, life, session, watching, dice, slowPercent);
    for (const one of watching) stream.create(one);
    return stream;
  } catch {
    // Refused: a learner, no leader, stopped.
    return undefined;
  }
}

/** Several watchers of different kinds on one stream, which comes and goes. */
export class WatchClient {
  readonly #world: World;
  readonly #number: number;
  readonly #plan: ClientPlan;
  readonly #dice: Dice;
  readonly #records: WatchRecords;

  constructor(world: World, number: number, plan: ClientPlan, records: WatchRecords) {
    this.#world = world;
    this.#number = number;
    this.#plan = plan;
    this.#dice = new Dice(plan.seed);
    this.#records = records;
  }

  async run(): Promise<void> {
    const world = this.#world;
    const dice = this.#dice;
    await world.sleep(dice.between(0, 1500));
    let machine: Machine | undefined;
    let watching = this.#someWatchers();
    while (!world.stopping) {
      machine = world.pickServer(dice, machine, this.#plan.roamPercent);
      const slowPercent = dice.percent(30) ? 20 : 0;
      const stream = openStream(world, this.#records, `client ${this.#number}`, machine, watching, dice, slowPercent);
      if (stream === undefined) {
        await world.sleep(300);
        continue;
      }
      const cut = dice.percent(50) ? world.now + dice.exponential(4000) : Number.POSITIVE_INFINITY;
      await Promise.race([stream.over, this.#use(stream, watching, cut)]);
      if (world.stopping && !stream.ended) return;
      stream.end();
      if (dice.percent(20)) watching = this.#someWatchers();
      else watching = watching.filter((one) => !one.isDone || one.span === undefined);
      if (watching.length === 0) watching = this.#someWatchers();
      await world.sleep(dice.exponential(200));
    }
  }

  async #use(stream: Stream, watching: Watching[], until: number): Promise<void> {
    const world = this.#world;
    const dice = this.#dice;
    while (!world.stopping && !stream.ended && world.now < until) {
      await world.sleep(dice.exponential(this.#plan.thinkMs));
      const { life } = stream.machine;
      if (stream.ended || life === undefined || life.blockedUntil > world.now) continue;
      const what = dice.below(10);
      if (what < 3) world.deliver(stream.machine, () => stream.requestProgress());
      else if (what < 5 && watching.length < 6) {
        const one = this.#oneWatcher();
        watching.push(one);
        world.deliver(stream.machine, () => stream.create(one));
      } else if (what < 6) {
        const one = dice.pick(watching);
        world.deliver(stream.machine, () => stream.cancel(one));
      }
    }
  }

  #someWatchers(): Watching[] {
    return Array.from({ length: this.#dice.between(1, 3) }, () => this.#oneWatcher());
  }

  #oneWatcher(): Watching {
    const dice = this.#dice;
    const world = this.#world;
    const key = (): string => `k${String(dice.below(world.plan.keys)).padStart(2, "0")}`;
    const from = dice.percent(25) ? "\0" : key();
    const kind = dice.below(4);
    const rangeEnd = from === "\0" || kind === 0 ? "\0" : kind === 1 ? "" : kind === 2 ? "l" : key();
    const { log } = world;
    const newest = log[log.length - 1]?.revision ?? 1;
    const start = dice.percent(40) ? 0 : dice.percent(15) ? newest + dice.between(1, 30) : Math.max(1, newest - dice.below(60));
    const filters: number[] = [];
    if (dice.percent(20)) filters.push(dice.percent(50) ? api.FilterType.NOPUT : api.FilterType.NODELETE);
    const create = api.WatchCreateRequest.create({
      key: bytesOf(from),
      rangeEnd: bytesOf(rangeEnd),
      filters,
      prevKv: dice.percent(40),
      progressNotify: dice.percent(40),
      fragment: dice.percent(20),
    });
    return { create, next: start, span: undefined, unfinished: [], id: -1n, isDone: false };
  }
}

/** On each machine a watcher of everything, from the beginning, resumed over whatever happens to it. */
export function watchEveryMachine(world: World, records: WatchRecords): void {
  const started = new Set<Machine>();
  const look = (): void => {
    for (const machine of world.machines) {
      if (started.has(machine)) continue;
      started.add(machine);
      void follow(world, records, machine);
    }
  };
  look();
  world.every(1000, look);
}

async function follow(world: World, records: WatchRecords, machine: Machine): Promise<void> {
  const dice = new Dice(seedFor(world.plan.seed, 9, machine.index));
  const create = api.WatchCreateRequest.create({
    key: bytesOf("\0"),
    rangeEnd: bytesOf("\0"),
    prevKv: dice.percent(50),
    progressNotify: dice.percent(50),
  });
  const watching: Watching = { create, next: 1, span: undefined, unfinished: [], id: -1n, isDone: false };
  for (;;) {
    const stream = openStream(world, records, `all of ${machine.name}`, machine, [watching], dice, 0);
    if (stream === undefined) {
      await world.sleep(200);
      continue;
    }
    // A watcher that was cancelled (compaction) leaves the stream open.
    while (!stream.ended && !watching.isDone) await Promise.race([stream.over, world.sleep(200)]);
    stream.end();
    await world.sleep(20);
  }
}
