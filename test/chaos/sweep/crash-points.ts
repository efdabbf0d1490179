/**
 * A crash at every point: while the workload runs, the machine is copied before each change of its disk and its store, and each copy is made into what a kill
 * and several power losses may leave. Every such image must boot, hold exactly what some prefix of the workload leaves, not less than was acknowledged or seen by
 * anybody, and go on.
 */
import * as api from "../../../src/api/index.ts";
import { utf8Bytes } from "../../../src/base/bytes.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { MemoryNetwork } from "../../../src/server/peer/index.ts";
import type { Server } from "../../../src/server/server.ts";
import type { WatchSession } from "../../../src/server/services/services.contract.ts";
import { Loop } from "./loop.ts";
import { bootMember, type Image, liveImage, type MachineEvent, type PendingWrite } from "./machine.ts";
import { makeWorkload, pairsAt, stateOf, type Workload } from "./workload.ts";

export interface SweepOptions {
  readonly operations: number;
  readonly members: 1 | 3;
  /** Another workload, and other power losses. */
  readonly seed?: number;
  /** Different power losses at each point. */
  readonly powerLosses: number;
  /** Looks at every so-many-th point only; 1 for all. */
  readonly every: number;
  /** Of so many images one goes on, loses power again and boots again, and another one dies while it boots, twice, before it may. */
  readonly againEvery: number;
  readonly mutants?: ReadonlySet<string> | undefined;
  /** Gives up at the first violation. */
  readonly stopAtFirst?: boolean;
  onProgress?(text: string): void;
}

export interface SweepReport {
  /** Changes of disk and store at which the machines were copied. */
  readonly points: number;
  readonly images: number;
  /** Images that were checked; the others were equal to one of these. */
  readonly checked: number;
  /** By kind of change. */
  readonly kinds: Readonly<Record<string, number>>;
  readonly snapshotsInstalled: number;
  readonly violations: readonly string[];
}

/** What had happened when the machines were copied. */
interface Point {
  readonly label: string;
  readonly at: number;
  readonly images: readonly Image[];
  readonly write: (PendingWrite & { readonly path: string }) | undefined;
  /** Number of the machine that was about to change. */
  readonly machine: number;
  /** Operations issued so far. */
  readonly issued: number;
  /** So many operations, in order, must be there. */
  readonly required: number;
  /** The newest revision that an answer or a watch event has shown. */
  readonly seen: number;
}

export async function sweepCrashPoints(options: SweepOptions): Promise<SweepReport> {
  return new CrashPoints(options).run();
}

const NAMES = ["a", "b", "c"];
/** Changes that belong to a state on its way into the store. */
const INSTALLING = /\/snap\/(?:db\.|[^/]*\.part$)/;

class CrashPoints {
  readonly #options: SweepOptions;
  readonly #workload: Workload;
  readonly #names: readonly string[];
  readonly #loop = new Loop();
  readonly #network: MemoryNetwork;
  readonly #machines: Image[] = [];
  #points = 0;
  #images = 0;
  #checked = 0;
  #snapshotsInstalled = 0;
  #pending: Point[] = [];
  #issued = 0;
  #required = 0;
  #seen = 0;
  readonly #kinds: Record<string, number> = {};
  readonly #violations: string[] = [];
  /** Signatures of what was checked since the counts last changed. */
  readonly #known = new Set<string>();

  constructor(options: SweepOptions) {
    this.#options = options;
    this.#workload = makeWorkload(options.operations, options.seed);
    this.#names = NAMES.slice(0, options.members);
    this.#network = new MemoryNetwork({ clock: this.#loop.clock, defer: this.#loop.defer });
  }

