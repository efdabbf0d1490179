/** auth, user and role. */
import * as api from "../../api/index.ts";
import { equalBytes } from "../../base/bytes.ts";
import type { Command } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import { quoted } from "../cobra/go-format.ts";
import type { Client } from "./client.ts";
import { badArguments, type Call, withClient } from "./context.ts";
import { goJson, goString } from "./go-json.ts";
import { GrpcError } from "./grpc-error.ts";
import { EVERYTHING, fromKeyRange, type KeyRange, keyOf, prefixEnd, prefixRange } from "./key-ranges.ts";
import type { Printer } from "./printer.ts";

const ROOT = "root";

/** An answer that says nothing but that it was done. */
function showDone<T extends { readonly header: api.ResponseHeader | undefined }>(
  printer: Printer,
  type: api.MessageType<T>,
  response: T,
  text: string,
): void {
  printer.show({
    simple: () => [text],
    json: () => goJson(type, response),
    fields: () => printer.header(response.header),
    protobuf: () => type.encode(response),
  });
}

// -- auth ---------------------------------------------------------------------------------------------------------------------------------------

function noArguments(call: Call, name: string): void {
  if (call.args.length > 0) throw badArguments(`auth ${name} command does not accept any arguments`);
}

const enable: Command<ToolFace> = {
  use: "enable",
  short: "Enables authentication",
  run: async (call) => {
    noArguments(call, "enable");
    await withClient(call, async (client, { timeoutMs }) => {
      const options = { timeoutMs };
      const attempt = (): Promise<unknown> => client.call(api.AuthService.authEnable, api.AuthEnableRequest.create(), options);
      try {
        await attempt();
      } catch (error) {
        if (!(error instanceof GrpcError) || error.details !== api.RPC_ERRORS["root-role-not-exist"][1]) throw error;
        // The user is there, but not its role: make up for that.
        await client.call(api.AuthService.roleAdd, api.AuthRoleAddRequest.create({ name: ROOT }), options);
        await client.call(api.AuthService.userGrantRole, api.AuthUserGrantRoleRequest.create({ user: ROOT, role: ROOT }), options);
        await attempt();
      }
      call.context.stdout("Authentication Enabled\n");
    });
  },
};

const disable: Command<ToolFace> = {
  use: "disable",
  short: "Disables authentication",
  run: async (call) => {
    noArguments(call, "disable");
    await withClient(call, async (client, { timeoutMs }) => {
      await client.call(api.AuthService.authDisable, api.AuthDisableRequest.create(), { timeoutMs });
      call.context.stdout("Authentication Disabled\n");
    });
  },
};

const status: Command<ToolFace> = {
  use: "status",
  short: "Returns authentication status",
  run: async (call) => {
    noArguments(call, "status");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.authStatus, api.AuthStatusRequest.create(), { timeoutMs });
      printer.show({
        simple: () => [`Authentication Status: ${response.enabled}`, `AuthRevision: ${response.authRevision}`],
        json: () => goJson(api.AuthStatusResponse, response),
        protobuf: () => api.AuthStatusResponse.encode(response),
      });
    });
  },
};

export const auth: Command<ToolFace> = {
  use: "auth",
  short: "Enable or disable authentication",
  commands: [enable, disable, status],
};

// -- user ---------------------------------------------------------------------------------------------------------------------------------------

const INTERACTIVE = {
  name: "interactive",
  kind: "bool",
  default: true,
  help: "Ask for the password on the terminal; if false, read it from stdin",
} as const;

/** A new password: typed twice, or one line of the input. */
async function newPassword(call: Call, user: string): Promise<string> {
  const { stdin } = call.context;
  if (!call.flags.bool("interactive")) return (await stdin.readLine()) ?? "";
  const first = await stdin.readSecret(`Password of ${user}: `);
  if (first === "") throw badArguments("empty password");
  const second = await stdin.readSecret(`Type password of ${user} again for confirmation: `);
  if (first !== second) throw badArguments("given passwords are different");
  return first;
}

