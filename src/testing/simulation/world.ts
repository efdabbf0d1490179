/** A cluster, its clients and the network between them in simulated time, in one thread, all chance from one seed. */
import { MemoryBackend, MemoryStorage } from "../../backend/index.ts";
import { utf8Bytes, utf8Text } from "../../base/bytes.ts";
import type { Disk } from "../../base/disk.ts";
import type { MemberId } from "../../base/ids.ts";
import { silentLogger } from "../../base/logger.ts";
import { type Random, seededRandom } from "../../base/random.ts";
import { createClient, type EtcdClient } from "../../client/index.ts";
import { resolveConfig } from "../../embed/index.ts";
import { inThreadHasher, MemoryNetwork, Server, type ServerConfig } from "../../server/index.ts";
import { gatedClock } from "../gate.ts";
import type { PlannedFault } from "./fault-plan.ts";
import { Life } from "./life.ts";
import { SimClock } from "./sim-clock.ts";
import { SimDisk } from "./sim-disk.ts";
import { realTurn } from "./sim-globals.ts";
import { ClientHost, type Target } from "./way.ts";

/** A machine: its disk stays when its process dies. */
class Seat implements Target {
  readonly name: string;
  readonly disk = new SimDisk();
  readonly stores = new Map<string, MemoryStorage>();
  life: Life | undefined;
  memberId: MemberId | undefined;
  lives = 0;

  constructor(name: string) {
    this.name = name;
  }

  services(): Server["services"] {
    const { server } = this.life as Life;
    return (server as Server).services;
  }
}

/** What was done, for whoever looks for the reason of a failure. */
export interface FaultEvent {
  /** Of simulated time since the members served. */
  readonly atMs: number;
  readonly what: string;
}

const HEARTBEAT_MS = 100;
const ELECTION_MS = 1000;
const PEER_TRAVEL_MS = 1;
const SEGMENT_BYTES = 1024 * 1024;
const START_WITHIN_MS = 60_000;
const STORE_FILE = "STORE";

export class World {
  readonly clock = new SimClock();
  readonly random: Random;
  readonly events: FaultEvent[] = [];
  /** A member ended by itself, or could not start: that is not the program's fault. */
  failure: unknown;
  readonly #seats: readonly Seat[];
  readonly #network: MemoryNetwork;
  readonly #deferred: (() => void)[] = [];
  readonly #hosts: { readonly host: ClientHost; readonly client: EtcdClient }[] = [];
  readonly #lastArrivalMs = new Map<string, number>();
  /** Of partitions that overlap. */
  readonly #partitions = new Set<ReadonlySet<Seat>>();
  #startMs = 0;

