/**
 * A disk in memory that can fail like a real one. What is written lives in the page cache until it is synced, directory entries until
 * their directory is synced, and `crash` decides what is left:
 *
 * - "kill": the process died, the kernel lives: everything written stays (but is still not synced).
 * - "power-loss": of what was not synced any subset of 4 KiB blocks survives, one of them possibly torn at any byte; of the directory
 *   changes not synced a prefix or any subset survives. Afterwards everything left is durable.
 *
 * Effects happen in the call itself (unless `delay` holds a sync back), so a run is deterministic; the promises only keep to the port.
 */
import type { Disk, DiskFile } from "../../src/base/disk.ts";
import type { Random } from "../../src/base/random.ts";
import { seededRandom } from "../../src/base/random.ts";

const BLOCK_BYTES = 4096;
const ZERO_BLOCK = new Uint8Array(BLOCK_BYTES);

export type DiskEventKind = "make-directory" | "create" | "write" | "sync" | "truncate" | "rename" | "remove" | "sync-directory" | "read";

export interface DiskEvent {
  /** Counts every event of the disk from 1. */
  readonly sequence: number;
  readonly kind: DiskEventKind;
  readonly path: string;
  /** Only for reads and writes. */
  readonly bytes: number;
}

/** May be changed at any time. */
export interface DiskFaults {
  /** Bytes that can still be written; a write beyond stores a part and then fails with ENOSPC. */
  freeBytes?: number | undefined;
  /** "once" fails one sync and then pretends success, as kernels do: what the failed one covered is never written. */
  syncError?: "once" | "forever" | undefined;
  /** Syncs (also of directories) succeed without any effect. */
  syncLies?: boolean | undefined;
  /** Writes store a part only and report success: what a caller sees who ignores short writes. */
  shortWrites?: { readonly of: number; readonly outOf: number } | undefined;
  /** Only these paths have the faults above; default all. */
  only?: ((path: string) => boolean) | undefined;
}

export interface ModelDiskOptions {
  readonly random?: Random;
  /** Called before each event has its effect. May throw, which then is the operation's error. */
  readonly onEvent?: (event: DiskEvent) => void;
  /** Holds back the completion (and effect) of a sync. */
  readonly delay?: (event: DiskEvent) => Promise<void> | undefined;
  /** Called when the process dies because of `dieAt`, before the operation fails. */
  readonly onDeath?: () => void;
}

/** What every operation fails with between `dieAt` and `crash`, and every old handle after it. */
export class DiskDeadError extends Error {
  constructor() {
    super("the simulated process is dead");
    this.name = "DiskDeadError";
  }
}

export class DiskError extends Error {
  readonly code: string;

  constructor(code: string, what: string) {
    super(`${code}: ${what}`);
    this.name = "DiskError";
    this.code = code;
  }
}

/** One change of some directory entries, atomic: all of it becomes durable or nothing. */
interface DirectoryChange {
  readonly entries: readonly { readonly directory: Directory; readonly name: string; readonly node: Node | undefined }[];
  readonly sequence: number;
  durable: boolean;
}

class Directory {
  entries = new Map<string, Node>();
  durable = new Map<string, Node>();
  pending: DirectoryChange[] = [];
}

/** A sync under way: what it covers counts only when it returns. */
interface SyncUnderWay {
  readonly blocks: ReadonlySet<number>;
  readonly sizeBytes: number;
  /** Contents, as of the start of the sync, of blocks that were written to again meanwhile. */
  readonly saved: Map<number, Uint8Array | undefined>;
}

class FileNode {
  /** Its present name, for events: a handle follows a rename of the file (not of a directory above it). */
  path = "";
  /** Undefined (or beyond the end) reads as zeros. */
  blocks: (Uint8Array | undefined)[] = [];
  sizeBytes = 0;
  /** What is on the disk, for blocks that differ from it in the page cache. */
  durable = new Map<number, Uint8Array | undefined>();
  durableSizeBytes = 0;
  /** Those of `durable` that the next sync will write. A block that is in `durable` only was lost by a failed sync. */
  dirty = new Set<number>();
  syncs: SyncUnderWay[] = [];