  async run(): Promise<SweepReport> {
    const servers = await this.#startAll();
    const [first] = servers;
    if (first === undefined) throw new Error("no member");
    const watch = first.services.watch.watch({});
    watch.send(
      api.WatchRequest.create({
        createRequest: api.WatchCreateRequest.create({ key: utf8Bytes("\0"), rangeEnd: utf8Bytes("\0") }),
      }),
    );
    void this.#follow(watch);
    const { steps } = this.#workload;
    for (const [number, step] of steps.entries()) {
      if (this.#over()) break;
      this.#partition(servers, number, steps.length);
      const leader = servers.find((server) => server.isLeader) ?? first;
      this.#issued += step.length;
      const results = step.map(async (operation, i) => {
        const { header } = await operation.call(leader.services);
        if (operation.revision !== undefined) {
          if (header?.revision !== operation.revision)
            throw new Error(`${operation.what} was to have revision ${operation.revision}, not ${header?.revision}`);
          this.#seen = Math.max(this.#seen, operation.revision);
        }
        // Operations take effect in the order of the list, so all before it must be there too.
        this.#required = Math.max(this.#required, this.#issued - step.length + i + 1);
      });
      await this.#loop.finish(Promise.all(results), { between: this.#between });
    }
    // What still goes on behind: compaction, checkpoints, segments being purged.
    await this.#loop.finish(this.#loop.after(5000), { between: this.#between });
    this.#capture("end", "the end", 0, undefined);
    await this.#checkPending();
    watch.close();
    return {
      points: this.#points,
      images: this.#images,
      checked: this.#checked,
      kinds: this.#kinds,
      snapshotsInstalled: this.#snapshotsInstalled,
      violations: this.#violations,
    };
  }

  async #startAll(): Promise<Server[]> {
    const starting = this.#names.map((name, index) => {
      const onEvent = (event: MachineEvent): void => {
        if (event.kind === "rename" && /db\.incoming-/.test(event.path)) this.#snapshotsInstalled += 1;
        this.#capture(event.kind, event.path, index, event.write);
      };
      const { image, disk } = liveImage(this.#loop, onEvent);
      this.#machines.push(image);
      return { name, image, disk, onEvent };
    });
    const booting = starting.map(({ name, image, disk, onEvent }) =>
      bootMember({
        loop: this.#loop,
        network: this.#network,
        image,
        disk,
        name,
        names: this.#names,
        onEvent,
        mutants: this.#options.mutants,
      }),
    );
    const servers = await this.#loop.finish(Promise.all(booting), { between: this.#between });
    await this.#loop.finish(Promise.all(servers.map((server) => server.ready)), { between: this.#between });
    return servers;
  }

  /** One follower misses the middle third, and gets a snapshot when it is heard again. */
  #partition(servers: readonly Server[], step: number, steps: number): void {
    if (servers.length < 3) return;
    const third = Math.floor(steps / 3);
    const ids = servers.map((server) => server.memberId);
    const lost = servers.findLast((server) => !server.isLeader)?.memberId;
    if (lost === undefined) return;
    if (step === third) this.#network.partition([ids.filter((id) => id !== lost), [lost]]);
    if (step === 2 * third) this.#network.partition([ids]);
  }

  async #follow(watch: WatchSession): Promise<void> {
    for (;;) {
      const responses = await watch.next();
      if (responses === undefined) return;
      for (const { events } of responses) for (const { kv } of events) this.#seen = Math.max(this.#seen, kv?.modRevision ?? 0);
    }
  }

  #over(): boolean {
    return this.#options.stopAtFirst === true && this.#violations.length > 0;
  }

  #capture(kind: string, path: string, machine: number, write: PendingWrite | undefined): void {
    if (this.#over()) return;
    this.#points += 1;
    this.#kinds[kind] = (this.#kinds[kind] ?? 0) + 1;
    // Taking over a received state has few steps, and each of them counts.
    if (this.#points % this.#options.every !== 0 && !INSTALLING.test(path)) return;
    this.#pending.push({
      label: `${this.#points}: ${kind} ${path}`,
      at: this.#points,
      images: this.#machines.map((image) => image.clone()),
      write: write === undefined ? undefined : { path, position: write.position, bytes: Uint8Array.from(write.bytes) },
      machine,
      issued: this.#issued,
      required: this.#required,
      seen: this.#seen,
    });
  }

  readonly #between = async (): Promise<void> => {
    if (this.#pending.length > 0) await this.#checkPending();
  };

  async #checkPending(): Promise<void> {
    const points = this.#pending;
    this.#pending = [];
    for (const point of points) {
      await this.#checkPoint(point);
      if (point.at % 50 === 0) this.#options.onProgress?.(`${this.#points} points, ${this.#images} images, ${this.#required} operations`);
    }
  }

  async #checkPoint(point: Point): Promise<void> {
    await this.#checkImage(point, "kill", 0, false);
    if (point.write !== undefined) await this.#checkImage(point, "kill", 0, true);
    // A part of the write may have reached the disk by itself.
    for (let seed = 1; seed <= this.#options.powerLosses; seed++) {
      await this.#checkImage(point, "power-loss", seed, point.write !== undefined && seed % 2 === 0);
    }
  }

  async #checkImage(point: Point, how: "kill" | "power-loss", seed: number, withPart: boolean): Promise<void> {
    if (this.#over()) return;
    const random = seededRandom((this.#options.seed ?? 0) * 1_000_000 + point.at * 1000 + seed);
    const images = point.images.map((image) => image.clone());
    const { write } = point;
    let part = "";
    if (withPart && write !== undefined) {
      const bytes = random.below(write.bytes.byteLength + 1);
      part = `, ${bytes} of ${write.bytes.byteLength} bytes written`;
      const target = (images[point.machine] as Image).disk;
      const file = await target.open(write.path);
      file.writeNow(write.position, write.bytes.subarray(0, bytes));
    }
    for (const image of images) image.crash(how, random);
    this.#images += 1;
    const signature = `${point.issued} ${point.required} ${point.seen} ${images.map((image) => image.signature()).join(" ")}`;
    if (this.#known.has(signature)) return;
    if (this.#known.size > 10_000) this.#known.clear();
    this.#known.add(signature);
    this.#checked += 1;
    try {
      const turn = this.#checked % this.#options.againEvery;
      if (turn === 1) for (let n = 0; n < 2; n++) await this.#dieBooting(images, point.at + n);
      await this.#checkMachines(images, point, turn === 0);
    } catch (error) {
      this.#violations.push(`${how}${seed === 0 ? "" : ` ${seed}`} at ${point.label}${part}: ${reasonOf(error)}`);
    }
  }

  async #checkMachines(images: readonly Image[], point: Point, again: boolean): Promise<void> {
    const { loop, servers, leader } = await this.#bootAll(images);
    const state = await loop.finish(stateOf(leader));
    const { states, history } = this.#workload;
    const prefix = states.lastIndexOf(state, point.issued);
    if (prefix < 0)
      throw new Error(`holds what no prefix of ${point.issued} operations leaves: ${state}; expected ${states[point.required]}`);
    if (prefix < point.required) throw new Error(`lost what was acknowledged: has ${prefix} operations, not ${point.required}`);
    const { revision, compactRevision } = leader.store;
    if (revision < point.seen) throw new Error(`is at revision ${revision}, but revision ${point.seen} was seen`);
    const oldest = Math.max(1, compactRevision);
    for (const at of new Set([oldest, Math.floor((oldest + revision) / 2), revision])) {
      const pairs = await loop.finish(pairsAt(leader, at));
      if (pairs !== history.get(at)) throw new Error(`revision ${at} is not what it was: ${pairs}; was ${history.get(at)}`);
    }
    const request = api.PutRequest.create({ key: utf8Bytes("after"), value: utf8Bytes("wards") });
    const { header } = await loop.finish(leader.services.kv.put(request, {}));
    if (header?.revision !== revision + 1) throw new Error(`the put after it has revision ${header?.revision}, not ${revision + 1}`);
    await this.#checkEqual(loop, servers, revision + 1);
    if (!again) return;
    const lost = images.map((image) => image.clone());
    for (const image of lost) image.crash("power-loss", seededRandom(point.at));
    const after = await this.#bootAll(lost);
    const pairs = await after.loop.finish(pairsAt(after.leader, revision));
    if (after.leader.store.revision !== revision + 1) throw new Error("after a second power loss the put is not there");
    if (pairs !== history.get(revision)) throw new Error("after a second power loss the pairs are not the same");
  }

  /** Everything dies again at some change of the disk while it boots, or shortly after. */
  async #dieBooting(images: readonly Image[], seed: number): Promise<void> {
    const random = seededRandom(seed);
    for (const { disk } of images) disk.dieAt(disk.events + 1 + random.below(60));
    try {
      await this.#bootAll(images);
    } catch (error) {
      if (!images.some(({ disk }) => disk.isDead)) throw error;
    }
    for (const image of images) image.crash("power-loss", random);
  }

  async #bootAll(images: readonly Image[]): Promise<{ loop: Loop; servers: readonly Server[]; leader: Server }> {
    const loop = new Loop();
    const network = new MemoryNetwork({ clock: loop.clock, defer: loop.defer });
    const booting = images.map((image, i) =>
      bootMember({ loop, network, image, name: this.#names[i] as string, names: this.#names, mutants: this.#options.mutants }),
    );
    const servers = await loop.finish(Promise.all(booting));
    await loop.finish(Promise.all(servers.map((server) => server.ready)));
    const leader = servers.find((server) => server.isLeader);
    if (leader === undefined) throw new Error("nobody leads");
    return { loop, servers, leader };
  }

  /** All members have the same, within a bound. */
  async #checkEqual(loop: Loop, servers: readonly Server[], revision: number): Promise<void> {
    if (servers.length < 2) return;
    await loop.run(() => servers.every((server) => server.store.revision >= revision));
    const hashes = await loop.finish(
      Promise.all(servers.map((server) => server.services.maintenance.hashKv(api.HashKVRequest.create({ revision }), {}))),
    );
    const compacted = hashes.map((one) => one.compactRevision);
    if (new Set(compacted).size === 1 && new Set(hashes.map((one) => one.hash)).size > 1)
      throw new Error(`the members differ at revision ${revision}: ${hashes.map((one) => one.hash).join(", ")}`);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause instanceof Error ? ` (${error.cause.message})` : "";
  return `${error.message}${cause}`;
}