const userAdd: Command<ToolFace> = {
  use: "add <user name or user:password> [options]",
  short: "Adds a new user",
  flags: [
    INTERACTIVE,
    { name: "new-user-password", kind: "string", help: "Supply password from the command line flag" },
    { name: "no-password", kind: "bool", help: "Create a user without password (CN based auth only)" },
  ],
  run: async (call) => {
    const { args, flags } = call;
    const [given] = args;
    if (given === undefined || args.length > 1) throw badArguments("user add command requires user name as its argument");
    const noPassword = flags.bool("no-password");
    let name = given;
    let password = "";
    if (!noPassword) {
      const colon = given.indexOf(":");
      if (flags.string("new-user-password") !== "") {
        password = flags.string("new-user-password");
      } else if (colon >= 0) {
        name = given.slice(0, colon);
        password = given.slice(colon + 1);
        if (name === "") throw badArguments("empty user name is not allowed");
      } else {
        password = await newPassword(call, name);
      }
    }
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const options = api.UserAddOptions.create({ noPassword });
      const request = api.AuthUserAddRequest.create({ name, password, options });
      const response = await client.call(api.AuthService.userAdd, request, { timeoutMs });
      showDone(printer, api.AuthUserAddResponse, response, `User ${name} created`);
    });
  },
};

const userDelete: Command<ToolFace> = {
  use: "delete <user name>",
  short: "Deletes a user",
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined || call.args.length > 1) throw badArguments("user delete command requires user name as its argument");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.userDelete, api.AuthUserDeleteRequest.create({ name }), { timeoutMs });
      showDone(printer, api.AuthUserDeleteResponse, response, `User ${name} deleted`);
    });
  },
};

const userGet: Command<ToolFace> = {
  use: "get <user name> [options]",
  short: "Gets detailed information of a user",
  flags: [{ name: "detail", kind: "bool", help: "Show permissions of roles granted to the user" }],
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined || call.args.length > 1) throw badArguments("user get command requires user name as its argument");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.userGet, api.AuthUserGetRequest.create({ name }), { timeoutMs });
      if (call.flags.bool("detail")) {
        call.context.stdout(`User: ${name}\n`);
        for (const role of response.roles) {
          call.context.stdout("\n");
          showRole(printer, role, await getRole(client, role, timeoutMs));
        }
        return;
      }
      printer.show({
        simple: () => [`User: ${name}`, `Roles:${response.roles.map((role) => ` ${role}`).join("")}`],
        json: () => goJson(api.AuthUserGetResponse, response),
        protobuf: () => api.AuthUserGetResponse.encode(response),
      });
    });
  },
};

const userList: Command<ToolFace> = {
  use: "list",
  short: "Lists all users",
  run: async (call) => {
    if (call.args.length > 0) throw badArguments("user list command requires no arguments");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.userList, api.AuthUserListRequest.create(), { timeoutMs });
      printer.show({
        simple: () => response.users,
        json: () => goJson(api.AuthUserListResponse, response),
        protobuf: () => api.AuthUserListResponse.encode(response),
      });
    });
  },
};

const userPasswd: Command<ToolFace> = {
  use: "passwd <user name> [options]",
  short: "Changes password of user",
  flags: [INTERACTIVE],
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined || call.args.length > 1) throw badArguments("user passwd command requires user name as its argument");
    const password = await newPassword(call, name);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const request = api.AuthUserChangePasswordRequest.create({ name, password });
      const response = await client.call(api.AuthService.userChangePassword, request, { timeoutMs });
      showDone(printer, api.AuthUserChangePasswordResponse, response, "Password updated");
    });
  },
};

const userGrantRole: Command<ToolFace> = {
  use: "grant-role <user name> <role name>",
  short: "Grants a role to a user",
  run: async (call) => {
    const [user, role] = call.args;
    if (user === undefined || role === undefined || call.args.length > 2) {
      throw badArguments("user grant command requires user name and role name as its argument");
    }
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.userGrantRole, api.AuthUserGrantRoleRequest.create({ user, role }), { timeoutMs });
      showDone(printer, api.AuthUserGrantRoleResponse, response, `Role ${role} is granted to user ${user}`);
    });
  },
};

