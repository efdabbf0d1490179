/**
 * Replaces the store of a member by a received one so that a crash at any point leaves either the old store or the new one, and the next start
 * knows which (failure catalogue BS4, BS5). In `<data>/member/snap`:
 *
 *   db                    the store
 *   db.incoming-<index>   the new one while it is built; nothing but a left-over without the decision
 *   db.switch             the decision, durable: db.incoming-<index> is complete and durable and shall become db
 *   db.retired-<index>    the old one, until it is deleted
 *
 * The owner's steps:
 *   1. prepareIncoming, open a backend there, installInto, checkpoint, close it
 *   2. decideSwap                  from here on the new store can be taken over at any time
 *   3. make the WAL's snapshot record durable
 *   4. close the old store, finishSwap, open db
 * and at every start, before the store is opened: finishSwap. With `isWanted` telling whether the WAL has that record, the log and the store always
 * fit together. An owner that does 4 before 3 may start with a store that is ahead of its log, or whose log has another history below the store's
 * index: it must compare the terms and drop such a log.
 */
import { assert } from "../../base/assert.ts";
import { crc32, utf8Bytes, utf8Text } from "../../base/bytes.ts";
import type { Disk } from "../../base/disk.ts";
import type { LogIndex } from "../../base/ids.ts";
import { SnapshotSwapError } from "./errors.ts";

const STORE = "db";
const MARKER = "db.switch";
const MARKER_TMP = "db.switch.tmp";
const INCOMING = /^db\.incoming-([0-9a-f]{16})$/;
const RETIRED = /^db\.retired-[0-9a-f]{16}$/;

function hexIndex(index: LogIndex): string {
  return index.toString(16).padStart(16, "0");
}

function incomingName(index: LogIndex): string {
  return `db.incoming-${hexIndex(index)}`;
}

function retiredName(index: LogIndex): string {
  return `db.retired-${hexIndex(index)}`;
}

/** Path for the new store; removes earlier attempts. Must not be called while a decided swap is unfinished. */
export async function prepareIncoming(disk: Disk, directory: string, index: LogIndex): Promise<string> {
  const names = (await disk.list(directory)) ?? [];
  assert(!names.includes(MARKER), "a decided swap is finished before the next one begins");
  await removeLeftovers(disk, directory, names);
  return `${directory}/${incomingName(index)}`;
}

/** The closed store at `prepareIncoming`'s path is complete: makes it and the decision to use it durable. */
export async function decideSwap(disk: Disk, directory: string, index: LogIndex): Promise<void> {
  const incoming = `${directory}/${incomingName(index)}`;
  const names = await disk.list(incoming);
  assert(names !== undefined && names.length > 0, "the incoming store is there");
  // The store's own checkpoint vouches for its rows; this also covers the entries of its directory and files written since.
  for (const name of names) {
    const file = await disk.open(`${incoming}/${name}`);
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
  await disk.syncDirectory(incoming);
  await disk.syncDirectory(directory);
  const temporary = `${directory}/${MARKER_TMP}`;
  const file = await disk.open(temporary, { create: true });
  try {
    await file.truncate(0);
    await file.write(0, encodeMarker(index));
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(temporary, `${directory}/${MARKER}`);
  await disk.syncDirectory(directory);
}

export type SwapOutcome =
  /** Nothing was decided; left-overs are gone. */
  | { readonly type: "none" }
  /** `db` is the new store now. */
  | { readonly type: "finished"; readonly index: LogIndex }
  /** `db` is the old store still, the new one is gone. */
  | { readonly type: "discarded"; readonly index: LogIndex };

/**
 * Carries out a decided swap from wherever it was interrupted, or takes it back when `isWanted` says so (default: wanted). No store of the
 * directory may be open. Idempotent. Rejects with {@link SnapshotSwapError} when the directory makes no sense; then nothing was changed.
 */
export async function finishSwap(
  disk: Disk,
  directory: string,
  options: { isWanted?: (index: LogIndex) => boolean } = {},
): Promise<SwapOutcome> {
  const names = (await disk.list(directory)) ?? [];
  if (!names.includes(MARKER)) {
    await removeLeftovers(disk, directory, names);
    return { type: "none" };
  }
  const index = await readMarker(disk, `${directory}/${MARKER}`);
  const store = `${directory}/${STORE}`;
  const incoming = `${directory}/${incomingName(index)}`;
  const retired = `${directory}/${retiredName(index)}`;
  const hasStore = names.includes(STORE);
  const hasIncoming = names.includes(incomingName(index));
  const hasRetired = names.includes(retiredName(index));
  // Without the incoming store the swap had happened already.
  const wanted = !hasIncoming || options.isWanted === undefined || options.isWanted(index);
  if (wanted) {
    if (!hasStore && !hasIncoming) throw new SnapshotSwapError(`neither ${STORE} nor ${incomingName(index)} exists`);
    if (hasIncoming) {
      if (hasStore) {
        await disk.removeTree(retired);
        await disk.rename(store, retired);
        await disk.syncDirectory(directory);
      }
      await disk.rename(incoming, store);
      await disk.syncDirectory(directory);
    }
  } else if (!hasStore && hasRetired) {
    await disk.rename(retired, store);
    await disk.syncDirectory(directory);
  }
  await disk.remove(`${directory}/${MARKER}`);
  await disk.syncDirectory(directory);
  await removeLeftovers(disk, directory, (await disk.list(directory)) ?? []);
  return { type: wanted ? "finished" : "discarded", index };
}

/** Only what has exactly our names: the directory may hold things of others. */
async function removeLeftovers(disk: Disk, directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    if (name === MARKER_TMP) await disk.remove(`${directory}/${name}`);
    else if (INCOMING.test(name) || RETIRED.test(name)) await disk.removeTree(`${directory}/${name}`);
  }
}

/** One line of text and its checksum, so that an operator can read it. */
function encodeMarker(index: LogIndex): Uint8Array {
  const line = `holdfast switch to ${incomingName(index)}\n`;
  return utf8Bytes(`${line}${crc32(utf8Bytes(line)).toString(16).padStart(8, "0")}\n`);
}

async function readMarker(disk: Disk, path: string): Promise<LogIndex> {
  const file = await disk.open(path);
  let text: string;
  try {
    text = utf8Text(await file.read(0, 4096));
  } finally {
    await file.close();
  }
  const index = /^holdfast switch to db\.incoming-([0-9a-f]{16})\n[0-9a-f]{8}\n$/.exec(text)?.[1];
  if (index === undefined) throw new SnapshotSwapError(`${MARKER} is malformed`);
  const value = Number.parseInt(index, 16);
  // It was synced before it got its name, so no crash explains a difference.
  if (!Number.isSafeInteger(value) || utf8Text(encodeMarker(value)) !== text) throw new SnapshotSwapError(`${MARKER} is damaged`);
  return value;
}
