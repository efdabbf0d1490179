/** What the tests of the client share: the ways to a member, and ways that break when told to. */

import { grpc } from "../../src/client/grpc/index.ts";
import { inProcess } from "../../src/client/in-process.ts";
import {
  type CallContext,
  type Channel,
  type ConnectOptions,
  createClient,
  type EtcdClient,
  localClient,
  type Transport,
  UnavailableError,
  type WatchSession,
} from "../../src/client/index.ts";
import type { TestEtcd } from "../../src/testing/index.ts";

export interface Way {
  readonly name: string;
  connect(etcd: TestEtcd, options?: Partial<ConnectOptions>): EtcdClient;
}

/** Every way to a member; the same tests run over each. */
export const WAYS: readonly Way[] = [
  {
    name: "in process",
    connect: (etcd, options) =>
      localClient({ members: [{ name: "test", services: () => etcd.server.services }], clock: etcd.clock, ...options }),
  },
  { name: "gRPC", connect: (etcd, options) => createClient({ endpoints: etcd.endpoints, transport: grpc(), ...options }) },
  { name: "HTTP/JSON", connect: (etcd, options) => createClient({ endpoints: etcd.endpoints, ...options }) },
];

/** Waits until `check` gives something but undefined or false. */
export async function eventually<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  ms = 15_000,
): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The error with which `promise` rejects. */
export async function failureOf(promise: Promise<unknown>): Promise<{ reason: string; grpcCode: number; message: string; name: string }> {
  try {
    await promise;
  } catch (error) {
    return error as { reason: string; grpcCode: number; message: string; name: string };
  }
  throw new Error("it did not fail");
}

/** Faults of a way; each is asked when its moment has come. */
export interface Faults {
  /** After so many responses in a row a watch session breaks. */
  breakWatchAfter?: () => number | undefined;
  /** A watch session that gives nothing more, and takes what it is sent. */
  silent?: (endpoint: string) => boolean;
  /** The answer of a unary call is lost although the call was executed. */
  loseAnswer?: (path: string) => boolean;
  /** The call never gets out. */
  refuse?: (endpoint: string, path: string) => boolean;
  /** Called for each watch session. */
  onWatch?: (endpoint: string) => void;
}

/** `transport` with faults. */
export function faulty(transport: Transport, faults: Faults): Transport {
  return { local: transport.local, connect: (endpoint) => new FaultyChannel(transport.connect(endpoint), faults) };
}

/** A way to members in this process, with faults. It claims to be a network, so that the client has deadlines of its own. */
export function faultyMembers(
  members: readonly { name: string; services: () => TestEtcd["server"]["services"] }[],
  faults: Faults,
): Transport {
  return { ...faulty(inProcess(members), faults), local: false };
}

class FaultyChannel implements Channel {
  readonly #channel: Channel;
  readonly #faults: Faults;
  readonly endpoint: string;
  readonly fullDuplex: boolean;

  constructor(channel: Channel, faults: Faults) {
    this.#channel = channel;
    this.#faults = faults;
    this.endpoint = channel.endpoint;
    this.fullDuplex = channel.fullDuplex;
  }

  unary: Channel["unary"] = async (method, request, context) => {
    const { endpoint } = this;
    if (this.#faults.refuse?.(endpoint, method.path) === true) {
      throw new UnavailableError({ endpoint, requestSent: false, message: "refused" });
    }
    const response = await this.#channel.unary(method, request, context);
    if (this.#faults.loseAnswer?.(method.path) === true) throw new UnavailableError({ endpoint, requestSent: true, message: "lost" });
    return response;
  };

  stream: Channel["stream"] = (method, request, context) => this.#channel.stream(method, request, context);

  keepAlive: Channel["keepAlive"] = (request, context) => this.#channel.keepAlive(request, context);

  watch(context: CallContext): WatchSession {
    const { endpoint } = this;
    this.#faults.onWatch?.(endpoint);
    if (this.#faults.refuse?.(endpoint, "watch") === true) throw new UnavailableError({ endpoint, requestSent: false, message: "refused" });
    return new FaultySession(this.#channel.watch(context), endpoint, this.#faults);
  }

  close(): void {
    this.#channel.close();
  }
}

class FaultySession implements WatchSession {
  readonly #session: WatchSession;
  readonly #faults: Faults;
  readonly #endpoint: string;
  #left: number | undefined;
  #hang: (() => void) | undefined;

  constructor(session: WatchSession, endpoint: string, faults: Faults) {
    this.#session = session;
    this.#endpoint = endpoint;
    this.#faults = faults;
    this.#left = faults.breakWatchAfter?.();
  }

  send(request: Parameters<WatchSession["send"]>[0]): void {
    if (this.#faults.silent?.(this.#endpoint) !== true) this.#session.send(request);
  }

  async next(): ReturnType<WatchSession["next"]> {
    for (;;) {
      const responses = await this.#session.next();
      if (responses === undefined) return undefined;
      if (this.#faults.silent?.(this.#endpoint) === true) {
        await new Promise<void>((resolve) => {
          this.#hang = resolve;
        });
        return undefined;
      }
      if (this.#left === undefined) return responses;
      if (this.#left < responses.length) {
        const given = responses.slice(0, this.#left);
        this.#left = 0;
        this.#session.close();
        if (given.length > 0) return given;
        throw new UnavailableError({ endpoint: this.#endpoint, requestSent: true, message: "cut" });
      }
      this.#left -= responses.length;
      return responses;
    }
  }

  close(): void {
    this.#session.close();
    this.#hang?.();
  }
}