const userRevokeRole: Command<ToolFace> = {
  use: "revoke-role <user name> <role name>",
  short: "Revokes a role from a user",
  run: async (call) => {
    const [name, role] = call.args;
    if (name === undefined || role === undefined || call.args.length > 2) {
      throw badArguments("user revoke-role requires user name and role name as its argument");
    }
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.userRevokeRole, api.AuthUserRevokeRoleRequest.create({ name, role }), {
        timeoutMs,
      });
      showDone(printer, api.AuthUserRevokeRoleResponse, response, `Role ${role} is revoked from user ${name}`);
    });
  },
};

export const user: Command<ToolFace> = {
  use: "user",
  short: "User related commands",
  commands: [userAdd, userDelete, userGet, userList, userPasswd, userGrantRole, userRevokeRole],
};

// -- role ---------------------------------------------------------------------------------------------------------------------------------------

const roleAdd: Command<ToolFace> = {
  use: "add <role name>",
  short: "Adds a new role",
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined || call.args.length > 1) throw badArguments("role add command requires role name as its argument");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.roleAdd, api.AuthRoleAddRequest.create({ name }), { timeoutMs });
      showDone(printer, api.AuthRoleAddResponse, response, `Role ${name} created`);
    });
  },
};

const roleDelete: Command<ToolFace> = {
  use: "delete <role name>",
  short: "Deletes a role",
  run: async (call) => {
    const [role] = call.args;
    if (role === undefined || call.args.length > 1) throw badArguments("role delete command requires role name as its argument");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.roleDelete, api.AuthRoleDeleteRequest.create({ role }), { timeoutMs });
      showDone(printer, api.AuthRoleDeleteResponse, response, `Role ${role} deleted`);
    });
  },
};

function getRole(client: Client, role: string, timeoutMs: number): Promise<api.AuthRoleGetResponse> {
  return client.call(api.AuthService.roleGet, api.AuthRoleGetRequest.create({ role }), { timeoutMs });
}

const roleGet: Command<ToolFace> = {
  use: "get <role name>",
  short: "Gets detailed information of a role",
  run: async (call) => {
    const [name] = call.args;
    if (name === undefined || call.args.length > 1) throw badArguments("role get command requires role name as its argument");
    await withClient(call, async (client, { printer, timeoutMs }) => showRole(printer, name, await getRole(client, name, timeoutMs)));
  },
};

const roleList: Command<ToolFace> = {
  use: "list",
  short: "Lists all roles",
  run: async (call) => {
    if (call.args.length > 0) throw badArguments("role list command requires no arguments");
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const response = await client.call(api.AuthService.roleList, api.AuthRoleListRequest.create(), { timeoutMs });
      printer.show({
        simple: () => response.roles,
        json: () => goJson(api.AuthRoleListResponse, response),
        fields: () => [...printer.header(response.header), `"Roles" :${response.roles.map((role) => ` ${goString(role)}`).join("")}`],
        protobuf: () => api.AuthRoleListResponse.encode(response),
      });
    });
  },
};

function isOpenEnd(end: Uint8Array): boolean {
  return equalBytes(end, EVERYTHING);
}

/** `k`, `[a, b)` with the prefix that it may be, `[a, <open ended>`. */
function rangeText(key: Uint8Array, rangeEnd: Uint8Array): string {
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");
  if (rangeEnd.length === 0) return text(key);
  if (isOpenEnd(rangeEnd)) return `[${text(key)}, <open ended>`;
  return `[${text(key)}, ${text(rangeEnd)})`;
}

