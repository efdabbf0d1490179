/** Clusters in this process, to see how a program bears the failure of members. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import { type EtcdClient, type LocalMember, type LocalServices, localClient } from "../client/index.ts";
import type { EtcdConfig } from "../embed/index.ts";
import { type EtcdServer, startEtcd } from "../embed/start-etcd.ts";
import { MemoryNetwork } from "../server/index.ts";
import { fixture, type Hooks } from "./fixture.ts";
import { Gate, gatedClock, gatedServices } from "./gate.ts";
import { VirtualClock } from "./virtual-clock.ts";

export interface TestClusterOptions {
  /** Members. Default 3. They are named `m1`, `m2`, and so on. */
  readonly size?: number | undefined;
  /** Each member also listens on a port of 127.0.0.1 which the system chooses; see `endpoints`. Default false. */
  readonly listen?: boolean | undefined;
  /** Watches of its clients go on at another member after this silence. Default 1000. */
  readonly watchSilenceMs?: number | undefined;
  /** More settings of all members. */
  readonly config?: EtcdConfig | undefined;
}

interface Seat {
  readonly name: string;
  readonly gate: Gate;
  server: EtcdServer | undefined;
  /** The services of `server` behind the gate. */
  services: LocalServices | undefined;
  memberId: EtcdServer["server"]["memberId"] | undefined;
  /** Between stop and start, while one of them is under way. */
  busy: Promise<void>;
}

const HEARTBEAT_MS = 50;
const ELECTION_MS = 500;
const WATCH_SILENCE_MS = 1000;
const LEADER_WITHIN_MS = 20_000;
const POLL_MS = 5;

/**
 * Members over an in-process network, with real logs and stores in a temporary directory and short timings. What is done to a member is over when the promise
 * resolves; how the others take it shows later.
 */
export class TestCluster {
  /** The time of all members and clients. Putting it forward by more than some seconds at once may cost the leader its office, as a stalled machine would. */
  readonly clock = new VirtualClock();
  readonly names: readonly string[];
  readonly #options: TestClusterOptions;
  readonly #directory: string;
  readonly #network: MemoryNetwork;
  readonly #seats: ReadonlyMap<string, Seat>;
  readonly #clients = new Set<EtcdClient>();
  #groups: readonly (readonly string[])[] | undefined;
  #client: EtcdClient | undefined;
  #closed: Promise<void> | undefined;

