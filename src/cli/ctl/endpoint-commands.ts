/** endpoint health, status and hashkv: each endpoint is asked by itself. */
import * as api from "../../api/index.ts";
import { hexId } from "../../base/ids.ts";
import { formatDurationMs } from "../../embed/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { siBytes, table } from "../cobra/go-format.ts";
import type { Client } from "./client.ts";
import { type Ctl, Status, withCtl } from "./context.ts";
import { goJson, goString } from "./go-json.ts";
import { GrpcError } from "./grpc-error.ts";
import { keyOf } from "./key-ranges.ts";

/** The endpoints given, or with `--cluster` those that the members advertise. */
export async function endpointsOf(ctl: Ctl): Promise<readonly string[]> {
  const given = await ctl.endpoints();
  if (!ctl.flags.bool("cluster")) return given;
  const client = await ctl.connect(given);
  const { members } = await client.call(api.ClusterService.memberList, api.MemberListRequest.create({ linearizable: true }), {
    timeoutMs: ctl.timeoutMs,
  });
  return members.flatMap((member) => member.clientUrls);
}

/** Runs `work` for one endpoint; a failure comes back as its text. */
async function ask<T>(ctl: Ctl, endpoint: string, work: (client: Client) => Promise<T>): Promise<T | GrpcError> {
  try {
    return await work(await ctl.connect([endpoint]));
  } catch (error) {
    if (error instanceof GrpcError) return error;
    throw error;
  }
}

interface Health {
  readonly endpoint: string;
  readonly health: boolean;
  readonly took: string;
  readonly error: string;
}

const HEALTH_KEY = keyOf("health");

