/** snapshot status and restore. */
import { hexId } from "../../base/ids.ts";
import { restoreSnapshot, snapshotStatus } from "../../embed/offline.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { siBytes } from "../cobra/go-format.ts";
import { type Call, formatOf, logTo, orFail, patienceOf, Status, show } from "./context.ts";

function fileArgument({ args }: Call, command: string): string {
  const [path] = args;
  if (path === undefined || args.length > 1) throw new ExitError(Status.badArguments, `snapshot ${command} requires exactly one argument`);
  return path;
}

const status: Command<ToolFace> = {
  use: "status <filename>",
  short: "Gets backend snapshot status of a given file",
  long: "Reads and checks a whole snapshot file and tells what is in it. Instead of a file, the store of a member that does not run may be named: <data-dir>/member/snap/db.",
  run: async (call) => {
    formatOf(call);
    const path = fileArgument(call, "status");
    const { hash, revision, totalKey, totalSizeBytes, version } = await orFail("stat", () => snapshotStatus(path, patienceOf(call)));
    const hex = hash.toString(16);
    const size = siBytes(totalSizeBytes);
    show(call, {
      simple: [hex, revision, totalKey, size, version].join(", "),
      json: { hash, revision, totalKey, totalSize: totalSizeBytes, version },
      fields: [
        ["Hash", String(hash)],
        ["Revision", String(revision)],
        ["Keys", String(totalKey)],
        ["Size", String(totalSizeBytes)],
        ["Version", version],
      ],
      table: {
        headings: ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"],
        rows: [[hex, String(revision), String(totalKey), size, version]],
      },
    });
  },
};

const DEFAULT_NAME = "default";
const DEFAULT_PEER_URL = "http://localhost:2380";

const restore: Command<ToolFace> = {
  use: "restore <filename> --data-dir {output dir} [options]",
  short: "Restores an etcd member snapshot to an etcd directory",
  flags: [
    { name: "data-dir", kind: "string", help: "The data directory to make" },
    { name: "wal-dir", kind: "string", help: "Where the log goes (in the data directory if not given)" },
    { name: "name", kind: "string", default: DEFAULT_NAME, help: "Name of this member" },
    {
      name: "initial-cluster",
      kind: "string",
      default: `${DEFAULT_NAME}=${DEFAULT_PEER_URL}`,
      help: "All members of the new cluster, as name=peer-url,...",
    },
    { name: "initial-cluster-token", kind: "string", default: "etcd-cluster", help: "Tells clusters with the same members apart" },
    {
      name: "initial-advertise-peer-urls",
      kind: "string",
      default: DEFAULT_PEER_URL,
      help: "Peer URLs of this member",
    },
    { name: "skip-hash-check", kind: "bool", help: "Do not check the file's hash (required for a store out of a data directory)" },
    { name: "bump-revision", kind: "uint", help: "How much to add to the newest revision" },
    {
      name: "mark-compacted",
      kind: "bool",
      help: "Mark the newest revision, after it was bumped, as compacted (required with --bump-revision, refused without)",
    },
    {
      name: "initial-memory-map-size",
      kind: "uint",
      default: 10_737_418_240,
      help: "Accepted for etcd's sake; this store has no memory map",
    },
  ],
  run: async (call) => {
    const { flags } = call;
    const path = fileArgument(call, "restore");
    const bumpRevision = Number(flags.integer("bump-revision"));
    const markCompacted = flags.bool("mark-compacted");
    if (bumpRevision > 0 !== markCompacted) throw new ExitError(Status.badArguments, "--mark-compacted required if --revision-bump > 0");
    const name = flags.string("name");
    const dataDir = flags.string("data-dir") || `${name}.etcd`;
    const walDir = flags.string("wal-dir") || `${dataDir}/member/wal`;
    const logger = logTo(call);
    const facts = { path, "wal-dir": walDir, "data-dir": dataDir, "snap-dir": `${dataDir}/member/snap` };
    logger.info(facts, "restoring snapshot");
    const restored = await orFail("open", () =>
      restoreSnapshot(
        path,
        {
          name,
          dataDir,
          walDir,
          initialCluster: flags.string("initial-cluster"),
          initialClusterToken: flags.string("initial-cluster-token"),
          initialAdvertisePeerUrls: flags.string("initial-advertise-peer-urls").split(","),
          skipHashCheck: flags.bool("skip-hash-check"),
          bumpRevision,
          markCompacted,
          logger,
        },
        patienceOf(call),
      ),
    );
    for (const member of restored.members) {
      const facts = { "cluster-id": hexId(restored.clusterId), "added-peer-id": hexId(member.id), "added-peer-peer-urls": member.peerUrls };
      logger.info(facts, "added member");
    }
    logger.info({ ...facts, revision: restored.revision, keys: restored.keyCount }, "restored snapshot");
  },
};

export const snapshot: Command<ToolFace> = {
  use: "snapshot",
  short: "Manages etcd node snapshots",
  commands: [restore, status],
};
