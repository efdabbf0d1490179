/** A server for one test file, in one line. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EtcdClient } from "../client/index.ts";
import type { EtcdConfig } from "../embed/index.ts";
import { type EtcdServer, startEtcd } from "../embed/start-etcd.ts";
import { fixture, type Hooks } from "./fixture.ts";
import { VirtualClock } from "./virtual-clock.ts";

export interface TestEtcdOptions {
  /** Default false: everything in memory, gone at the end. True: in a temporary directory, so that it can be restarted; gone at the end, too. */
  readonly onDisk?: boolean | undefined;
  /** Also listen on a port of 127.0.0.1 which the system chooses; see `endpoints`. Default false. */
  readonly listen?: boolean | undefined;
  /** More settings of the member. */
  readonly config?: EtcdConfig | undefined;
}

/** How long what an advance of time sets in motion may take. */
const SETTLE_MS = 5000;

/** A running server with its client. */
export class TestEtcd {
  /** Its time: real time, until it is put forward with {@link advance}. */
  readonly clock: VirtualClock;
  readonly #options: TestEtcdOptions;
  readonly #directory: string | undefined;
  #server: EtcdServer;
  #closed: Promise<void> | undefined;

  /** For {@link startTestEtcd}. */
  constructor(options: TestEtcdOptions, clock: VirtualClock, directory: string | undefined, server: EtcdServer) {
    this.#options = options;
    this.clock = clock;
    this.#directory = directory;
    this.#server = server;
  }

  get server(): EtcdServer {
    return this.#server;
  }

  /** Without sockets. After a {@link restart} there is a new one. */
  get client(): EtcdClient {
    return this.#server.client;
  }

  /** For clients over the network; empty unless `listen` was asked for. */
  get endpoints(): readonly string[] {
    return this.#server.clientUrls;
  }

  /** Puts the time of the server and its client forward, and waits until leases that end by that are gone. */
  async advance(ms: number): Promise<void> {
    await this.clock.advance(ms);
    const endMs = performance.now() + SETTLE_MS;
    while (this.#server.server.pendingProposals > 0 && performance.now() < endMs)
      await new Promise<void>((resolve) => setImmediate(resolve));
  }

  /** Stops and starts again with the same data. Needs `onDisk`. */
  async restart(): Promise<void> {
    if (this.#directory === undefined) throw new Error("a server in memory has nothing to start again from: use onDisk");
    await this.#server.close();
    this.#server = await startMember(this.#options, this.clock, this.#directory);
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#server.close();
    if (this.#directory !== undefined) await rm(this.#directory, { recursive: true, force: true });
  }
}

/** `const etcd = await startTestEtcd();` and at the end `await etcd.close();`, or `await using`. */
export async function startTestEtcd(options: TestEtcdOptions = {}): Promise<TestEtcd> {
  const clock = new VirtualClock();
  const directory = options.onDisk === true ? await mkdtemp(join(tmpdir(), "holdfast-test-")) : undefined;
  try {
    return new TestEtcd(options, clock, directory, await startMember(options, clock, directory));
  } catch (error) {
    if (directory !== undefined) await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/**
 * The same around all tests of a file or a suite: `const etcd = useTestEtcd({ before: beforeAll, after: afterAll });`, then `etcd().client` in the tests.
 */
export function useTestEtcd(hooks: Hooks, options?: TestEtcdOptions): () => TestEtcd {
  return fixture(hooks, () => startTestEtcd(options));
}

async function startMember(options: TestEtcdOptions, clock: VirtualClock, directory: string | undefined): Promise<EtcdServer> {
  const server = await startEtcd({
    name: "test",
    listenClientUrls: options.listen === true ? ["http://127.0.0.1:0"] : [],
    listenPeerUrls: [],
    // A test that pulls the plug of the machine does not run on it.
    ...(directory === undefined ? { inMemory: true } : { dataDir: join(directory, "data"), unsafeNoFsync: true }),
    clock,
    ...options.config,
  });
  try {
    await server.ready;
  } catch (error) {
    await server.close();
    throw error;
  }
  return server;
}
