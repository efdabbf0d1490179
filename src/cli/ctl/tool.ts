/** All commands of the client tool, put together. */
import type { Command, Tool } from "../cobra/command.ts";
import { completionCommand } from "../cobra/completion.ts";
import type { ToolFace } from "../cobra/face.ts";
import { flagLines } from "../cobra/usage.ts";
import { versionText } from "../cobra/version.ts";
import { auth, role, user } from "./auth-commands.ts";
import { check } from "./check-commands.ts";
import { elect, lock } from "./concurrency-commands.ts";
import { GLOBAL_FLAGS } from "./context.ts";
import { endpoint } from "./endpoint-commands.ts";
import { compaction, del, get, put } from "./kv-commands.ts";
import { lease } from "./lease-commands.ts";
import { alarm, defrag, downgrade, moveLeader, snapshot } from "./maintenance-commands.ts";
import { member } from "./member-commands.ts";
import { makeMirror } from "./mirror-command.ts";
import { txn } from "./txn-command.ts";
import { watch } from "./watch-command.ts";

const NAME = "holdfastctl";

const Group = {
  kv: "Key-value commands",
  cluster: "Cluster maintenance commands",
  concurrency: "Concurrency commands",
  auth: "Authentication commands",
  utility: "Utility commands",
} as const;

function grouped(group: string, commands: readonly Command<ToolFace>[]): Command<ToolFace>[] {
  return commands.map((command) => {
    if (command.commands === undefined || command === snapshot) return { ...command, group };
    return { ...command, group, listed: `${command.short}. Use \`${NAME} ${command.use} --help\` to see subcommands` };
  });
}

const options: Command<ToolFace> = {
  use: "options",
  short: "Show the global command-line flags",
  run: ({ context }) => context.stdout(`The following options can be passed to any command:\n\n${flagLines(GLOBAL_FLAGS).join("\n")}\n`),
};

const version: Command<ToolFace> = {
  use: "version",
  short: `Prints the version of ${NAME}`,
  run: ({ context }) => context.stdout(versionText(NAME)),
};

const commands: readonly Command<ToolFace>[] = [
  ...grouped(Group.kv, [get, put, del, txn, compaction, watch, lease]),
  ...grouped(Group.cluster, [alarm, defrag, endpoint, moveLeader, member, snapshot, downgrade]),
  ...grouped(Group.concurrency, [lock, elect]),
  ...grouped(Group.auth, [auth, user, role]),
  ...grouped(Group.utility, [makeMirror, check, version, options]),
];

export const ctlTool: Tool<ToolFace> = {
  use: NAME,
  short: "A command line client for etcd clusters, of holdfast or of etcd.",
  persistentFlags: GLOBAL_FLAGS,
  commands: [...commands, completionCommand(NAME, commands, { group: Group.utility })],
  hint: `Use "${NAME} options" for a list of global command-line options (applies to all commands).`,
};
