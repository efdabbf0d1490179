/** alarm, defrag, move-leader, downgrade and snapshot. */
import { createHash } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import * as api from "../../api/index.ts";
import { hexId } from "../../base/ids.ts";
import { formatDurationMs } from "../../embed/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { NumberError, parseInteger } from "../cobra/flags.ts";
import { siBytes } from "../cobra/go-format.ts";
import type { Client } from "./client.ts";
import { badArguments, type Call, type Ctl, logLine, Status, withClient, withCtl } from "./context.ts";
import { endpointsOf } from "./endpoint-commands.ts";
import { goJson } from "./go-json.ts";
import { GrpcError } from "./grpc-error.ts";
import type { Printer } from "./printer.ts";

// -- alarm --------------------------------------------------------------------------------------------------------------------------------------

function alarmName(alarm: number): string {
  return api.AlarmTypeDescriptor.names.get(alarm) ?? String(alarm);
}

function showAlarms(printer: Printer, response: api.AlarmResponse): void {
  printer.show({
    simple: () => response.alarms.map(({ memberId, alarm }) => `memberID:${memberId} alarm:${alarmName(alarm)}`),
    json: () => goJson(api.AlarmResponse, response),
    fields: () => [
      ...printer.header(response.header),
      ...response.alarms.flatMap(({ memberId, alarm }) => [`"MemberID" : ${memberId}`, `"AlarmType" : ${alarmName(alarm)}`, ""]),
    ],
    protobuf: () => api.AlarmResponse.encode(response),
  });
}

function noArguments(call: Call, name: string): void {
  if (call.args.length > 0) throw badArguments(`${name} command accepts no arguments`);
}

const alarmList: Command<ToolFace> = {
  use: "list",
  short: "Lists all alarms",
  run: async (call) => {
    noArguments(call, "alarm list");
    await withClient(call, async (client, { printer, timeoutMs }) =>
      showAlarms(printer, await client.call(api.MaintenanceService.alarm, api.AlarmRequest.create(), { timeoutMs })),
    );
  },
};

const alarmDisarm: Command<ToolFace> = {
  use: "disarm",
  short: "Disarms all alarms",
  run: async (call) => {
    noArguments(call, "alarm disarm");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const { alarms } = await client.call(api.MaintenanceService.alarm, api.AlarmRequest.create(), { timeoutMs });
      const disarmed = api.AlarmResponse.create();
      for (const { memberId, alarm } of alarms) {
        const request = api.AlarmRequest.create({ action: api.AlarmAction.DEACTIVATE, memberId, alarm });
        disarmed.alarms.push(...(await client.call(api.MaintenanceService.alarm, request, { timeoutMs })).alarms);
      }
      showAlarms(printer, disarmed);
    });
  },
};

export const alarm: Command<ToolFace> = { use: "alarm", short: "Alarm related commands", commands: [alarmDisarm, alarmList] };

// -- defrag -------------------------------------------------------------------------------------------------------------------------------------

export const defrag: Command<ToolFace> = {
  use: "defrag",
  short: "Defragments the storage of the etcd members with given endpoints",
  flags: [{ name: "cluster", kind: "bool", help: "use all endpoints from the cluster member list" }],
  run: (call) =>
    withCtl(call, async (ctl) => {
      const { face, timeoutMs } = ctl;
      let failed = false;
      // One after the other: a member that is busy with it answers nothing else.
      for (const endpoint of await endpointsOf(ctl)) {
        const client = await ctl.connect([endpoint]);
        const started = performance.now();
        const took = (): string => formatDurationMs(performance.now() - started);
        try {
          await client.call(api.MaintenanceService.defragment, api.DefragmentRequest.create(), { timeoutMs });
          face.stdout(`Finished defragmenting etcd member[${endpoint}]. took ${took()}\n`);
        } catch (error) {
          if (!(error instanceof GrpcError)) throw error;
          face.stderr(`Failed to defragment etcd member[${endpoint}]. took ${took()}. (${error.message})\n`);
          failed = true;
        }
      }
      if (failed) throw new ExitError(Status.error);
    }),
};

// -- move-leader ----------------------------------------------------------------------------------------------------------------------------

export const moveLeader: Command<ToolFace> = {
  use: "move-leader <transferee-member-id>",
  short: "Transfers leadership to another etcd cluster member.",
  run: async (call) => {
    const [text] = call.args;
    if (text === undefined || call.args.length > 1) throw badArguments("move-leader command needs 1 argument");
    let target: bigint;
    try {
      target = parseInteger(text, { signed: false, base: 16 });
    } catch (error) {
      throw error instanceof NumberError ? badArguments(error.message) : error;
    }
    await withCtl(call, async (ctl) => {
      const { printer, timeoutMs } = ctl;
      const endpoints = await ctl.endpoints();
      for (const endpoint of endpoints) {
        const client = await ctl.connect([endpoint]);
        const { header, leader } = await client.call(api.MaintenanceService.status, api.StatusRequest.create(), { timeoutMs });
        if (header?.memberId !== leader) continue;
        const response = await client.call(api.MaintenanceService.moveLeader, api.MoveLeaderRequest.create({ targetId: target }), {
          timeoutMs,
        });
        printer.show({
          simple: () => [`Leadership transferred from ${hexId(leader)} to ${hexId(target)}`],
          json: () => goJson(api.MoveLeaderResponse, response),
          protobuf: () => api.MoveLeaderResponse.encode(response),
        });
        return;
      }
      throw badArguments(`no leader endpoint given at [${endpoints.join(" ")}]`);
    });
  },
};

// -- downgrade ----------------------------------------------------------------------------------------------------------------------------

