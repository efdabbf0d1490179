/**
 * Damage to what a member has on its disk: bits flipped, bytes zeroed, files cut, removed and mixed up. A member may refuse to start, naming what is wrong; or
 * have everything, because the damaged bytes meant nothing; it must never come up with another state than the one it had. Likewise for a state snapshot on its way
 * to another member, and for a backup.
 */

import * as api from "../../../src/api/index.ts";
import type { Backend } from "../../../src/backend/backend.ts";
import { crc32 } from "../../../src/base/bytes.ts";
import { silentLogger } from "../../../src/base/logger.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { SnapshotMetadata } from "../../../src/raft/index.ts";
import { isDamage } from "../../../src/server/bootstrap-error.ts";
import { MemoryNetwork } from "../../../src/server/peer/index.ts";
import { restoreBackup } from "../../../src/server/restore.ts";
import type { Server } from "../../../src/server/server.ts";
import { SnapshotReader } from "../../../src/server/snapshot/format.ts";
import { memorySpool, SnapshotReceiver, writeSnapshotSpool } from "../../../src/server/snapshot/index.ts";
import { Wal, type WalContents } from "../../../src/wal/index.ts";
import { decodeHeader, HEADER_BYTES, recordBytes, seedOfHead } from "../../../src/wal/record.ts";
import { Loop } from "./loop.ts";
import { bootMember, DATA, Image, LOG, urlOf } from "./machine.ts";
import { makeWorkload, stateOf, type Workload } from "./workload.ts";

export interface DamageOptions {
  readonly operations: number;
  /** With them the log is cut now and then; without, all of it is needed, and the store is nothing but a view of it. */
  readonly checkpoints: boolean;
  /** Flips a bit in every so-many-th byte of the log; 1 for all. */
  readonly every: number;
  /** Boots a whole member on every so-many-th of them; the rest is only read. */
  readonly bootEvery: number;
  readonly mutants?: ReadonlySet<string> | undefined;
  /** Nothing but the rows of the store. */
  readonly onlyStore?: boolean;
  /** Gives up at the first violation. */
  readonly stopAtFirst?: boolean;
  onProgress?(text: string): void;
}

export interface DamageReport {
  /** By kind of damage. */
  readonly kinds: readonly DamageCount[];
  readonly violations: readonly string[];
}

export interface DamageCount {
  readonly what: string;
  readonly images: number;
  readonly refused: number;
  /** Came up, or was read, with everything. */
  readonly whole: number;
  /** Came up without the newest operations, where docs/FORMATS.md says that nothing could tell. */
  readonly hidden: number;
}

export async function sweepDamage(options: DamageOptions): Promise<DamageReport> {
  const sweep = new Damage(options);
  await sweep.run();
  return { kinds: [...sweep.kinds.values()], violations: sweep.violations };
}

class Damage {
  readonly kinds = new Map<string, { what: string; images: number; refused: number; whole: number; hidden: number }>();
  readonly violations: string[] = [];
  readonly #options: DamageOptions;
  readonly #workload: Workload;
  readonly #random: Random = seededRandom(17);
  #state = "";
  #contents = "";

  constructor(options: DamageOptions) {
    this.#options = options;
    this.#workload = makeWorkload(options.operations, 4);
  }

  async run(): Promise<void> {
    const { killed, closed, snapshot, backup } = await this.#prepare();
    if (this.#options.onlyStore === true) return this.#store(closed);
    for (const [how, image] of [
      ["killed", killed],
      ["closed", closed],
    ] as const) {
      this.#contents = describe(await this.#read(image));
      await this.#flips(how, image);
      await this.#cuts(how, image);
      await this.#mixUps(how, image);
    }
    await this.#smallFiles(closed);
    await this.#store(closed);
    await this.#snapshotStream(snapshot);
    await this.#backup(backup);
  }

  /** A member that did the whole workload, once killed and once closed. */
  async #prepare(): Promise<{ killed: Image; closed: Image; snapshot: SnapshotBytes; backup: Uint8Array }> {
    const image = new Image();
    const { loop, server } = await this.#boot(image);
    for (const step of this.#workload.steps) await loop.finish(Promise.all(step.map((operation) => operation.call(server.services))));
    await loop.finish(loop.after(5000));
    this.#state = await loop.finish(stateOf(server));
    const expected = this.#workload.states[this.#options.operations];
    if (this.#state !== expected) throw new Error(`the workload left ${this.#state}, not ${expected}`);
    const backup = await loop.finish(backupOf(server));
    const snapshot = await loop.finish(snapshotOf(server, loop));
    const killed = image.clone();
    killed.crash("kill", seededRandom(1));
    await loop.finish(server.close());
    const closed = image.clone();
    closed.crash("power-loss", seededRandom(1));
    return { killed, closed, snapshot, backup };
  }

  async #boot(image: Image): Promise<{ loop: Loop; server: Server }> {
    const loop = new Loop();
    const network = new MemoryNetwork({ clock: loop.clock, defer: loop.defer });
    const server = await loop.finish(
      bootMember({
        loop,
        network,
        image,
        name: "a",
        names: ["a"],
        snapshotCount: this.#options.checkpoints ? undefined : 1_000_000,
        mutants: this.#options.mutants,
      }),
    );
    await loop.finish(server.ready);
    return { loop, server };
  }

  #read(image: Image): Promise<WalContents> {
    return Wal.read({ disk: image.disk, directory: LOG });
  }

