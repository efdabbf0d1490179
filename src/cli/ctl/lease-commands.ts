/** lease grant, revoke, timetolive, list and keep-alive. */
import * as api from "../../api/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { NumberError, parseInteger } from "../cobra/flags.ts";
import { quoted } from "../cobra/go-format.ts";
import { badArguments, type Call, type Ctl, Status, withClient } from "./context.ts";
import { goJson } from "./go-json.ts";
import { GrpcError } from "./grpc-error.ts";
import { keepAlive } from "./lease-keeper.ts";
import { hexLease, type Printer } from "./printer.ts";

function leaseArgument(call: Call, command: string): bigint {
  const [text] = call.args;
  if (text === undefined || call.args.length > 1) {
    throw badArguments(
      command === "revoke" ? "lease revoke command needs 1 argument" : `lease ${command} command needs lease ID as argument`,
    );
  }
  try {
    return parseInteger(text, { signed: true, base: 16 });
  } catch (error) {
    if (!(error instanceof NumberError)) throw error;
    throw badArguments(`bad lease ID arg (${error.message}), expecting ID in Hex`);
  }
}

/** The header's fields, then more, in one object: how etcd's client prints answers about leases. */
function flatJson(header: api.ResponseHeader | undefined, more: string): string {
  const inner = header === undefined ? "" : goJson(api.ResponseHeader, header).slice(1, -1);
  return `{${inner}${inner === "" ? "" : ","}${more}}`;
}

/** Only the header goes out in binary form. */
function headerBytes(header: api.ResponseHeader | undefined): Uint8Array {
  return api.ResponseHeader.encode(header ?? api.ResponseHeader.create());
}

function badConnection(error: unknown): unknown {
  return error instanceof GrpcError ? new ExitError(Status.badConnection, error.message) : error;
}

const grant: Command<ToolFace> = {
  use: "grant <ttl>",
  short: "Creates leases",
  run: async (call) => {
    const [text] = call.args;
    if (text === undefined || call.args.length > 1) throw badArguments("lease grant command needs TTL argument");
    let ttl: bigint;
    try {
      ttl = parseInteger(text, { signed: true, base: 10 });
    } catch (error) {
      if (!(error instanceof NumberError)) throw error;
      throw badArguments(`bad TTL (${error.message})`);
    }
    await withClient(call, async (client, { printer, timeoutMs }) => {
      let response: api.LeaseGrantResponse;
      try {
        response = await client.call(api.LeaseService.leaseGrant, api.LeaseGrantRequest.create({ ttl: Number(ttl) }), { timeoutMs });
      } catch (error) {
        throw error instanceof GrpcError ? new ExitError(Status.error, `failed to grant lease (${error.message})`) : error;
      }
      const { header, id, ttl: granted } = response;
      printer.show({
        simple: () => [`lease ${hexLease(id)} granted with TTL(${granted}s)`],
        json: () => flatJson(header, `"ID":${id},"TTL":${granted},"Error":${JSON.stringify(response.error)}`),
        fields: () => [...printer.header(header), `"ID" : ${printer.lease(id)}`, `"TTL" : ${granted}`],
        protobuf: () => headerBytes(header),
      });
    });
  },
};

const revoke: Command<ToolFace> = {
  use: "revoke <leaseID>",
  short: "Revokes leases",
  run: async (call) => {
    const id = leaseArgument(call, "revoke");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      let response: api.LeaseRevokeResponse;
      try {
        response = await client.call(api.LeaseService.leaseRevoke, api.LeaseRevokeRequest.create({ id }), { timeoutMs });
      } catch (error) {
        throw error instanceof GrpcError ? new ExitError(Status.error, `failed to revoke lease (${error.message})`) : error;
      }
      printer.show({
        simple: () => [`lease ${hexLease(id)} revoked`],
        json: () => goJson(api.LeaseRevokeResponse, response),
        fields: () => printer.header(response.header),
        protobuf: () => api.LeaseRevokeResponse.encode(response),
      });
    });
  },
};