function downgradeCommand(name: "validate" | "enable" | "cancel", action: number, short: string): Command<ToolFace> {
  const wantsVersion = name !== "cancel";
  return {
    use: wantsVersion ? `${name} <TARGET_VERSION>` : name,
    short,
    run: async (call) => {
      const [version] = call.args;
      if (wantsVersion) {
        if (version === undefined) throw badArguments("TARGET_VERSION not provided");
        if (call.args.length > 1) throw badArguments("too many arguments");
      }
      await withClient(call, async (client, { printer, timeoutMs }) => {
        const request = api.DowngradeRequest.create({ action, version: wantsVersion ? (version ?? "") : "" });
        const response = await client.call(api.MaintenanceService.downgrade, request, { timeoutMs });
        printer.show({
          simple: () => [`Downgrade ${name} success, cluster version ${response.version}`],
          json: () => goJson(api.DowngradeResponse, response),
          protobuf: () => api.DowngradeResponse.encode(response),
        });
      });
    },
  };
}

export const downgrade: Command<ToolFace> = {
  use: "downgrade",
  short: "Downgrade related commands",
  commands: [
    downgradeCommand("validate", api.DowngradeAction.VALIDATE, "Validate downgrade capability before starting downgrade"),
    downgradeCommand("enable", api.DowngradeAction.ENABLE, "Start a downgrade action to cluster"),
    downgradeCommand("cancel", api.DowngradeAction.CANCEL, "Cancel the ongoing downgrade action to cluster"),
  ],
};

// -- snapshot ---------------------------------------------------------------------------------------------------------------------------------

const SECTOR_BYTES = 512;
const DIGEST_BYTES = 32;
/** How often a long download tells how far it is. */
const PROGRESS_MS = 3000;

const save: Command<ToolFace> = {
  use: "save <filename>",
  short: "Stores an etcd node backend snapshot to a given file",
  run: async (call) => {
    const [path] = call.args;
    if (path === undefined || call.args.length > 1) throw badArguments("snapshot save expects one argument <filename>");
    await withCtl(call, async (ctl) => {
      const endpoints = await ctl.endpoints();
      if (endpoints.length > 1) {
        throw new ExitError(Status.interrupted, `snapshot must be requested to one selected node, not multiple [${endpoints.join(" ")}]`);
      }
      const client = await ctl.connect(endpoints);
      // No limit but one that was asked for: a large store takes its time.
      const timeoutMs = ctl.flags.has("command-timeout") ? ctl.timeoutMs : undefined;
      let version: string;
      try {
        version = await download(client, path, timeoutMs, ctl);
      } catch (error) {
        if (error instanceof ExitError) throw error;
        throw new ExitError(Status.interrupted, (error as Error).message);
      }
      ctl.face.stdout(`Snapshot saved at ${path}\n`);
      if (version !== "") ctl.face.stdout(`Server version ${version}\n`);
    });
  },
};

/** Writes the file beside its place and gives it its name when it is complete, checked and on the disk. Returns the server's storage version. */
async function download(client: Client, path: string, timeoutMs: number | undefined, { face }: Ctl): Promise<string> {
  const part = `${path}.part`;
  const file = await open(part, "w", 0o600).catch((error: unknown) => {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? `open ${part}: no such file or directory` : message;
    throw new ExitError(Status.interrupted, `could not open ${part} (${why})`);
  });
  const started = performance.now();
  let version = "";
  try {
    logLine(face, "info", "created temporary db file", { path: part });
    logLine(face, "info", "fetching snapshot", { endpoint: client.endpoints[0] });
    const digest = createHash("sha256");
    // The end of what came, which may be the digest and must not be part of the sum.
    let tail: Buffer = Buffer.alloc(0);
    let bytes = 0;
    let toldMs = started;
    for await (const response of client.stream(api.MaintenanceService.snapshot, api.SnapshotRequest.create(), { timeoutMs })) {
      if (response.version !== "") version = response.version;
      await file.writeFile(response.blob);
      bytes += response.blob.byteLength;
      const known = Buffer.concat([tail, response.blob]);
      const end = Math.max(0, known.byteLength - DIGEST_BYTES);
      digest.update(known.subarray(0, end));
      tail = Buffer.from(known.subarray(end));
      if (performance.now() - toldMs < PROGRESS_MS) continue;
      toldMs = performance.now();
      logLine(face, "info", "downloading", { received: siBytes(bytes), remaining: siBytes(response.remainingBytes) });
    }
    if (bytes % SECTOR_BYTES !== DIGEST_BYTES) throw new Error(`sha256 checksum not found [bytes: ${bytes}]`);
    if (!digest.digest().equals(tail)) throw new Error("the snapshot does not match its sha256 checksum");
    await file.sync();
    logLine(face, "info", "fetched snapshot", {
      endpoint: client.endpoints[0],
      size: siBytes(bytes),
      took: formatDurationMs(performance.now() - started),
      "etcd-version": version,
    });
  } catch (error) {
    await file.close();
    await rm(part, { force: true });
    throw error;
  }
  await file.close();
  await rename(part, path);
  logLine(face, "info", "saved", { path });
  return version;
}

export const snapshot: Command<ToolFace> = {
  use: "snapshot",
  short: "Manages etcd node snapshots",
  example: [
    "  # Save a snapshot of one member",
    "  holdfastctl --endpoints=127.0.0.1:2379 snapshot save etcd-snapshot.db",
    "",
    "  # What is in it, and back into a data directory: holdfastutl snapshot status, holdfastutl snapshot restore",
  ].join("\n"),
  commands: [save],
};
