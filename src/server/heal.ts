/**
 * What becomes of damaged data at the start of a member of a larger cluster: it is set aside, never deleted, and the member begins anew with the same ids, an empty
 * log and an empty store, in quarantine. Which of these steps a crash interrupted is told by the marker (heal-marker.ts). The whole story and why it is safe:
 * docs/adr/0004-healing.md.
 */
import type { Disk } from "../base/disk.ts";
import { hexId, type MemberId } from "../base/ids.ts";
import type { WalMetadata } from "../wal/index.ts";
import { DataDamagedError } from "./bootstrap-error.ts";
import type { Identity } from "./identity-file.ts";
import type { MemberRecord } from "./membership.ts";

/** Where things are. */
export interface DataPlaces {
  /** `<data directory>/member`. */
  readonly member: string;
  /** `<data directory>/member/snap`: store, received snapshots, and what decides between them. */
  readonly snap: string;
  /** May lie elsewhere. */
  readonly wal: string;
}

/**
 * Whose data it is. The log's own word counts; the file beside it stands in when no head of a segment can be read, and knows the other members.
 * @throws DataDamagedError when nothing tells, or the two contradict each other.
 */
export function identityOfDamaged(
  owner: WalMetadata | undefined,
  known: Identity | undefined,
  configured: readonly MemberRecord[],
  damage: Error,
): Identity {
  const ids = owner ?? known;
  if (ids === undefined) {
    throw new DataDamagedError(`${damage.message}; neither the log nor the file "identity" tells whose data it was. ${REPLACE}`, {
      cause: damage,
    });
  }
  if (owner !== undefined && known !== undefined && (owner.memberId !== known.memberId || owner.clusterId !== known.clusterId)) {
    throw new DataDamagedError(
      `${damage.message}; the log is of member ${hexId(owner.memberId)} in cluster ${hexId(owner.clusterId)}, the file "identity" of member ` +
        `${hexId(known.memberId)} in cluster ${hexId(known.clusterId)}: the data directory was put together from two`,
      { cause: damage },
    );
  }
  const members = known?.members ?? configured;
  return { memberId: ids.memberId, clusterId: ids.clusterId, members };
}

const REPLACE = "Remove this member from the cluster and add it again with an empty data directory, or restore a backup";

/** Why the others cannot heal that member, with what to do instead; undefined when they can. */
export function whyNotHealable({ memberId, members }: Identity): string | undefined {
  const self = members.find((member) => member.id === memberId);
  const voters = members.filter((member) => !member.isLearner);
  if (self === undefined) return `It is not known who the other members are. ${REPLACE}`;
  const others = voters.filter((member) => member.id !== memberId).length;
  if (self.isLearner ? others > 0 : others > voters.length / 2) return undefined;
  if (voters.length === 1) {
    return (
      "This is the only voting member, so there is nobody to heal it from: restore a backup into an empty data directory (holdfastutl snapshot restore). " +
      "What was written since that backup is lost"
    );
  }
  // Everything that was ever committed is on the other one, but raft's rules do not let it go on alone.
  return (
    `With ${voters.length} voting members the others are no majority without this one, so they cannot heal it: start another one with --force-new-cluster, ` +
    "then add this one again with an empty data directory"
  );
}

/** The lowest number whose directories are not taken. */
export async function nextAttempt(disk: Disk, places: DataPlaces): Promise<number> {
  const names = new Set([...((await disk.list(places.member)) ?? []), ...((await disk.list(places.wal)) ?? [])]);
  let attempt = 1;
  while (names.has(directoryName(attempt))) attempt += 1;
  return attempt;
}

function directoryName(attempt: number): string {
  return `damaged-${attempt}`;
}

/**
 * Moves segments and store to `damaged-<attempt>` and leaves an empty `snap`. Durable when it resolves; after a crash it can be called again with the same number.
 * Returns where the things are now.
 */
export async function setAside(disk: Disk, places: DataPlaces, attempt: number): Promise<readonly string[]> {
  const target = `${places.member}/${directoryName(attempt)}`;
  await disk.makeDirectory(target);
  await disk.syncDirectory(places.member);
  // Renames do not cross file systems, and a log directory of its own may be one.
  const walTarget = places.wal.startsWith(`${places.member}/`) ? `${target}/wal` : `${places.wal}/${directoryName(attempt)}`;
  await moveSegments(disk, places.wal, walTarget);
  const snapTarget = `${target}/snap`;
  // What is in a place whose former contents have been moved was begun by us after that.
  if (await disk.exists(snapTarget)) await disk.removeTree(places.snap);
  else if (await disk.exists(places.snap)) await disk.rename(places.snap, snapTarget);
  await disk.syncDirectory(target);
  await disk.makeDirectory(places.snap);
  await disk.syncDirectory(places.member);
  return [walTarget, snapTarget];
}

async function moveSegments(disk: Disk, from: string, to: string): Promise<void> {
  const segments = ((await disk.list(from)) ?? []).filter((name) => name.endsWith(".wal"));
  if (segments.length === 0) return;
  await disk.makeDirectory(to);
  await disk.syncDirectory(to.slice(0, to.lastIndexOf("/")));
  const moved = new Set(await disk.list(to));
  for (const name of segments) {
    if (moved.has(name)) await disk.remove(`${from}/${name}`);
    else await disk.rename(`${from}/${name}`, `${to}/${name}`);
  }
  await disk.syncDirectory(to);
  await disk.syncDirectory(from);
}

/** Who can be asked: all but this member itself. */
export function othersOf({ memberId, members }: Identity): MemberRecord[] {
  return members.filter((member) => member.id !== (memberId as MemberId));
}
