/** The network between a client and the members, as a simulation has it: everything takes its time, may be held up, and may be lost with the connection. */
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import {
  type CallContext,
  type Channel,
  inProcess,
  type LocalMember,
  type Transport,
  UnavailableError,
  type WatchSession,
} from "../../client/index.ts";
import { Gate, unlessAborted } from "../gate.ts";
import type { Life } from "./life.ts";

/** A member as clients know it: there may be a process, or none. */
export interface Target extends LocalMember {
  readonly life: Life | undefined;
}

/** One client program. */
export class ClientHost {
  readonly name: string;
  /** Shut while nothing passes between it and the members. */
  readonly network = new Gate();
  /** Shut while the program itself stands still. */
  readonly process = new Gate();
  /** Counts the times at which its connections broke. */
  connections = 0;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(name: string, clock: Clock, random: Random) {
    this.name = name;
    this.#clock = clock;
    this.#random = random;
  }

  /** All that is on its way is lost. */
  disconnect(): void {
    this.connections += 1;
  }

  transport(targets: readonly Target[]): Transport {
    const inner = inProcess(targets);
    return {
      local: false,
      connect: (endpoint) => {
        const target = targets.find(({ name }) => name === endpoint);
        return new SimChannel(inner.connect(endpoint), target as Target, new Link(this, this.#clock, this.#random));
      },
    };
  }
}

const TRAVEL_MS = 1;

/** Both directions between one client and one member; nothing overtakes. */
class Link {
  readonly host: ClientHost;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #lastMs = { out: 0, back: 0 };

  constructor(host: ClientHost, clock: Clock, random: Random) {
    this.host = host;
    this.#clock = clock;
    this.#random = random;
  }

  async travel(direction: "out" | "back"): Promise<void> {
    const { network, process } = this.host;
    if (direction === "out") await process.passed();
    await network.passed();
    const nowMs = this.#clock.monotonicMs();
    const arrivesMs = Math.max(this.#lastMs[direction], nowMs + (TRAVEL_MS * (256 + this.#random.below(1024))) / 1024);
    this.#lastMs[direction] = arrivesMs;
    await new Promise<void>((resolve) => {
      this.#clock.timer(arrivesMs - nowMs, resolve);
    });
    await network.passed();
    if (direction === "back") await process.passed();
  }
}

class SimChannel implements Channel {
  readonly endpoint: string;
  readonly fullDuplex = true;
  readonly #inner: Channel;
  readonly #target: Target;
  readonly #link: Link;

  constructor(inner: Channel, target: Target, link: Link) {
    this.endpoint = target.name;
    this.#inner = inner;
    this.#target = target;
    this.#link = link;
  }

  unary: Channel["unary"] = (method, request, context) => this.#call(() => this.#inner.unary(method, request, context), context);

  keepAlive: Channel["keepAlive"] = (request, context) => this.#call(() => this.#inner.keepAlive(request, context), context);

  stream: Channel["stream"] = (method, request, context) => this.#inner.stream(method, request, context);

  watch(context: CallContext): WatchSession {
    return new SimWatch(this.#target, this.#link, () => this.#inner.watch(context));
  }

  close(): void {
    this.#inner.close();
  }

  #call<T>(act: () => Promise<T>, context: CallContext): Promise<T> {
    return unlessAborted(this.#there(act), context.signal);
  }

  async #there<T>(act: () => Promise<T>): Promise<T> {
    const { host } = this.#link;
    const { connections } = host;
    await this.#link.travel("out");
    if (host.connections !== connections) throw broken(this.endpoint);
    const { life } = this.#target;
    let answer: { readonly value: T } | { readonly error: unknown };
    try {
      if (life?.ready !== true) throw refused(this.endpoint);
      answer = { value: await life.serve(act) };
    } catch (error) {
      answer = { error };
    }
    await this.#link.travel("back");
    if (host.connections !== connections) throw broken(this.endpoint);
    if ("error" in answer) throw answer.error;
    return answer.value;
  }
}

function refused(endpoint: string): UnavailableError {
  return new UnavailableError({ endpoint, requestSent: false, message: "connection refused" });
}

function broken(endpoint: string): UnavailableError {
  return new UnavailableError({ endpoint, requestSent: true, message: "the connection broke" });
}

class SimWatch implements WatchSession {
  readonly #target: Target;
  readonly #link: Link;
  readonly #connections: number;
  readonly #opened: Promise<{ life: Life; session: WatchSession }>;
  #last: Promise<void>;
  #closed = false;
  #end: { readonly promise: Promise<undefined>; readonly close: () => void; readonly fail: (error: unknown) => void };

  constructor(target: Target, link: Link, open: () => WatchSession) {
    this.#target = target;
    this.#link = link;
    this.#connections = link.host.connections;
    let close = (): void => undefined;
    let fail = (_: unknown): void => undefined;
    const promise = new Promise<undefined>((resolve, reject) => {
      close = () => resolve(undefined);
      fail = reject;
    });
    promise.catch(() => undefined);
    this.#end = { promise, close, fail };
    this.#opened = this.#open(open);
    this.#last = this.#opened.then(
      () => undefined,
      (error: unknown) => this.#end.fail(error),
    );
  }

  send(request: Parameters<WatchSession["send"]>[0]): void {
    this.#last = this.#last.then(async () => {
      await this.#link.travel("out");
      if (this.#closed || this.#broken()) return;
      const { life, session } = await this.#opened;
      life.run(() => session.send(request));
    });
    this.#last.catch((error: unknown) => this.#end.fail(error));
  }

  next(): ReturnType<WatchSession["next"]> {
    return Promise.race([this.#next(), this.#end.promise]);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#end.close();
    this.#opened.then(
      ({ life, session }) => life.run(() => session.close()),
      () => undefined, // There is nothing to close.
    );
  }

  async #open(open: () => WatchSession): Promise<{ life: Life; session: WatchSession }> {
    await this.#link.travel("out");
    const { life } = this.#target;
    if (life?.ready !== true) throw refused(this.#target.name);
    life.onDeath(() => this.#end.fail(life.gone()));
    const session = await new Promise<WatchSession>((resolve, reject) => {
      life.run(() => {
        try {
          resolve(open());
        } catch (error) {
          reject(error);
        }
      });
    });
    return { life, session };
  }

  async #next(): ReturnType<WatchSession["next"]> {
    const { life, session } = await this.#opened;
    const responses = await session.next();
    await new Promise<void>((resolve) => life.run(resolve));
    await this.#link.travel("back");
    if (this.#broken()) throw broken(this.#target.name);
    return this.#closed ? undefined : responses;
  }

  #broken(): boolean {
    if (this.#link.host.connections === this.#connections) return false;
    this.#end.fail(broken(this.#target.name));
    return true;
  }
}
