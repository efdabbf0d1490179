/** wal inspect: what a member's log holds. */
import { hexId } from "../../base/ids.ts";
import { inspectLog } from "../../embed/offline.ts";
import { describeEntry, type WalInspection } from "../../server/index.ts";
import type { Command } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { type Call, exactly, formatOf, logTo, orFail, show } from "./context.ts";

const HEADINGS = ["TERM", "INDEX", "TYPE", "BYTES", "WHAT"];

function entryRows({ entries }: WalInspection, { flags }: Call): string[][] {
  if (!flags.bool("entries")) return [];
  const from = Number(flags.integer("start-index"));
  const limit = Number(flags.integer("limit"));
  const wanted = entries.filter((entry) => entry.index >= from);
  return (limit > 0 ? wanted.slice(0, limit) : wanted).map((entry) => [
    String(entry.term),
    String(entry.index),
    entry.type === "conf-change" ? "conf" : "norm",
    String(entry.data.byteLength),
    describeEntry(entry),
  ]);
}

function ids(list: readonly bigint[]): string {
  return list.map(hexId).join(",");
}

const inspect: Command<ToolFace> = {
  use: "inspect <data-dir or wal-dir>",
  short: "Checks a write-ahead log and tells what it holds",
  long: [
    "Reads and checks the write-ahead log of a member and tells whose it is, where it stands and which entries it holds. Nothing is changed, a torn tail that",
    "the next start would cut included. Of values only the length is shown.",
  ].join("\n"),
  flags: [
    { name: "entries", kind: "bool", help: "List the entries, too" },
    { name: "start-index", kind: "uint", help: "First entry to list" },
    { name: "limit", kind: "uint", help: "How many entries to list (0 means all)" },
  ],
  checkArgs: exactly(1),
  run: async (call) => {
    formatOf(call);
    const [path = ""] = call.args;
    const wal = await orFail("stat", () => inspectLog(path, logTo(call)));
    const { metadata, hardState, snapshot, entries, files, repaired } = wal;
    const rows = entryRows(wal, call);
    const { voters, votersOutgoing, learners, learnersNext } = snapshot.confState;
    const first = entries[0]?.index ?? 0;
    const last = entries.at(-1)?.index ?? snapshot.index;
    const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
    const facts: [string, string, string | number | readonly string[]][] = [
      ["Directory", "directory", wal.directory],
      ["MemberID", "memberID", hexId(metadata.memberId)],
      ["ClusterID", "clusterID", hexId(metadata.clusterId)],
      ["Term", "term", hardState.term],
      ["Vote", "vote", hexId(hardState.vote)],
      ["CommitIndex", "commitIndex", hardState.commit],
      ["SnapshotIndex", "snapshotIndex", snapshot.index],
      ["SnapshotTerm", "snapshotTerm", snapshot.term],
      ["Voters", "voters", ids([...voters, ...votersOutgoing])],
      ["Learners", "learners", ids([...learners, ...learnersNext])],
      ["Entries", "entries", entries.length],
      ["FirstIndex", "firstIndex", first],
      ["LastIndex", "lastIndex", last],
      ["Segments", "segments", files.map((file) => file.name)],
      ["SegmentBytes", "segmentBytes", bytes],
      ["TornTailBytes", "tornTailBytes", repaired?.droppedBytes ?? 0],
    ];
    const shown = (value: string | number | readonly string[]): string => (Array.isArray(value) ? value.join(",") : String(value));
    const lines = facts.map(([name, , value]) => `${name}: ${shown(value)}`.trimEnd());
    show(call, {
      simple: [...lines, ...rows.map((row) => row.join("\t").trimEnd())].join("\n"),
      json: {
        ...Object.fromEntries(facts.map(([, name, value]) => [name, value])),
        ...(call.flags.bool("entries")
          ? {
              list: rows.map(([term, index, type, size, what]) => ({
                term: Number(term),
                index: Number(index),
                type,
                bytes: Number(size),
                what,
              })),
            }
          : {}),
      },
      fields: [
        ...facts.map(([name, , value]) => [name, typeof value === "number" ? String(value) : JSON.stringify(shown(value))] as const),
        ...rows.map((row) => ["Entry", row.join(" ").trimEnd()] as const),
      ],
      table: call.flags.bool("entries")
        ? { headings: HEADINGS, rows }
        : { headings: ["FACT", "VALUE"], rows: facts.map(([name, , value]) => [name, shown(value)]) },
    });
  },
};

export const wal: Command<ToolFace> = {
  use: "wal",
  short: "Looks into write-ahead logs",
  commands: [inspect],
};