  touch(block: number): void {
    if (!this.durable.has(block)) this.durable.set(block, copyBlock(this.blocks[block]));
    for (const sync of this.syncs) {
      if (sync.blocks.has(block) && !sync.saved.has(block)) sync.saved.set(block, copyBlock(this.blocks[block]));
    }
    this.dirty.add(block);
  }

  write(position: number, bytes: Uint8Array): void {
    let done = 0;
    while (done < bytes.byteLength) {
      const at = position + done;
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES - within, bytes.byteLength - done);
      const part = bytes.subarray(done, done + length);
      this.touch(block);
      if (length === BLOCK_BYTES && isZero(part)) {
        this.blocks[block] = undefined;
      } else {
        let target = this.blocks[block];
        if (target === undefined) {
          target = new Uint8Array(BLOCK_BYTES);
          while (this.blocks.length < block) this.blocks.push(undefined);
          this.blocks[block] = target;
        }
        target.set(part, within);
      }
      done += length;
    }
    this.sizeBytes = Math.max(this.sizeBytes, position + bytes.byteLength);
  }

  read(position: number, length: number): Uint8Array {
    const wanted = Math.max(0, Math.min(length, this.sizeBytes - position));
    const result = new Uint8Array(wanted);
    let done = 0;
    while (done < wanted) {
      const at = position + done;
      const block = Math.floor(at / BLOCK_BYTES);
      const within = at - block * BLOCK_BYTES;
      const part = Math.min(BLOCK_BYTES - within, wanted - done);
      const source = this.blocks[block];
      if (source !== undefined) result.set(source.subarray(within, within + part), done);
      done += part;
    }
    return result;
  }

  truncate(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) {
      const keep = Math.ceil(sizeBytes / BLOCK_BYTES);
      for (let block = keep; block < this.blocks.length; block++) {
        if (this.blocks[block] !== undefined) this.touch(block);
      }
      this.blocks.length = Math.min(this.blocks.length, keep);
      const within = sizeBytes % BLOCK_BYTES;
      const last = this.blocks[keep - 1];
      if (within !== 0 && last !== undefined) {
        this.touch(keep - 1);
        last.fill(0, within);
      }
    }
    this.sizeBytes = sizeBytes;
  }

  powerLoss(random: Random): void {
    const inFlight = new Set<number>();
    for (const sync of this.syncs) for (const block of sync.blocks) inFlight.add(block);
    const mayPersist = [...this.durable.keys()].filter((block) => this.dirty.has(block) || inFlight.has(block));
    const torn = mayPersist.length > 0 && random.chance({ of: 1, outOf: 2 }) ? mayPersist[random.below(mayPersist.length)] : undefined;
    // All, none or a random subset: the extremes are as legal as the rest and found more often in practice.
    const bias = random.below(4);
    for (const [block, old] of this.durable) {
      const persists = (this.dirty.has(block) || inFlight.has(block)) && (bias === 0 || (bias !== 1 && random.chance({ of: 1, outOf: 2 })));
      if (block === torn) {
        const fresh = this.blocks[block] ?? ZERO_BLOCK;
        const mixed = copyBlock(old) ?? new Uint8Array(BLOCK_BYTES);
        mixed.set(fresh.subarray(0, random.below(BLOCK_BYTES + 1)));
        this.blocks[block] = mixed;
      } else if (!persists) {
        while (this.blocks.length < block) this.blocks.push(undefined);
        this.blocks[block] = copyBlock(old);
      }
    }
    if (this.sizeBytes !== this.durableSizeBytes && random.chance({ of: 1, outOf: 2 })) this.sizeBytes = this.durableSizeBytes;
    const keep = Math.ceil(this.sizeBytes / BLOCK_BYTES);
    if (this.blocks.length > keep) this.blocks.length = keep;
    const within = this.sizeBytes % BLOCK_BYTES;
    if (within !== 0) this.blocks[keep - 1]?.fill(0, within);
    this.settle();
  }

  settle(): void {
    this.durable.clear();
    this.dirty.clear();
    this.syncs = [];
    this.durableSizeBytes = this.sizeBytes;
  }
}

