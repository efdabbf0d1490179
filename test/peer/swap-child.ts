/**
 * A process that installs a snapshot into `<directory>` and dies by SIGKILL before disk operation number `<step>` of it (0: never).
 * Prints nothing; exit code 0 when it came to the end.
 */
import { LevelBackend } from "../../src/backend/index.ts";
import type { Disk, DiskFile } from "../../src/base/disk.ts";
import { systemDisk } from "../../src/base/disk-system.ts";
import type { ClusterId } from "../../src/base/ids.ts";
import type { SnapshotMetadata } from "../../src/raft/index.ts";
import { decideSwap, diskSpool, finishSwap, prepareIncoming, SnapshotReceiver } from "../../src/server/snapshot/index.ts";
import { snapshotOf, swapHeader } from "./swap-fixture.ts";

const [, , directory, stepText] = process.argv;
if (directory === undefined || stepText === undefined) throw new Error("usage: swap-child <directory> <step>");
let left = Number(stepText);

function step(): void {
  left--;
  if (left === 0) process.kill(process.pid, "SIGKILL");
}

/** The same operation, counted. */
function counted<Args extends unknown[], Result>(operation: (...args: Args) => Result): (...args: Args) => Result {
  return (...args) => {
    step();
    return operation(...args);
  };
}

function deadly(disk: Disk): Disk {
  const wrapFile = (file: DiskFile): DiskFile => ({
    read: (position, length) => file.read(position, length),
    write: counted((position, bytes) => file.write(position, bytes)),
    writeNow: (position, bytes) => file.writeNow(position, bytes),
    sync: counted(() => file.sync()),
    syncNow: () => file.syncNow(),
    sizeBytes: () => file.sizeBytes(),
    truncate: counted((size) => file.truncate(size)),
    close: () => file.close(),
  });
  return {
    makeDirectory: counted((path) => disk.makeDirectory(path)),
    list: (path) => disk.list(path),
    open: counted(async (path, options) => wrapFile(await disk.open(path, options))),
    rename: counted((from, to) => disk.rename(from, to)),
    remove: counted((path) => disk.remove(path)),
    removeTree: counted((path) => disk.removeTree(path)),
    syncDirectory: counted((path) => disk.syncDirectory(path)),
    exists: (path) => disk.exists(path),
  };
}

const disk = deadly(systemDisk());
const live = await LevelBackend.open({ directory: `${directory}/db` });
const source = await snapshotOf("new");
const receiver = new SnapshotReceiver({ storage: diskSpool(disk, directory), clusterId: 1n as ClusterId, defer: setImmediate });
const metadata: SnapshotMetadata = {
  index: swapHeader.index,
  term: swapHeader.term,
  confState: swapHeader.confState,
};
const received = await receiver.receive(source.info, source.read(0), metadata);
const incoming = await LevelBackend.open({ directory: await prepareIncoming(disk, directory, swapHeader.index) });
step();
await received.installInto(incoming);
step();
await incoming.checkpoint();
await incoming.close();
await decideSwap(disk, directory, swapHeader.index);
const record = await disk.open(`${directory}/wal-record`, { create: true });
await record.sync();
await record.close();
await live.close();
await finishSwap(disk, directory);
const opened = await LevelBackend.open({ directory: `${directory}/db` });
await opened.close();
await received.discard();
