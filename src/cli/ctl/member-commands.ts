/** member add, remove, update, promote and list. */
import * as api from "../../api/index.ts";
import { compareIds, hexId } from "../../base/ids.ts";
import { parseUrls } from "../../embed/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { NumberError, parseInteger } from "../cobra/flags.ts";
import { table } from "../cobra/go-format.ts";
import { badArguments, type Call, Status, withClient } from "./context.ts";
import { goJson, goString, type HexNames } from "./go-json.ts";
import type { Printer } from "./printer.ts";

const HEX_NAMES: HexNames = new Set(["cluster_id", "member_id", "ID"]);

function memberArgument(call: Call): bigint {
  const [text] = call.args;
  if (text === undefined || call.args.length > 1) throw badArguments("member ID is not provided");
  try {
    return parseInteger(text, { signed: false, base: 16 });
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw badArguments(`bad member ID arg (${error.message}), expecting ID in Hex`);
  }
}

function json<T extends object>(printer: Printer, type: api.MessageType<T>, message: T): string {
  return printer.hex ? goJson(type, message, HEX_NAMES) : goJson(type, message);
}

function clusterOf(response: { readonly header: api.ResponseHeader | undefined }): string {
  return hexId(response.header?.clusterId ?? 0n);
}

/** Comma-separated URLs as the cluster will know them. @throws ExitError */
function peerUrls(text: string): string[] {
  if (text === "") throw badArguments("member peer urls not provided");
  try {
    return parseUrls(text.split(",")).map((url) => url.text);
  } catch (error) {
    throw new ExitError(Status.error, (error as Error).message);
  }
}

const add: Command<ToolFace> = {
  use: "add <memberName> [options]",
  short: "Adds a member into the cluster",
  flags: [
    { name: "peer-urls", kind: "string", help: "comma separated peer URLs for the new member." },
    { name: "learner", kind: "bool", help: "indicates if the new member is raft learner" },
  ],
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined) throw badArguments("member name not provided");
    if (call.args.length > 1) {
      const url = call.args.slice(1).find((word) => word.startsWith("http"));
      throw badArguments(`too many arguments${url === undefined ? "" : `, did you mean --peer-urls=${url}`}`);
    }
    const urls = peerUrls(call.flags.string("peer-urls"));
    const isLearner = call.flags.bool("learner");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.ClusterService.memberAdd, api.MemberAddRequest.create({ peerUrls: urls, isLearner }), {
        timeoutMs,
      });
      const newId = response.member?.id ?? 0n;
      // The server lists the members in the order of their ids; the new one may be shown before it has a name.
      const members = response.members
        .flatMap((member) => member.peerUrls.map((url) => `${member.id === newId ? name : member.name}=${url}`))
        .join(",");
      printer.show({
        simple: () => [
          `Member ${hexId(newId)} added${isLearner ? " as learner" : ""} to cluster ${clusterOf(response)}`,
          "",
          `ETCD_NAME=${JSON.stringify(name)}`,
          `ETCD_INITIAL_CLUSTER=${JSON.stringify(members)}`,
          `ETCD_INITIAL_ADVERTISE_PEER_URLS=${JSON.stringify((response.member?.peerUrls ?? []).join(","))}`,
          'ETCD_INITIAL_CLUSTER_STATE="existing"',
        ],
        json: () => json(printer, api.MemberAddResponse, response),
        protobuf: () => api.MemberAddResponse.encode(response),
      });
    });
  },
};

const remove: Command<ToolFace> = {
  use: "remove <memberID>",
  short: "Removes a member from the cluster",
  run: async (call) => {
    const id = memberArgument(call);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.ClusterService.memberRemove, api.MemberRemoveRequest.create({ id }), { timeoutMs });
      printer.show({
        simple: () => [`Member ${hexId(id)} removed from cluster ${clusterOf(response)}`],
        json: () => json(printer, api.MemberRemoveResponse, response),
        protobuf: () => api.MemberRemoveResponse.encode(response),
      });
    });
  },
};

const update: Command<ToolFace> = {
  use: "update <memberID> [options]",
  short: "Updates a member in the cluster",
  flags: [{ name: "peer-urls", kind: "string", help: "comma separated peer URLs for the updated member." }],
  run: async (call) => {
    const id = memberArgument(call);
    const urls = peerUrls(call.flags.string("peer-urls"));
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.ClusterService.memberUpdate, api.MemberUpdateRequest.create({ id, peerUrls: urls }), {
        timeoutMs,
      });
      printer.show({
        simple: () => [`Member ${hexId(id)} updated in cluster ${clusterOf(response)}`],
        json: () => json(printer, api.MemberUpdateResponse, response),
        protobuf: () => api.MemberUpdateResponse.encode(response),
      });
    });
  },
};

const promote: Command<ToolFace> = {
  use: "promote <memberID>",
  short: "Promotes a non-voting member in the cluster",
  long: "Promotes a non-voting learner member to a voting one in the cluster.",
  run: async (call) => {
    const id = memberArgument(call);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.ClusterService.memberPromote, api.MemberPromoteRequest.create({ id }), { timeoutMs });
      printer.show({
        simple: () => [`Member ${hexId(id)} promoted in cluster ${clusterOf(response)}`],
        json: () => json(printer, api.MemberPromoteResponse, response),
        protobuf: () => api.MemberPromoteResponse.encode(response),
      });
    });
  },
};

const list: Command<ToolFace> = {
  use: "list",
  short: "Lists all members in the cluster",
  long: [
    "In the simple format there is a line for each member, with commas between:",
    "ID, status, name, peer addresses, client addresses, whether it is a learner.",
  ].join("\n"),
  flags: [{ name: "consistency", kind: "string", default: "l", help: "Linearizable(l) or Serializable(s)" }],
  run: async (call) => {
    const consistency = call.flags.string("consistency");
    if (consistency !== "l" && consistency !== "s")
      throw new ExitError(Status.badFeature, `unknown consistency flag ${JSON.stringify(consistency)}`);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const request = api.MemberListRequest.create({ linearizable: consistency === "l" });
      showMembers(printer, await client.call(api.ClusterService.memberList, request, { timeoutMs }));
    });
  },
};

const COLUMNS = ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"];

function showMembers(printer: Printer, response: api.MemberListResponse): void {
  const rows = (): string[][] =>
    [...response.members]
      .sort((a, b) => compareIds(a.id, b.id))
      .map((member) => [
        hexId(member.id),
        member.name === "" ? "unstarted" : "started",
        member.name,
        member.peerUrls.join(","),
        member.clientUrls.join(","),
        String(member.isLearner),
      ]);
  printer.show({
    simple: () => rows().map((row) => row.join(", ")),
    table: () => table(COLUMNS, rows()),
    json: () => json(printer, api.MemberListResponse, response),
    fields: () => [
      ...printer.header(response.header),
      ...response.members.flatMap((member) => [
        `"ID" : ${printer.id(member.id)}`,
        `"Name" : ${goString(member.name)}`,
        ...member.peerUrls.map((url) => `"PeerURL" : ${goString(url)}`),
        ...member.clientUrls.map((url) => `"ClientURL" : ${goString(url)}`),
        `"IsLearner" : ${member.isLearner}`,
        "",
      ]),
    ],
    protobuf: () => api.MemberListResponse.encode(response),
  });
}

export const member: Command<ToolFace> = {
  use: "member",
  short: "Membership related commands",
  commands: [add, remove, update, promote, list],
};