  // -- the log ------------------------------------------------------------------------------------------------------------------------------------

  async #flips(how: string, image: Image): Promise<void> {
    let number = 0;
    for (const path of logFiles(image)) {
      const bytes = image.disk.peek(path);
      for (let at = 0; at < bytes.byteLength; at += this.#options.every) {
        // Most of the room behind the last record is empty.
        if (bytes[at] === 0 && isZeroAround(bytes, at) && at % 64 !== 0) continue;
        number += 1;
        const changed = Uint8Array.from(bytes);
        changed[at] = (changed[at] as number) ^ (1 << this.#random.below(8));
        const boots = number % this.#options.bootEvery === 0;
        await this.#judge(`a bit flipped in the log of a ${how} member`, `${path} at ${at}`, image, boots, (copy) =>
          copy.disk.poke(path, at, changed.subarray(at, at + 1)),
        );
        if (number % 1000 === 0) this.#options.onProgress?.(`${number} bits flipped in the log of a ${how} member`);
      }
      for (let at = 0; at < bytes.byteLength; at += 512) {
        if (isZero(bytes.subarray(at, at + 512))) continue;
        await this.#judge(
          `random bytes over a sector of the log of a ${how} member`,
          `${path} at ${at}`,
          image,
          at % 1024 === 0,
          (copy) => copy.disk.poke(path, at, this.#noise(512)),
          how === "closed" && coversTheEnd(image, path, at),
        );
      }
    }
  }

  #noise(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#random.below(256));
  }

  async #cuts(how: string, image: Image): Promise<void> {
    for (const path of logFiles(image)) {
      const { byteLength } = image.disk.peek(path);
      for (let size = 0; size < byteLength; size += 1 + this.#random.below(97)) {
        await this.#judge(`a segment of a ${how} member cut short`, `${path} to ${size}`, image, size % 10 === 0, (copy) =>
          copy.disk.resize(path, size),
        );
      }
      await this.#judge(`a segment of a ${how} member removed`, path, image, true, (copy) => void copy.disk.remove(path));
    }
  }

  /** A segment in the place of another, a sector in the place of another (failure catalogue BW21). */
  async #mixUps(how: string, image: Image): Promise<void> {
    const paths = logFiles(image);
    for (const path of paths) {
      for (const other of paths) {
        if (other === path) continue;
        await this.#judge(`a segment of a ${how} member in the place of another`, `${other} over ${path}`, image, true, (copy) =>
          copy.disk.poke(path, 0, image.disk.peek(other)),
        );
      }
      const bytes = image.disk.peek(path);
      for (let n = 0; n < 60; n++) {
        const from = 512 * this.#random.below(bytes.byteLength / 512);
        const to = 512 * this.#random.below(bytes.byteLength / 512);
        const sector = bytes.subarray(from, from + 512);
        if (from === to || isZero(sector)) continue;
        await this.#judge(
          `a sector of the log of a ${how} member in the place of another`,
          `${path} ${from} over ${to}`,
          image,
          n % 4 === 0,
          (copy) => copy.disk.poke(path, to, sector),
          how === "closed" && coversTheEnd(image, path, to),
        );
      }
    }
  }

  // -- beside the log -----------------------------------------------------------------------------------------------------------------------------

  /** Copies and left-overs: damaged, they must not matter, or be refused. */
  async #smallFiles(image: Image): Promise<void> {
    for (const path of image.disk.filesBelow(DATA)) {
      if (path.startsWith(LOG) || path.endsWith("STORE")) continue;
      const bytes = image.disk.peek(path);
      const step = Math.ceil(bytes.byteLength / 200);
      for (let at = 0; at < bytes.byteLength; at += step) {
        await this.#judge(`a bit flipped in ${path.slice(DATA.length + 1)}`, `at ${at}`, image, true, (copy) =>
          copy.disk.flipBit(path, at, this.#random.below(8)),
        );
      }
    }
  }

  /** The store gives back something else than was written: nothing below it checks that (failure catalogue BW16). */
  async #store(image: Image): Promise<void> {
    const rows = image.clone().stores.rows();
    for (const [key, value] of rows) {
      for (let n = 0; n < Math.min(6, value.byteLength); n++) {
        const at = this.#random.below(value.byteLength);
        const changed = Uint8Array.from(value);
        changed[at] = (changed[at] as number) ^ (1 << this.#random.below(8));
        await this.#judge(
          `a bit flipped in a row of the store (${rowSpaceOf(key)})`,
          `${textOf(key)} at ${at}: ${textOf(changed)}`,
          image,
          true,
          (copy) => copy.stores.putRow(key, changed),
        );
      }
    }
  }

  /** Every byte of a state snapshot on its way to another member. */
  async #snapshotStream(snapshot: SnapshotBytes): Promise<void> {
    const { bytes, id, metadata } = snapshot;
    const attempt = async (what: string, detail: string, sent: Uint8Array): Promise<void> => {
      const receiver = new SnapshotReceiver({ storage: memorySpool(), clusterId: snapshot.clusterId, defer: (fn) => setImmediate(fn) });
      const chunks = async function* (): AsyncGenerator<Uint8Array> {
        for (let at = 0; at < sent.byteLength; at += 4096) yield sent.subarray(at, at + 4096);
      };
      const outcome = await receiver.receive({ id, sizeBytes: bytes.byteLength }, chunks(), metadata).then(
        () => "taken",
        () => "refused",
      );
      this.#note(what, outcome === "refused" ? "refused" : `${detail}: ${outcome}`);
    };
    const step = Math.max(1, Math.floor(bytes.byteLength / (8000 / this.#options.every)));
    for (let at = 0; at < bytes.byteLength; at += at < 512 ? 1 : step) {
      const changed = Uint8Array.from(bytes);
      changed[at] = (changed[at] as number) ^ (1 << this.#random.below(8));
      await attempt("a bit flipped in a state snapshot", `at ${at}`, changed);
      if (at % 3 === 0) await attempt("a state snapshot cut short", `to ${at}`, bytes.subarray(0, at));
    }
    await attempt("a state snapshot with something behind it", "one byte", Uint8Array.from([...bytes, 0]));
  }

  async #backup(backup: Uint8Array): Promise<void> {
    const attempt = async (what: string, detail: string, bytes: Uint8Array): Promise<void> => {
      const image = new Image();
      const outcome = await restoreBackup({
        name: "a",
        dataDirectory: DATA,
        walDirectory: LOG,
        initialCluster: [{ name: "a", urls: [urlOf("a")] }],
        initialClusterToken: "restored",
        initialAdvertisePeerUrls: [urlOf("a")],
        source: { sizeBytes: bytes.byteLength, read: async (position, length) => bytes.subarray(position, position + length) },
        skipHashCheck: false,
        bumpRevision: 0,
        markCompacted: false,
        disk: image.disk,
        clock: new Loop().clock,
        logger: silentLogger,
        openBackend: (directory) => image.stores.open(image.disk, directory, () => undefined),
        defer: (fn) => setImmediate(fn),
      }).then(
        () => "taken",
        () => "refused",
      );
      this.#note(what, outcome === "refused" && image.disk.filesBelow(DATA).length === 0 ? "refused" : `${detail}: ${outcome}`);
    };
    const step = Math.max(1, Math.floor(backup.byteLength / (2000 / this.#options.every)));
    for (let at = 0; at < backup.byteLength; at += step) {
      const changed = Uint8Array.from(backup);
      changed[at] = (changed[at] as number) ^ (1 << this.#random.below(8));
      await attempt("a bit flipped in a backup", `at ${at}`, changed);
      await attempt("a backup cut short", `to ${at}`, backup.subarray(0, at));
    }
  }

  // -- verdicts -----------------------------------------------------------------------------------------------------------------------------------

  async #judge(what: string, detail: string, image: Image, boots: boolean, harm: (copy: Image) => void, hides = false): Promise<void> {
    if (this.#options.stopAtFirst === true && this.violations.length > 0) return;
    const copy = image.clone();
    harm(copy);
    try {
      // Beyond what the log itself can tell, the member compares log and store.
      if (boots || describe(await this.#read(copy)) !== this.#contents) await this.#judgeMember(what, detail, copy, hides);
      else this.#note(what, "whole");
    } catch (error) {
      if (isDamage(error) && error.message !== "") this.#note(what, "refused");
      else this.#note(what, `${detail}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  }

  async #judgeMember(what: string, detail: string, copy: Image, hides: boolean): Promise<void> {
    const { loop, server } = await this.#boot(copy);
    const state = await loop.finish(stateOf(server));
    if (state === this.#state) this.#note(what, "whole");
    else if (hides && this.#workload.states.includes(state)) this.#note(what, "hidden");
    else this.#note(what, `${detail}: came up with ${state}`);
  }

  #note(what: string, outcome: string): void {
    let kind = this.kinds.get(what);
    if (kind === undefined) {
      kind = { what, images: 0, refused: 0, whole: 0, hidden: 0 };
      this.kinds.set(what, kind);
    }
    kind.images += 1;
    if (outcome === "refused") kind.refused += 1;
    else if (outcome === "whole") kind.whole += 1;
    else if (outcome === "hidden") kind.hidden += 1;
    else this.violations.push(`${what}, ${outcome}`);
  }
}

interface SnapshotBytes {
  readonly id: string;
  readonly bytes: Uint8Array;
  readonly metadata: SnapshotMetadata;
  readonly clusterId: Server["clusterId"];
}

async function snapshotOf(server: Server, loop: Loop): Promise<SnapshotBytes> {
  const { state, clusterId } = server;
  await state.writer.idle();
  const header = { clusterId, index: state.appliedIndex, term: state.appliedTerm, confState: state.confState };
  const backend: Backend = state.backend;
  const snapshot = backend.snapshot();
  const source = await writeSnapshotSpool({ backend, snapshot, header, storage: memorySpool(), tag: "1", defer: loop.defer });
  await snapshot.close();
  const parts: Uint8Array[] = [];
  for await (const part of source.read(0)) parts.push(Uint8Array.from(part));
  const bytes = joined(parts);
  // So that a reader that refuses everything does not pass.
  new SnapshotReader().push(bytes);
  return { id: source.info.id, bytes, clusterId, metadata: { index: header.index, term: header.term, confState: header.confState } };
}

async function backupOf(server: Server): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const { blob } of server.services.maintenance.snapshot(api.SnapshotRequest.create({}), {})) parts.push(blob);
  return joined(parts);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}

function logFiles(image: Image): string[] {
  return image.disk.filesBelow(LOG).filter((path) => path.endsWith(".wal"));
}

/**
 * Whether that sector holds the head of the newest group, or all that claims that it was on disk: then nothing inside the log can tell that it is gone. (After a
 * kill the store tells; a power loss may take the store back too.)
 */
function coversTheEnd(image: Image, path: string, at: number): boolean {
  if (path !== logFiles(image).at(-1)) return false;
  const bytes = image.disk.peek(path);
  const seed = seedOfHead(bytes.subarray(HEADER_BYTES));
  let lastGroup = 0;
  for (let offset = 0; ; ) {
    const header = decodeHeader(bytes.subarray(offset, offset + HEADER_BYTES), seed);
    if (header === undefined) break;
    if (header.type === "group") lastGroup = offset;
    offset += recordBytes(header.payloadBytes);
  }
  return at + 512 > lastGroup;
}

function describe(contents: WalContents): string {
  const { hardState, snapshot, entries } = contents;
  const sum = entries.reduce((crc, entry) => crc32(entry.data, crc), 0);
  return `${hardState.term} ${hardState.vote} ${hardState.commit} ${snapshot.index} ${snapshot.term} ${entries.length} ${entries[0]?.index} ${sum}`;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function isZeroAround(bytes: Uint8Array, at: number): boolean {
  return isZero(bytes.subarray(Math.max(0, at - 32), at + 32));
}

function rowSpaceOf(key: Uint8Array): string {
  return String.fromCharCode(key[0] ?? 0);
}

function textOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) =>
    byte >= 32 && byte < 127 ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}