  /** For {@link startTestCluster}. */
  constructor(options: TestClusterOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    this.#network = new MemoryNetwork({ clock: this.clock });
    this.names = Array.from({ length: options.size ?? 3 }, (_, i) => `m${i + 1}`);
    this.#seats = new Map(
      this.names.map((name) => [
        name,
        { name, gate: new Gate(), server: undefined, services: undefined, memberId: undefined, busy: Promise.resolve() },
      ]),
    );
  }

  /** A client of all members, which goes on at another one when one fails. */
  get client(): EtcdClient {
    this.#client ??= this.newClient();
    return this.#client;
  }

  /** URLs of the running members; empty unless `listen` was asked for. */
  get endpoints(): readonly string[] {
    return [...this.#seats.values()].flatMap(({ server }) => server?.clientUrls ?? []);
  }

  /** Another client, of all members or of those named. It is closed with the cluster. */
  newClient(...names: readonly string[]): EtcdClient {
    const members = (names.length === 0 ? this.names : names).map((name) => this.#localMember(this.#seat(name)));
    const client = localClient({ members, clock: this.clock, watchSilenceMs: this.#options.watchSilenceMs ?? WATCH_SILENCE_MS });
    this.#clients.add(client);
    return client;
  }

  /** A running member. */
  member(name: string): EtcdServer {
    const { server } = this.#seat(name);
    if (server === undefined) throw new Error(`${name} does not run`);
    return server;
  }

  /** The name of the member that leads and can be reached by a majority; waits for it. */
  async leader(): Promise<string> {
    const endMs = performance.now() + LEADER_WITHIN_MS;
    for (;;) {
      for (const seat of this.#seats.values()) {
        if (seat.server?.isLeader === true && !seat.gate.shut && this.#reachesMajority(seat.name)) return seat.name;
      }
      if (performance.now() > endMs) throw new Error("no leader was elected");
      await new Promise<void>((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** The first of the members that do not lead. */
  async follower(): Promise<string> {
    const leader = await this.leader();
    const found = [...this.#seats.values()].find(({ name, server, gate }) => name !== leader && server !== undefined && !gate.shut);
    if (found === undefined) throw new Error("there is no other member");
    return found.name;
  }

  /** Ends a member as `kill -9` would: no word to anybody. Its data stays. */
  kill(name: string): Promise<void> {
    const seat = this.#seat(name);
    return this.#next(seat, async () => {
      const { server } = seat;
      if (server === undefined) return;
      seat.server = undefined;
      this.#network.partition(this.#cuts(name));
      seat.gate.open();
      await server.server.close({ transfer: false });
      await server.close();
    });
  }

  /** Stops a member in an orderly way: it hands over leadership first. Its data stays. */
  stop(name: string): Promise<void> {
    const seat = this.#seat(name);
    return this.#next(seat, async () => {
      const { server } = seat;
      if (server === undefined) return;
      seat.gate.open();
      await server.close();
      seat.server = undefined;
    });
  }

  /** Starts a member that was stopped or killed, or stops and starts one that runs; resolves when it serves, so only with a majority. */
  async restart(name: string): Promise<void> {
    await this.stop(name);
    await this.start(name);
    await this.member(name).ready;
  }

  /** Starts a member without waiting until it serves. */
  start(name: string): Promise<void> {
    const seat = this.#seat(name);
    return this.#next(seat, async () => {
      if (seat.server !== undefined) return;
      const server = await startEtcd(this.#configOf(seat));
      seat.server = server;
      seat.memberId = server.server.memberId;
      this.#network.partition(this.#cuts());
    });
  }

  /**
   * Members of different groups do not hear each other; who is in no group is alone. Clients still reach every member.
   * `partition(["m1"], ["m2", "m3"])`
   */
  partition(...groups: readonly (readonly string[])[]): void {
    for (const name of groups.flat()) this.#seat(name);
    this.#groups = groups;
    this.#network.partition(this.#cuts());
  }

  /** Undoes {@link partition}. */
  heal(): void {
    this.#groups = undefined;
    this.#network.partition(this.#cuts());
  }

  /** Stops a member as SIGSTOP would: it does nothing and answers nobody, neither members nor clients of this cluster, while time goes on. */
  pause(name: string): void {
    this.#seat(name).gate.close();
    this.#network.partition(this.#cuts());
  }

  /** Undoes {@link pause}. */
  resume(name: string): void {
    this.#seat(name).gate.open();
    this.#network.partition(this.#cuts());
  }

  /** Puts the time of all members and clients forward. */
  advance(ms: number): Promise<void> {
    return this.clock.advance(ms);
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
    for (const client of this.#clients) client.close();
    // Nobody is left to hand leadership over to.
    await Promise.all(this.names.map((name) => this.kill(name)));
    await rm(this.#directory, { recursive: true, force: true });
  }

  #seat(name: string): Seat {
    const seat = this.#seats.get(name);
    if (seat === undefined) throw new Error(`there is no member ${name}; the members are ${this.names.join(", ")}`);
    return seat;
  }

  /** One thing at a time is done to a member. */
  #next(seat: Seat, act: () => Promise<void>): Promise<void> {
    const done = seat.busy.then(act);
    seat.busy = done.catch(() => undefined);
    return done;
  }

  #localMember(seat: Seat): LocalMember {
    return {
      name: seat.name,
      services: () => {
        const { server } = seat;
        if (server === undefined) throw new EtcdError("server-stopped", GrpcCode.Unavailable, "etcdserver: server stopped");
        if (seat.services === undefined || gatedOf.get(seat.services) !== server) {
          seat.services = gatedServices(server.services, seat.gate);
          gatedOf.set(seat.services, server);
        }
        return seat.services;
      },
    };
  }

  /** Who does not hear whom now. @param dead one more who hears nobody */
  #cuts(dead?: string): EtcdServer["server"]["memberId"][][] {
    const groups = new Map<unknown, EtcdServer["server"]["memberId"][]>();
    for (const { name, gate, memberId } of this.#seats.values()) {
      if (memberId === undefined) continue;
      const at = this.#groups?.findIndex((group) => group.includes(name)) ?? 0;
      const group = gate.shut || name === dead || at < 0 ? name : at;
      groups.set(group, [...(groups.get(group) ?? []), memberId]);
    }
    return [...groups.values()];
  }

  #reachesMajority(name: string): boolean {
    const { memberId } = this.#seat(name);
    const group = this.#cuts().find((ids) => memberId !== undefined && ids.includes(memberId)) ?? [];
    const running = new Set([...this.#seats.values()].filter(({ server }) => server !== undefined).map((seat) => seat.memberId));
    return group.filter((id) => running.has(id)).length > this.names.length / 2;
  }

  #configOf(seat: Seat): EtcdConfig {
    const urlOf = (name: string): string => `http://${name}.holdfast.test:2380`;
    return {
      name: seat.name,
      dataDir: join(this.#directory, seat.name),
      // A test that pulls the plug of the machine does not run on it.
      unsafeNoFsync: true,
      listenPeerUrls: [],
      listenClientUrls: this.#options.listen === true ? ["http://127.0.0.1:0"] : [],
      ...(this.#options.listen === true ? {} : { advertiseClientUrls: [`http://${seat.name}.holdfast.test:2379`] }),
      initialAdvertisePeerUrls: [urlOf(seat.name)],
      initialCluster: this.names.map((name) => `${name}=${urlOf(name)}`).join(","),
      heartbeatInterval: HEARTBEAT_MS,
      electionTimeout: ELECTION_MS,
      transport: () => this.#network.transport(),
      clock: gatedClock(this.clock, seat.gate),
      defer: (fn) => void setImmediate(() => seat.gate.pass(fn)),
      ...this.#options.config,
    };
  }
}

const gatedOf = new WeakMap<LocalServices, EtcdServer>();

/** `const cluster = await startTestCluster();`: three members, all serving. */
export async function startTestCluster(options: TestClusterOptions = {}): Promise<TestCluster> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-test-"));
  const cluster = new TestCluster(options, directory);
  try {
    await Promise.all(cluster.names.map((name) => cluster.start(name)));
    await Promise.all(cluster.names.map((name) => cluster.member(name).ready));
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

/** The same around all tests of a file or a suite; see `useTestEtcd`. */
export function useTestCluster(hooks: Hooks, options?: TestClusterOptions): () => TestCluster {
  return fixture(hooks, () => startTestCluster(options));
}