type Node = Directory | FileNode;

function copyBlock(block: Uint8Array | undefined): Uint8Array | undefined {
  return block === undefined ? undefined : block.slice();
}

function isZero(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.byteLength; i++) if (bytes[i] !== 0) return false;
  return true;
}

export class ModelDisk implements Disk {
  readonly faults: DiskFaults = {};
  /** Events so far. */
  events = 0;
  #root = new Directory();
  #random: Random;
  #onEvent: ((event: DiskEvent) => void) | undefined;
  #delay: ((event: DiskEvent) => Promise<void> | undefined) | undefined;
  #onDeath: (() => void) | undefined;
  /** Handles of an earlier one are dead. */
  #generation = 0;
  #dead = false;
  #dieAt = Number.POSITIVE_INFINITY;
  #changes = 0;

  constructor(options: ModelDiskOptions = {}) {
    this.#random = options.random ?? seededRandom(1);
    this.#onEvent = options.onEvent;
    this.#delay = options.delay;
    this.#onDeath = options.onDeath;
  }

  /** The process dies at the event with this sequence number (a write has stored a part by then); everything fails until `crash`. */
  dieAt(sequence: number): void {
    this.#dieAt = sequence;
  }

  get isDead(): boolean {
    return this.#dead;
  }

  /** What is left after the process (or the machine) went down. Open handles are dead from then on; the disk is usable again. */
  crash(kind: "kill" | "power-loss", random: Random = this.#random): void {
    this.#generation += 1;
    this.#dead = false;
    this.#dieAt = Number.POSITIVE_INFINITY;
    if (kind === "kill") {
      forEachFile(this.#root, false, (file) => {
        file.syncs = [];
      });
      return;
    }
    const pending = new Set<DirectoryChange>();
    forEachDirectory(this.#root, (directory) => {
      for (const change of directory.pending) if (!change.durable) pending.add(change);
    });
    const ordered = [...pending].sort((a, b) => a.sequence - b.sequence);
    const subset = random.chance({ of: 1, outOf: 2 });
    const prefix = random.below(ordered.length + 1);
    ordered.forEach((change, i) => {
      if (subset ? random.chance({ of: 1, outOf: 2 }) : i < prefix) makeDurable(change);
    });
    forEachDirectory(this.#root, (directory) => {
      directory.pending = [];
      directory.entries = new Map(directory.durable);
    });
    forEachFile(this.#root, true, (file) => file.powerLoss(random));
  }

  /** A copy of the disk as it is, synced and not, without faults, hooks and open handles. */
  clone(random?: Random): ModelDisk {
    const copy = new ModelDisk(random === undefined ? {} : { random });
    const known = new Map<Node, Node>();
    const changes = new Map<DirectoryChange, DirectoryChange>();
    const copyNode = (node: Node): Node => {
      const done = known.get(node);
      if (done !== undefined) return done;
      if (node instanceof FileNode) {
        const file = new FileNode();
        known.set(node, file);
        file.path = node.path;
        file.blocks = node.blocks.map(copyBlock);
        file.sizeBytes = node.sizeBytes;
        file.durable = new Map([...node.durable].map(([block, bytes]) => [block, copyBlock(bytes)]));
        file.durableSizeBytes = node.durableSizeBytes;
        file.dirty = new Set(node.dirty);
        for (const sync of node.syncs) for (const block of sync.blocks) file.dirty.add(block);
        return file;
      }
      const directory = new Directory();
      known.set(node, directory);
      for (const [name, child] of node.entries) directory.entries.set(name, copyNode(child));
      for (const [name, child] of node.durable) directory.durable.set(name, copyNode(child));
      directory.pending = node.pending.map((change) => {
        const seen = changes.get(change);
        if (seen !== undefined) return seen;
        const made: DirectoryChange = {
          sequence: change.sequence,
          durable: change.durable,
          entries: change.entries.map((entry) => ({
            directory: copyNode(entry.directory) as Directory,
            name: entry.name,
            node: entry.node === undefined ? undefined : copyNode(entry.node),
          })),
        };
        changes.set(change, made);
        return made;
      });
      return directory;
    };
    copy.#root = copyNode(this.#root) as Directory;
    copy.#changes = this.#changes;
    return copy;
  }

  /** Paths of all files below a directory, in order, without an event. */
  filesBelow(path: string): string[] {
    const files: string[] = [];
    const walk = (node: Node | undefined, at: string): void => {
      if (node instanceof FileNode) files.push(at);
      else if (node !== undefined) for (const name of [...node.entries.keys()].sort()) walk(node.entries.get(name), `${at}/${name}`);
    };
    walk(this.#lookup(path), path);
    return files;
  }

  /** Whole contents, without an event. */
  peek(path: string): Uint8Array {
    const file = this.#file(path);
    return file.read(0, file.sizeBytes);
  }

  /** Changes bytes on the medium itself: durable, without an event. Creates nothing. */
  poke(path: string, position: number, bytes: Uint8Array): void {
    const file = this.#file(path);
    const durable = file.durable;
    const dirty = file.dirty;
    const size = file.durableSizeBytes;
    file.durable = new Map();
    file.dirty = new Set();
    file.write(position, bytes);
    file.durable = durable;
    file.dirty = dirty;
    file.durableSizeBytes = Math.max(size, Math.min(file.sizeBytes, position + bytes.byteLength));
  }

  flipBit(path: string, position: number, bit: number): void {
    const old = this.#file(path).read(position, 1)[0] ?? 0;
    this.poke(path, position, Uint8Array.of(old ^ (1 << bit)));
  }

  /** Sets the size on the medium itself. */
  resize(path: string, sizeBytes: number): void {
    const file = this.#file(path);
    file.truncate(sizeBytes);
    file.settle();
  }

  async makeDirectory(path: string): Promise<void> {
    this.#event("make-directory", path, 0);
    let directory = this.#root;
    for (const name of partsOf(path)) {
      let next = directory.entries.get(name);
      if (next === undefined) {
        next = new Directory();
        this.#change([{ directory, name, node: next }]);
      }
      if (next instanceof FileNode) throw new DiskError("ENOTDIR", path);
      directory = next;
    }
  }

  async list(path: string): Promise<string[] | undefined> {
    this.#event("read", path, 0);
    const node = this.#lookup(path);
    if (node instanceof FileNode) throw new DiskError("ENOTDIR", path);
    return node === undefined ? undefined : [...node.entries.keys()].sort();
  }

  async open(path: string, options: { create?: boolean } = {}): Promise<DiskFile> {
    let node = this.#lookup(path);
    if (node === undefined && options.create === true) {
      const { directory, name } = this.#parent(path);
      this.#event("create", path, 0);
      node = new FileNode();
      node.path = path;
      this.#change([{ directory, name, node }]);
    } else {
      this.#event("read", path, 0);
    }
    if (node === undefined) throw new DiskError("ENOENT", path);
    if (node instanceof Directory) throw new DiskError("EISDIR", path);
    return this.#handle(node);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#event("rename", from, 0);
    const node = this.#lookup(from);
    if (node === undefined) throw new DiskError("ENOENT", from);
    const source = this.#parent(from);
    const target = this.#parent(to);
    const existing = target.directory.entries.get(target.name);
    if (existing instanceof Directory && existing.entries.size > 0) throw new DiskError("ENOTEMPTY", to);
    this.#change([
      { directory: source.directory, name: source.name, node: undefined },
      { directory: target.directory, name: target.name, node },
    ]);
    if (node instanceof FileNode) node.path = to;
  }

  async remove(path: string): Promise<void> {
    this.#event("remove", path, 0);
    const node = this.#lookup(path);
    if (node === undefined) return;
    if (node instanceof Directory) throw new DiskError("EISDIR", path);
    const { directory, name } = this.#parent(path);
    this.#change([{ directory, name, node: undefined }]);
  }

  async removeTree(path: string): Promise<void> {
    const node = this.#lookup(path);
    if (node instanceof Directory) {
      for (const name of [...node.entries.keys()].sort()) await this.removeTree(`${path}/${name}`);
    }
    this.#event("remove", path, 0);
    if (node === undefined) return;
    const { directory, name } = this.#parent(path);
    this.#change([{ directory, name, node: undefined }]);
  }

  async syncDirectory(path: string): Promise<void> {
    const event = this.#event("sync-directory", path, 0);
    const node = this.#lookup(path);
    if (!(node instanceof Directory)) throw new DiskError("ENOENT", path);
    const generation = this.#generation;
    const covered = node.pending;
    const wait = this.#delay?.(event);
    if (wait !== undefined) await wait;
    this.#assertAlive(generation);
    if (this.#failsSync(path)) throw new DiskError("EIO", path);
    if (this.#isFaulty(path) && this.faults.syncLies === true) return;
    for (const change of covered) makeDurable(change);
    node.pending = node.pending.filter((change) => !change.durable);
  }

  async exists(path: string): Promise<boolean> {
    this.#event("read", path, 0);
    return this.#lookup(path) !== undefined;
  }

  #handle(file: FileNode): DiskFile {
    const generation = this.#generation;
    let open = true;
    const check = (kind: DiskEventKind, bytes: number): DiskEvent => {
      this.#assertAlive(generation);
      if (!open) throw new DiskError("EBADF", file.path);
      return this.#event(kind, file.path, bytes);
    };
    const write = (position: number, bytes: Uint8Array): void => {
      this.#assertAlive(generation);
      if (!open) throw new DiskError("EBADF", file.path);
      // A write that the process dies in has stored a part.
      this.#event("write", file.path, bytes.byteLength, () =>
        file.write(position, bytes.subarray(0, this.#random.below(bytes.byteLength + 1))),
      );
      const { faults } = this;
      if (this.#isFaulty(file.path)) {
        if (faults.freeBytes !== undefined) {
          if (bytes.byteLength > faults.freeBytes) {
            file.write(position, bytes.subarray(0, faults.freeBytes));
            faults.freeBytes = 0;
            throw new DiskError("ENOSPC", file.path);
          }
          faults.freeBytes -= bytes.byteLength;
        }
        if (faults.shortWrites !== undefined && bytes.byteLength > 0 && this.#random.chance(faults.shortWrites)) {
          file.write(position, bytes.subarray(0, this.#random.below(bytes.byteLength)));
          return;
        }
      }
      file.write(position, bytes);
    };
    const sync = (event: DiskEvent, begun: SyncUnderWay): void => {
      file.syncs = file.syncs.filter((other) => other !== begun);
      if (this.#failsSync(event.path)) {
        // The kernel marks the pages clean although they never reached the disk (failure catalogue BW19): `durable` keeps the old ones.
        throw new DiskError("EIO", event.path);
      }
      if (this.#isFaulty(event.path) && this.faults.syncLies === true) {
        for (const block of begun.blocks) if (file.durable.has(block)) file.dirty.add(block);
        return;
      }
      for (const block of begun.blocks) {
        if (begun.saved.has(block)) file.durable.set(block, begun.saved.get(block));
        else file.durable.delete(block);
      }
      file.durableSizeBytes = begun.sizeBytes;
    };
    const begin = (): SyncUnderWay => {
      const begun: SyncUnderWay = { blocks: file.dirty, sizeBytes: file.sizeBytes, saved: new Map() };
      file.dirty = new Set();
      file.syncs.push(begun);
      return begun;
    };
    return {
      read: async (position, length) => {
        check("read", length);
        return file.read(position, length);
      },
      write: async (position, bytes) => write(position, bytes),
      writeNow: write,
      sync: async () => {
        const event = check("sync", 0);
        const begun = begin();
        const wait = this.#delay?.(event);
        if (wait !== undefined) await wait;
        this.#assertAlive(generation);
        sync(event, begun);
      },
      syncNow: () => sync(check("sync", 0), begin()),
      sizeBytes: async () => {
        this.#assertAlive(generation);
        return file.sizeBytes;
      },
      truncate: async (sizeBytes) => {
        check("truncate", 0);
        file.truncate(sizeBytes);
      },
      close: async () => {
        this.#assertAlive(generation);
        open = false;
      },
    };
  }

  #event(kind: DiskEventKind, path: string, bytes: number, dying?: () => void): DiskEvent {
    if (this.#dead) throw new DiskDeadError();
    this.events += 1;
    if (this.events >= this.#dieAt) {
      this.#dead = true;
      dying?.();
      this.#onDeath?.();
      throw new DiskDeadError();
    }
    const event: DiskEvent = { sequence: this.events, kind, path, bytes };
    this.#onEvent?.(event);
    return event;
  }

  #assertAlive(generation: number): void {
    if (this.#dead || generation !== this.#generation) throw new DiskDeadError();
  }

  #isFaulty(path: string): boolean {
    return this.faults.only === undefined || this.faults.only(path);
  }

  #failsSync(path: string): boolean {
    const { syncError } = this.faults;
    if (syncError === undefined || !this.#isFaulty(path)) return false;
    if (syncError === "once") this.faults.syncError = undefined;
    return true;
  }

  #change(entries: DirectoryChange["entries"]): void {
    const change: DirectoryChange = { entries, sequence: this.#changes++, durable: false };
    for (const { directory, name, node } of entries) {
      if (node === undefined) directory.entries.delete(name);
      else directory.entries.set(name, node);
      if (directory.pending[directory.pending.length - 1] !== change) directory.pending.push(change);
    }
  }

  #lookup(path: string): Node | undefined {
    let node: Node | undefined = this.#root;
    for (const name of partsOf(path)) {
      if (!(node instanceof Directory)) return undefined;
      node = node.entries.get(name);
    }
    return node;
  }

  #file(path: string): FileNode {
    const node = this.#lookup(path);
    if (!(node instanceof FileNode)) throw new DiskError("ENOENT", path);
    return node;
  }

  #parent(path: string): { directory: Directory; name: string } {
    const parts = partsOf(path);
    const name = parts.pop();
    const directory = this.#lookup(parts.join("/"));
    if (name === undefined || !(directory instanceof Directory)) throw new DiskError("ENOENT", path);
    return { directory, name };
  }
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

function makeDurable(change: DirectoryChange): void {
  if (change.durable) return;
  change.durable = true;
  for (const { directory, name, node } of change.entries) {
    if (node === undefined) directory.durable.delete(name);
    else directory.durable.set(name, node);
  }
}

function forEachDirectory(root: Directory, visit: (directory: Directory) => void): void {
  const seen = new Set<Node>();
  const walk = (directory: Directory): void => {
    if (seen.has(directory)) return;
    seen.add(directory);
    const children = [...directory.entries.values(), ...directory.durable.values()];
    visit(directory);
    for (const child of children) if (child instanceof Directory) walk(child);
  };
  walk(root);
}

function forEachFile(root: Directory, onlyCurrent: boolean, visit: (file: FileNode) => void): void {
  const seen = new Set<FileNode>();
  forEachDirectory(root, (directory) => {
    const children = onlyCurrent ? [...directory.entries.values()] : [...directory.entries.values(), ...directory.durable.values()];
    for (const child of children) {
      if (child instanceof FileNode && !seen.has(child)) {
        seen.add(child);
        visit(child);
      }
    }
  });
}