const health: Command<ToolFace> = {
  use: "health",
  short: "Checks the healthiness of endpoints specified in `--endpoints` flag",
  run: (call) =>
    withCtl(call, async (ctl) => {
      const { printer, face } = ctl;
      const results: Health[] = [];
      await Promise.all(
        (await endpointsOf(ctl)).map(async (endpoint) => {
          results.push(await healthOf(ctl, endpoint));
        }),
      );
      const healthy = results.every((result) => result.health);
      printer.show({
        simple: () =>
          results.flatMap((result) => {
            if (result.error === "") return [`${result.endpoint} is healthy: successfully committed proposal: took = ${result.took}`];
            face.stderr(`${result.endpoint} is unhealthy: failed to commit proposal: ${result.error}\n`);
            return [];
          }),
        json: () =>
          `[${results
            .map((result) => {
              const error = result.error === "" ? "" : `,"error":${goString(result.error)}`;
              return `{"endpoint":${goString(result.endpoint)},"health":${result.health},"took":${goString(result.took)}${error}}`;
            })
            .join(",")}]`,
        fields: () =>
          results.flatMap((result) => [
            `"Endpoint" : ${goString(result.endpoint)}`,
            `"Health" : ${result.health}`,
            `"Took" : ${result.took}`,
            `"Error" : ${result.error}`,
            "",
          ]),
        table: () =>
          table(
            ["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
            results.map((result) => [result.endpoint, String(result.health), result.took, result.error]),
          ),
      });
      if (!healthy) throw new ExitError(Status.error, "unhealthy cluster");
    }),
};

async function healthOf(ctl: Ctl, endpoint: string): Promise<Health> {
  const { timeoutMs } = ctl;
  const client = await ctl.connect([endpoint]);
  const started = performance.now();
  let error = "";
  try {
    await client.call(api.KvService.range, api.RangeRequest.create({ key: HEALTH_KEY }), { timeoutMs });
  } catch (failure) {
    if (!(failure instanceof GrpcError)) throw failure;
    // Who may not read that key still got an answer through the whole cluster.
    if (failure.details !== api.RPC_ERRORS["permission-denied"][1]) error = failure.message;
  }
  const took = formatDurationMs(performance.now() - started);
  if (error === "") error = await alarmText(client, timeoutMs);
  return { endpoint, health: error === "", took, error };
}

async function alarmText(client: Client, timeoutMs: number): Promise<string> {
  try {
    const { alarms } = await client.call(api.MaintenanceService.alarm, api.AlarmRequest.create(), { timeoutMs });
    if (alarms.length === 0) return "";
    return `Active Alarm(s): ${alarms.map(({ alarm }) => `${api.AlarmTypeDescriptor.names.get(alarm) ?? alarm} `).join("")}`;
  } catch (error) {
    if (!(error instanceof GrpcError)) throw error;
    return "Unable to fetch the alarm list";
  }
}

const STATUS_COLUMNS = [
  "ENDPOINT",
  "ID",
  "VERSION",
  "STORAGE VERSION",
  "DB SIZE",
  "IN USE",
  "PERCENTAGE NOT IN USE",
  "QUOTA",
  "IS LEADER",
  "IS LEARNER",
  "RAFT TERM",
  "RAFT INDEX",
  "RAFT APPLIED INDEX",
  "ERRORS",
  "DOWNGRADE TARGET VERSION",
  "DOWNGRADE ENABLED",
];

function statusRow(endpoint: string, status: api.StatusResponse): string[] {
  const memberId = status.header?.memberId ?? 0n;
  const unused = status.dbSize === 0 ? 0 : Math.trunc((1 - status.dbSizeInUse / status.dbSize) * 100);
  return [
    endpoint,
    hexId(memberId),
    status.version,
    status.storageVersion,
    siBytes(status.dbSize),
    siBytes(status.dbSizeInUse),
    `${unused}%`,
    siBytes(status.dbSizeQuota),
    String(status.leader === memberId),
    String(status.isLearner),
    String(status.raftTerm),
    String(status.raftIndex),
    String(status.raftAppliedIndex),
    status.errors.join(", "),
    status.downgradeInfo?.targetVersion ?? "",
    String(status.downgradeInfo?.enabled ?? false),
  ];
}

const status: Command<ToolFace> = {
  use: "status",
  short: "Prints out the status of endpoints specified in `--endpoints` flag",
  run: (call) =>
    withCtl(call, async (ctl) => {
      const { printer, face, timeoutMs } = ctl;
      const answers: { endpoint: string; status: api.StatusResponse }[] = [];
      let failed = false;
      for (const endpoint of await endpointsOf(ctl)) {
        const answer = await ask(ctl, endpoint, (client) =>
          client.call(api.MaintenanceService.status, api.StatusRequest.create(), { timeoutMs }),
        );
        if (answer instanceof GrpcError) {
          face.stderr(`Failed to get the status of endpoint ${endpoint} (${answer.message})\n`);
          failed = true;
        } else {
          answers.push({ endpoint, status: answer });
        }
      }
      printer.show({
        simple: () => answers.map((answer) => statusRow(answer.endpoint, answer.status).join(", ")),
        table: () =>
          table(
            STATUS_COLUMNS,
            answers.map((answer) => statusRow(answer.endpoint, answer.status)),
          ),
        json: () =>
          `[${answers.map((answer) => `{"Endpoint":${goString(answer.endpoint)},"Status":${goJson(api.StatusResponse, answer.status)}}`).join(",")}]`,
        fields: () =>
          answers.flatMap(({ endpoint, status: one }) => [
            ...printer.header(one.header),
            `"Version" : ${goString(one.version)}`,
            `"StorageVersion" : ${goString(one.storageVersion)}`,
            `"DBSize" : ${one.dbSize}`,
            `"DBSizeInUse" : ${one.dbSizeInUse}`,
            `"DBSizeQuota" : ${one.dbSizeQuota}`,
            `"Leader" : ${printer.id(one.leader)}`,
            `"IsLearner" : ${one.isLearner}`,
            `"RaftIndex" : ${one.raftIndex}`,
            `"RaftTerm" : ${one.raftTerm}`,
            `"RaftAppliedIndex" : ${one.raftAppliedIndex}`,
            `"Errors" : [${one.errors.map(goString).join(" ")}]`,
            `"Endpoint" : ${goString(endpoint)}`,
            `"DowngradeTargetVersion" : ${goString(one.downgradeInfo?.targetVersion ?? "")}`,
            `"DowngradeEnabled" : ${one.downgradeInfo?.enabled ?? false}`,
            "",
          ]),
      });
      if (failed) throw new ExitError(Status.error);
    }),
};

const hashKv: Command<ToolFace> = {
  use: "hashkv",
  short: "Prints the KV history hash for each endpoint in --endpoints",
  flags: [{ name: "rev", kind: "int", help: "maximum revision to hash (default: latest revision)" }],
  run: (call) =>
    withCtl(call, async (ctl) => {
      const { printer, face, timeoutMs } = ctl;
      const answers: { endpoint: string; hash: api.HashKVResponse }[] = [];
      let failure: GrpcError | undefined;
      const request = api.HashKVRequest.create({ revision: Number(call.flags.integer("rev")) });
      for (const endpoint of await endpointsOf(ctl)) {
        const answer = await ask(ctl, endpoint, (client) => client.call(api.MaintenanceService.hashKv, request, { timeoutMs }));
        if (answer instanceof GrpcError) {
          face.stderr(`Failed to get the hash of endpoint ${endpoint} (${answer.message})\n`);
          failure = answer;
        } else {
          answers.push({ endpoint, hash: answer });
        }
      }
      const rows = (): string[][] => answers.map(({ endpoint, hash }) => [endpoint, String(hash.hash), String(hash.hashRevision)]);
      printer.show({
        simple: () => rows().map((row) => row.join(", ")),
        table: () => table(["ENDPOINT", "HASH", "HASH REVISION"], rows()),
        json: () =>
          `[${answers.map(({ endpoint, hash }) => `{"Endpoint":${goString(endpoint)},"HashKV":${goJson(api.HashKVResponse, hash)}}`).join(",")}]`,
        fields: () =>
          answers.flatMap(({ endpoint, hash }) => [
            ...printer.header(hash.header),
            `"Endpoint" : ${goString(endpoint)}`,
            `"Hash" : ${hash.hash}`,
            `"HashRevision" : ${hash.hashRevision}`,
            "",
          ]),
      });
      if (failure !== undefined) throw new ExitError(Status.error, failure.message);
    }),
};

export const endpoint: Command<ToolFace> = {
  use: "endpoint",
  short: "Endpoint related commands",
  persistentFlags: [{ name: "cluster", kind: "bool", help: "use all endpoints from the cluster member list" }],
  commands: [health, status, hashKv],
};