  constructor(seed: number, members: number) {
    this.random = seededRandom(seed);
    this.#seats = Array.from({ length: members }, (_, i) => new Seat(`m${i + 1}`));
    this.#network = new MemoryNetwork({
      clock: this.clock,
      route: ({ from, to }) => [this.#peerDelay(from, to)],
      carry: ({ to }, delayMs, arrive) => {
        this.clock.timer(delayMs, () => {
          const { life } = this.#seats.find(({ memberId }) => memberId === to) ?? {};
          if (life === undefined) arrive();
          else life.gate.pass(arrive);
        });
      },
    });
  }

  get nowMs(): number {
    return this.clock.monotonicMs() - this.#startMs;
  }

  async start(): Promise<void> {
    for (const seat of this.#seats) this.#boot(seat);
    const endMs = this.clock.monotonicMs() + START_WITHIN_MS;
    await this.drive(
      () => this.#seats.every(({ life }) => life?.ready === true) || this.failure !== undefined || this.clock.monotonicMs() > endMs,
    );
    if (this.failure !== undefined) throw this.failure;
    if (!this.#seats.every(({ life }) => life?.ready === true)) throw new Error("the simulated members did not come to serve");
    this.#startMs = this.clock.monotonicMs();
  }

  /** Lets time go on until `over`. */
  async drive(over: () => boolean): Promise<void> {
    for (;;) {
      // Everything that follows without time passing follows now.
      await realTurn();
      if (over()) return;
      const deferred = this.#deferred.shift();
      if (deferred !== undefined) deferred();
      else this.clock.fireNext();
    }
  }

  newClient(name: string): EtcdClient {
    const host = new ClientHost(name, this.clock, this.random);
    const client = createClient({
      endpoints: this.#seats.map((seat) => seat.name),
      transport: host.transport(this.#seats),
      clock: gatedClock(this.clock, host.process),
    });
    this.#hosts.push({ host, client });
    return client;
  }

  /** Does what was planned, if there is anything to do it to. Returns how to undo it, which may be called more than once. */
  apply(fault: PlannedFault): () => void {
    const { kind } = fault;
    switch (kind) {
      case "kill":
        return this.#kill(this.#chosenSeat(fault));
      case "pause":
        return this.#pause(this.#chosenSeat(fault));
      case "partition":
        return this.#partition(fault);
      case "client-cut":
      case "client-pause":
        return this.#holdClient(kind, fault);
      default:
        return kind satisfies never;
    }
  }

  end(): void {
    for (const { client } of this.#hosts) client.close();
    for (const { life } of this.#seats) life?.die();
    this.#deferred.length = 0;
  }

  // -- members -----------------------------------------------------------------------------------------------------------------------------

  #boot(seat: Seat): void {
    seat.lives += 1;
    const life = new Life(seat.name, this.clock, this.random);
    seat.life = life;
    this.#run(seat, life).catch((error: unknown) => {
      if (!life.dead) this.failure ??= error;
    });
  }

  async #run(seat: Seat, life: Life): Promise<void> {
    const transport = this.#network.transport({ clock: life.clock });
    life.transport = transport;
    const disk = seat.disk.for(life);
    const server = await Server.start({
      config: this.#configOf(seat),
      ports: {
        clock: life.clock,
        random: this.random,
        disk,
        logger: silentLogger,
        lockDirectory: async () => ({ close: async () => undefined }),
        openBackend: (directory) => openStore(seat, disk, directory),
        defer: (fn) => void this.#deferred.push(() => life.run(fn)),
        passwords: inThreadHasher(),
      },
      transport,
      fetchMembers: async () => transport.fetchMembers?.(),
      onIdentity: ({ memberId }) => {
        seat.memberId = memberId;
      },
    });
    life.server = server;
    void server.failed.then((error) => {
      if (!life.dead) this.failure ??= error;
    });
    await server.ready;
    life.ready = !life.dead;
  }

  #configOf(seat: Seat): ServerConfig {
    const urlOf = (name: string): string => `http://${name}.holdfast.test:2380`;
    const { server } = resolveConfig({
      name: seat.name,
      dataDir: "/data",
      listenPeerUrls: [],
      listenClientUrls: [],
      advertiseClientUrls: [`http://${seat.name}.holdfast.test:2379`],
      initialAdvertisePeerUrls: [urlOf(seat.name)],
      initialCluster: this.#seats.map(({ name }) => `${name}=${urlOf(name)}`).join(","),
      heartbeatInterval: HEARTBEAT_MS,
      electionTimeout: ELECTION_MS,
      transport: this.#network.transport(),
    });
    return { ...server, limits: { ...server.limits, walSegmentBytes: SEGMENT_BYTES } };
  }

  #peerDelay(from: MemberId, to: MemberId): number {
    const nowMs = this.clock.monotonicMs();
    const pair = `${from}>${to}`;
    const arrivesMs = Math.max(this.#lastArrivalMs.get(pair) ?? 0, nowMs + (PEER_TRAVEL_MS * (256 + this.random.below(1024))) / 1024);
    this.#lastArrivalMs.set(pair, arrivesMs);
    return arrivesMs - nowMs;
  }

  // -- faults ------------------------------------------------------------------------------------------------------------------------------

  #note(what: string): void {
    this.events.push({ atMs: Math.round(this.nowMs), what });
  }

  #chosenSeat({ leader, choice }: PlannedFault): Seat {
    const leading = this.#seats.find(({ life }) => life?.ready === true && !life.gate.shut && life.server?.isLeader === true);
    if (leader && leading !== undefined) return leading;
    return this.#seats[choice % this.#seats.length] as Seat;
  }

  #kill(seat: Seat): () => void {
    const { life } = seat;
    if (life === undefined || life.dead) return () => undefined;
    this.#note(`${seat.name} is killed`);
    life.die();
    for (const storage of seat.stores.values()) storage.kill();
    let down = true;
    return () => {
      if (!down) return;
      down = false;
      this.#note(`${seat.name} starts`);
      this.#boot(seat);
    };
  }

  #pause(seat: Seat): () => void {
    const { life } = seat;
    if (life === undefined || life.dead || life.gate.shut) return () => undefined;
    this.#note(`${seat.name} is paused`);
    life.gate.close();
    return () => {
      if (!life.gate.shut) return;
      this.#note(`${seat.name} goes on`);
      life.gate.open();
    };
  }

  #partition(fault: PlannedFault): () => void {
    const chosen = this.#chosenSeat(fault);
    this.#note(`${chosen.name} is alone`);
    const alone = new Set([chosen]);
    this.#partitions.add(alone);
    this.#cutWays();
    return () => {
      if (!this.#partitions.delete(alone)) return;
      this.#note(`${chosen.name} is heard again`);
      this.#cutWays();
    };
  }

  #cutWays(): void {
    const groups = new Map<string, MemberId[]>();
    for (const seat of this.#seats) {
      if (seat.memberId === undefined) continue;
      const group = [...this.#partitions].map((alone) => (alone.has(seat) ? "1" : "0")).join("");
      groups.set(group, [...(groups.get(group) ?? []), seat.memberId]);
    }
    this.#network.partition([...groups.values()]);
  }

  #holdClient(kind: "client-cut" | "client-pause", { choice, loses }: PlannedFault): () => void {
    const { host } = this.#hosts[choice % Math.max(1, this.#hosts.length)] ?? {};
    const gate = kind === "client-cut" ? host?.network : host?.process;
    if (host === undefined || gate === undefined || gate.shut) return () => undefined;
    this.#note(`${host.name} is ${kind === "client-cut" ? "cut off" : "paused"}`);
    gate.close();
    return () => {
      if (!gate.shut) return;
      this.#note(`${host.name} is back${loses ? ", its connections are not" : ""}`);
      if (loses) host.disconnect();
      gate.open();
    };
  }
}

/** A store is a file that names it: so renaming and removing its directory does to it what it does to a real one. */
async function openStore(seat: Seat, disk: Disk, directory: string): Promise<MemoryBackend> {
  await disk.makeDirectory(directory);
  const path = `${directory}/${STORE_FILE}`;
  if (await disk.exists(path)) {
    const file = await disk.open(path);
    const known = seat.stores.get(utf8Text(await file.read(0, await file.sizeBytes())));
    if (known !== undefined) return new MemoryBackend(known);
  }
  const id = `${seat.lives}-${seat.stores.size}`;
  const storage = new MemoryStorage();
  seat.stores.set(id, storage);
  const file = await disk.open(path, { create: true });
  await file.truncate(0);
  await file.write(0, utf8Bytes(id));
  return new MemoryBackend(storage);
}
