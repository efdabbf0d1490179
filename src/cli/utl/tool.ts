/** All commands of the tool for files, put together. */
import type { Command, Tool } from "../cobra/command.ts";
import { completionCommand } from "../cobra/completion.ts";
import type { ToolFace } from "../cobra/face.ts";
import { versionText } from "../cobra/version.ts";
import { GLOBAL_FLAGS } from "./context.ts";
import { snapshot } from "./snapshot-commands.ts";
import { defrag, hashKv, migrate } from "./store-commands.ts";
import { wal } from "./wal-commands.ts";

const NAME = "holdfastutl";

const version: Command<ToolFace> = {
  use: "version",
  short: `Prints the version of ${NAME}`,
  run: ({ context }) => context.stdout(versionText(NAME)),
};

const commands: readonly Command<ToolFace>[] = [defrag, hashKv, migrate, snapshot, version, wal];

export const utlTool: Tool<ToolFace> = {
  use: NAME,
  short: "An administrative tool for the files of holdfast members, and for snapshots of holdfast and of etcd.",
  persistentFlags: GLOBAL_FLAGS,
  commands: [...commands, completionCommand(NAME, commands)],
  repeatsErrors: true,
};
