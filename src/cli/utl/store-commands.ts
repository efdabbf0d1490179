/** hashkv, defrag, migrate. */
import { stat } from "node:fs/promises";
import { defragmentOffline, offlineHashKv, storeOf } from "../../embed/offline.ts";
import { SERVER_VERSION, STORAGE_VERSION } from "../../server/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { siBytes } from "../cobra/go-format.ts";
import { exactly, formatOf, logTo, orFail, patienceOf, Status, show } from "./context.ts";

export const hashKv: Command<ToolFace> = {
  use: "hashkv <filename>",
  short: "Prints the KV history hash of a given file",
  long: "Prints the KV history hash of a snapshot file, or of the store of a member that does not run: <data-dir>/member/snap/db. Nothing is changed.",
  flags: [{ name: "rev", kind: "int", help: "maximum revision to hash (default: latest revision)" }],
  checkArgs: exactly(1),
  run: async (call) => {
    formatOf(call);
    const [path = ""] = call.args;
    const revision = Number(call.flags.integer("rev"));
    const { hash, hashRevision, compactRevision } = await orFail("stat", () => offlineHashKv(path, revision, patienceOf(call)));
    const row = [hash, hashRevision, compactRevision].map(String);
    show(call, {
      simple: row.join(", "),
      json: { hash, hashRevision, compactRevision },
      fields: [
        ["Hash", String(hash)],
        ["Hash revision", String(hashRevision)],
        ["Compact revision", String(compactRevision)],
      ],
      table: { headings: ["HASH", "HASH REVISION", "COMPACT REVISION"], rows: [row] },
    });
  },
};

export const defrag: Command<ToolFace> = {
  use: "defrag",
  short: "Defragments the storage of the etcd",
  flags: [{ name: "data-dir", kind: "string", help: "Required. The data directory of a member that does not run." }],
  required: ["data-dir"],
  run: async (call) => {
    const dataDir = call.flags.string("data-dir");
    const logger = logTo(call);
    const started = performance.now();
    logger.info({ path: storeOf(dataDir) }, "defragmenting");
    const { beforeBytes, afterBytes } = await orFail(
      "stat",
      () => defragmentOffline(dataDir, patienceOf(call)),
      (text) => `Failed to defragment etcd data[${dataDir}] (${text})`,
    );
    logger.info(
      {
        path: storeOf(dataDir),
        "current-db-size-bytes-diff": afterBytes - beforeBytes,
        "current-db-size-bytes": afterBytes,
        "current-db-size": siBytes(afterBytes),
        took: `${(performance.now() - started).toFixed(3)}ms`,
      },
      "finished defragmenting directory",
    );
  },
};

/** Storage versions that etcd's tool knows; of them holdfast's store has only the present one. */
const KNOWN_MINOR_MIN = 5;

export const migrate: Command<ToolFace> = {
  use: "migrate",
  short: "Migrates schema of etcd data dir files to make them compatible with different etcd version",
  long: "The store of holdfast has one schema, that of this version. To move to another version, save a snapshot and restore it there.",
  flags: [
    { name: "data-dir", kind: "string", help: "The data directory of a member that does not run" },
    { name: "target-version", kind: "string", help: 'Version to migrate to, as "X.Y". Minimal value 3.5.' },
    { name: "force", kind: "bool", help: "Accepted for etcd's sake; there is nothing to override" },
  ],
  required: ["data-dir", "target-version"],
  run: async (call) => {
    const { flags } = call;
    const target = flags.string("target-version");
    const parts = /^(\d{1,5})\.(\d{1,5})$/.exec(target);
    if (parts === null)
      throw new ExitError(Status.badArguments, `wrong target version format, expected "X.Y", got ${JSON.stringify(target)}`);
    await orFail("stat", () => stat(storeOf(flags.string("data-dir"))));
    const [major, minor] = SERVER_VERSION.split(".").map(Number) as [number, number];
    if (Number(parts[1]) !== major || Number(parts[2]) > minor || Number(parts[2]) < KNOWN_MINOR_MIN) {
      throw new ExitError(Status.error, `cannot create migration plan: version "${target}.0" is not supported`);
    }
    if (`${target}.0` !== STORAGE_VERSION) {
      throw new ExitError(
        Status.error,
        `cannot create migration plan: holdfast's store has no version "${target}.0"; restore a snapshot there`,
      );
    }
    logTo(call).info({ "storage-version": target }, "storage version up-to-date");
  },
};