const timeToLive: Command<ToolFace> = {
  use: "timetolive <leaseID> [options]",
  short: "Get lease information",
  flags: [{ name: "keys", kind: "bool", help: "Get keys attached to this lease" }],
  run: async (call) => {
    const id = leaseArgument(call, "timetolive");
    const withKeys = call.flags.bool("keys");
    await withClient(call, async (client, ctl) => {
      const request = api.LeaseTimeToLiveRequest.create({ id, keys: withKeys });
      let response: api.LeaseTimeToLiveResponse;
      try {
        response = await client.call(api.LeaseService.leaseTimeToLive, request, { timeoutMs: ctl.timeoutMs });
      } catch (error) {
        throw badConnection(error);
      }
      showTimeToLive(ctl.printer, { ...response, id }, withKeys);
    });
  },
};

function showTimeToLive(printer: Printer, response: api.LeaseTimeToLiveResponse, withKeys: boolean): void {
  const { header, id, ttl, grantedTtl, keys } = response;
  printer.show({
    simple: () => {
      if (grantedTtl === 0 && ttl === -1) return [`lease ${hexLease(id)} already expired`];
      const attached = withKeys ? `, attached keys([${keys.map((key) => Buffer.from(key).toString("utf8")).join(" ")}])` : "";
      return [`lease ${hexLease(id)} granted with TTL(${grantedTtl}s), remaining(${ttl}s)${attached}`];
    },
    json: () => {
      const list = keys.length === 0 ? "null" : JSON.stringify(keys.map((key) => Buffer.from(key).toString("base64")));
      return flatJson(header, `"id":${id},"ttl":${ttl},"granted-ttl":${grantedTtl},"keys":${list}`);
    },
    fields: () => [
      ...printer.header(header),
      `"ID" : ${printer.lease(id)}`,
      `"TTL" : ${ttl}`,
      `"GrantedTTL" : ${grantedTtl}`,
      ...keys.map((key) => `"Key" : ${quoted(key)}`),
    ],
    protobuf: () => headerBytes(header),
  });
}

const list: Command<ToolFace> = {
  use: "list",
  short: "List all active leases",
  run: (call) =>
    withClient(call, async (client, { printer }) => {
      let response: api.LeaseLeasesResponse;
      try {
        response = await client.call(api.LeaseService.leaseLeases, api.LeaseLeasesRequest.create());
      } catch (error) {
        throw badConnection(error);
      }
      const { header, leases } = response;
      printer.show({
        simple: () => [`found ${leases.length} leases`, ...leases.map(({ id }) => hexLease(id))],
        json: () => flatJson(header, `"leases":[${leases.map(({ id }) => `{"id":${id}}`).join(",")}]`),
        fields: () => [...printer.header(header), ...leases.map(({ id }) => `"ID" : ${printer.lease(id)}`)],
        protobuf: () => headerBytes(header),
      });
    }),
};

const keepAliveCommand: Command<ToolFace> = {
  use: "keep-alive [options] <leaseID>",
  short: "Keeps leases alive (renew)",
  flags: [{ name: "once", kind: "bool", help: "Renew once and end" }],
  run: async (call) => {
    const id = leaseArgument(call, "keep-alive");
    const once = call.flags.bool("once");
    await withClient(call, async (client, ctl) => {
      const abort = new AbortController();
      try {
        for await (const response of keepAlive(client, id, abort.signal)) {
          if (response.ttl <= 0) {
            if (once) throw new ExitError(Status.badConnection, api.RPC_ERRORS["lease-not-found"][1]);
            break;
          }
          showKeepAlive(ctl, response);
          if (once) return;
        }
      } catch (error) {
        throw badConnection(error);
      } finally {
        abort.abort();
      }
      call.context.stdout(`lease ${hexLease(id)} expired or revoked.\n`);
    });
  },
};

function showKeepAlive({ printer }: Ctl, { header, id, ttl }: api.LeaseKeepAliveResponse): void {
  printer.show({
    simple: () => [`lease ${hexLease(id)} keepalived with TTL(${ttl})`],
    json: () => flatJson(header, `"ID":${id},"TTL":${ttl}`),
    fields: () => [...printer.header(header), `"ID" : ${printer.lease(id)}`, `"TTL" : ${ttl}`],
    protobuf: () => headerBytes(header),
  });
}

export const lease: Command<ToolFace> = {
  use: "lease",
  short: "Lease related commands",
  commands: [grant, revoke, timeToLive, list, keepAliveCommand],
};
