/**
 * Who this member is, and whom it knew last, in a small file beside log and store: so that it can still say so, and knows whom to ask, when both of them are
 * damaged. `member/identity`, replaced as a whole whenever the members change; its contents are a copy, never the truth about anybody's membership.
 */
import { utf8Bytes, utf8Text } from "../base/bytes.ts";
import type { Disk } from "../base/disk.ts";
import { type ClusterId, hexId, type MemberId } from "../base/ids.ts";
import type { Logger } from "../base/logger.ts";
import { readSnapshotFile, WalCorruptError, writeSnapshotFile } from "../wal/index.ts";
import type { MemberRecord } from "./membership.ts";

export interface Identity {
  readonly memberId: MemberId;
  readonly clusterId: ClusterId;
  /** All members, this one included, as far as known. */
  readonly members: readonly MemberRecord[];
}

export const IDENTITY_FILE = "identity";

export interface IdentityJson {
  readonly memberId: string;
  readonly clusterId: string;
  readonly members: readonly {
    readonly id: string;
    readonly name: string;
    readonly peerUrls: readonly string[];
    readonly isLearner: boolean;
  }[];
}

export function identityToJson({ memberId, clusterId, members }: Identity): IdentityJson {
  return {
    memberId: hexId(memberId),
    clusterId: hexId(clusterId),
    members: members.map(({ id, name, peerUrls, isLearner }) => ({ id: hexId(id), name, peerUrls, isLearner })),
  };
}

export function identityFromJson({ memberId, clusterId, members }: IdentityJson): Identity {
  return {
    memberId: idFromHex(memberId),
    clusterId: idFromHex(clusterId) as bigint as ClusterId,
    members: members.map(({ id, name, peerUrls, isLearner }) => ({ id: idFromHex(id), name, peerUrls, clientUrls: [], isLearner })),
  };
}

function idFromHex(text: string): MemberId {
  return BigInt(`0x${text}`) as MemberId;
}

/** Undefined when there is none, or when it is damaged too: then nothing can be learnt from it, and the next start with a good log writes it anew. */
export async function readIdentity(disk: Disk, directory: string, logger: Logger): Promise<Identity | undefined> {
  try {
    const bytes = await readSnapshotFile(disk, directory, IDENTITY_FILE);
    return bytes === undefined ? undefined : identityFromJson(JSON.parse(utf8Text(bytes)) as IdentityJson);
  } catch (error) {
    if (!(error instanceof WalCorruptError || error instanceof SyntaxError)) throw error;
    logger.warn({ directory, name: IDENTITY_FILE, error: error.message }, "the file with this member's identity is damaged");
    return undefined;
  }
}

/** Keeps the file up to date. Writes one at a time; of several changes while one is written only the last one counts. */
export class IdentityFile {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #logger: Logger;
  #identity: Identity;
  /** What is in the file. */
  #written: string | undefined;
  #writing: Promise<void> | undefined;

  /** `identity` is what the members are now, `written` what the file says; undefined when it has to be written. */
  constructor(disk: Disk, directory: string, logger: Logger, identity: Identity, written: Identity | undefined) {
    this.#disk = disk;
    this.#directory = directory;
    this.#logger = logger;
    this.#identity = identity;
    this.#written = written === undefined ? undefined : JSON.stringify(identityToJson(written));
  }

  /** The members have changed. Failure costs nothing today: it is logged, and the next change (or start) tries again. */
  update(members: readonly MemberRecord[]): void {
    this.#identity = { ...this.#identity, members };
    this.#writing ??= this.#write();
  }

  /** Resolves when nothing is being written. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      for (;;) {
        const text = JSON.stringify(identityToJson(this.#identity));
        if (text === this.#written) return;
        await writeSnapshotFile(this.#disk, this.#directory, IDENTITY_FILE, utf8Bytes(text));
        this.#written = text;
      }
    } catch (error) {
      this.#logger.warn({ error: String(error), name: IDENTITY_FILE }, "failed to write this member's identity");
    } finally {
      this.#writing = undefined;
    }
  }
}
