/**
 * The note that this member has lost part of what it had promised to keep, and is being healed by the others: `member/healing`. As long as it is there the
 * member starts in quarantine (docs/adr/0004-healing.md). It is written before anything is moved and removed when the member is healed.
 */
import { utf8Bytes, utf8Text } from "../base/bytes.ts";
import type { Disk } from "../base/disk.ts";
import { readSnapshotFile, WalCorruptError, writeSnapshotFile } from "../wal/index.ts";
import { type Identity, type IdentityJson, identityFromJson, identityToJson } from "./identity-file.ts";

export interface HealMarker {
  readonly identity: Identity;
  /** What was found, for people. */
  readonly reason: string;
  /** Number of the directory to which the damaged data goes: `member/damaged-<number>`. */
  readonly attempt: number;
  /**
   * - `set-aside`: the damaged log and store may still be in their places, or only one of them.
   * - `healing`: what is in their places was begun anew, in quarantine.
   */
  readonly phase: "set-aside" | "healing";
}

const HEALING_FILE = "healing";

interface MarkerJson extends IdentityJson {
  readonly reason: string;
  readonly attempt: number;
  readonly phase: HealMarker["phase"];
}

/** Durable when it resolves. */
export async function writeHealMarker(disk: Disk, directory: string, marker: HealMarker): Promise<void> {
  const { identity, ...rest } = marker;
  const json: MarkerJson = { ...identityToJson(identity), ...rest };
  await writeSnapshotFile(disk, directory, HEALING_FILE, utf8Bytes(JSON.stringify(json)));
}

/** Undefined when there is none; "unreadable" when there is one that says nothing any more: it counts all the same. */
export async function readHealMarker(disk: Disk, directory: string): Promise<HealMarker | "unreadable" | undefined> {
  try {
    const bytes = await readSnapshotFile(disk, directory, HEALING_FILE);
    if (bytes === undefined) return undefined;
    const { reason, attempt, phase, ...identity } = JSON.parse(utf8Text(bytes)) as MarkerJson;
    return { identity: identityFromJson(identity), reason, attempt, phase };
  } catch (error) {
    if (!(error instanceof WalCorruptError || error instanceof SyntaxError)) throw error;
    return "unreadable";
  }
}

/** The member is healed. Durable when it resolves. */
export async function removeHealMarker(disk: Disk, directory: string): Promise<void> {
  await disk.remove(`${directory}/${HEALING_FILE}`);
  await disk.syncDirectory(directory);
}