function showRole(printer: Printer, name: string, response: api.AuthRoleGetResponse): void {
  const lines = (...types: number[]): string[] =>
    response.perm
      .filter(({ permType }) => types.includes(permType))
      .map(({ key, rangeEnd }) => {
        const isPrefix = rangeEnd.length > 0 && !isOpenEnd(rangeEnd) && equalBytes(prefixEnd(key), rangeEnd);
        return `\t${rangeText(key, rangeEnd)}${isPrefix ? ` (prefix ${Buffer.from(key).toString("utf8")})` : ""}`;
      });
  const { READ, WRITE, READWRITE } = api.PermissionType;
  printer.show({
    simple: () => [`Role ${name}`, "KV Read:", ...lines(READ, READWRITE), "KV Write:", ...lines(WRITE, READWRITE)],
    json: () => goJson(api.AuthRoleGetResponse, response),
    fields: () => [
      ...printer.header(response.header),
      ...response.perm.flatMap(({ permType, key, rangeEnd }) => [
        `"PermType" :  ${api.PermissionTypeDescriptor.names.get(permType) ?? permType}`,
        `"Key" : ${quoted(key)}`,
        `"RangeEnd" : ${quoted(rangeEnd)}`,
      ]),
    ],
    protobuf: () => api.AuthRoleGetResponse.encode(response),
  });
}

/** The range of a permission. An end of its own may not stand beside a flag that gives one. */
function permissionRange(call: Call, key: string, end: string | undefined): KeyRange {
  const prefix = call.flags.bool("prefix");
  const fromKey = call.flags.bool("from-key");
  if (prefix && fromKey) throw badArguments("--from-key and --prefix flags are mutually exclusive");
  if (end !== undefined && (prefix || fromKey))
    throw badArguments(`unexpected endkey argument with --${prefix ? "prefix" : "from-key"} flag`);
  if (prefix) return prefixRange(keyOf(key));
  if (fromKey) return fromKeyRange(keyOf(key));
  return { key: keyOf(key), rangeEnd: keyOf(end ?? "") };
}

function permissionFlags(verb: string): NonNullable<Command<ToolFace>["flags"]> {
  return [
    { name: "prefix", kind: "bool", help: `${verb} a prefix permission` },
    { name: "from-key", kind: "bool", help: `${verb} a permission of keys from the given key on, in the order of their bytes` },
  ];
}

const PERMISSIONS = new Map<string, number>(Object.entries(api.PermissionType));

const grantPermission: Command<ToolFace> = {
  use: "grant-permission [options] <role name> <permission type> <key> [endkey]",
  short: "Grants a key to a role",
  flags: permissionFlags("grant"),
  run: async (call) => {
    const [name, type, key, end] = call.args;
    if (name === undefined || type === undefined || key === undefined || call.args.length > 4) {
      throw badArguments("role grant command requires role name, permission type, and key [endkey] as its argument");
    }
    const permType = PERMISSIONS.get(type.toUpperCase());
    if (permType === undefined) throw badArguments(`invalid permission type: ${type}`);
    const perm = api.Permission.create({ permType, ...permissionRange(call, key, end) });
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const request = api.AuthRoleGrantPermissionRequest.create({ name, perm });
      const response = await client.call(api.AuthService.roleGrantPermission, request, { timeoutMs });
      showDone(printer, api.AuthRoleGrantPermissionResponse, response, `Role ${name} updated`);
    });
  },
};

const revokePermission: Command<ToolFace> = {
  use: "revoke-permission <role name> <key> [endkey]",
  short: "Revokes a key from a role",
  flags: permissionFlags("revoke"),
  run: async (call) => {
    const [role, key, end] = call.args;
    if (role === undefined || key === undefined || call.args.length > 3) {
      throw badArguments("role revoke-permission command requires role name and key [endkey] as its argument");
    }
    const range = permissionRange(call, key, end);
    await withClient(call, async (client, { printer, timeoutMs }) => {
      const request = api.AuthRoleRevokePermissionRequest.create({ role, ...range });
      const response = await client.call(api.AuthService.roleRevokePermission, request, { timeoutMs });
      const what = `${range.rangeEnd.length === 0 ? "key" : "range"} ${rangeText(range.key, range.rangeEnd)}`;
      showDone(printer, api.AuthRoleRevokePermissionResponse, response, `Permission of ${what} is revoked from role ${role}`);
    });
  },
};

export const role: Command<ToolFace> = {
  use: "role",
  short: "Role related commands",
  commands: [roleAdd, roleDelete, roleGet, roleList, grantPermission, revokePermission],
};
