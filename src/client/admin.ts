/** The cluster, its upkeep and its users: thin functions over the services of the same names. Ids are bigints, as everywhere. */
import * as api from "../api/index.ts";
import type { Caller } from "./caller.ts";
import type { KeyRange, KeySelection } from "./coding.ts";
import { type CallOptions, Deadline } from "./deadline.ts";

/** For calls that answer for one member alone. */
export interface MemberCallOptions extends CallOptions {
  /** One of the client's endpoints. Default: whichever is next. */
  readonly endpoint?: string | undefined;
}

type Unary = <Request extends object, Response extends object>(
  method: api.MethodDescriptor<Request, Response>,
  request: Request,
  options: MemberCallOptions | undefined,
  kind: "read" | "write",
) => Promise<Response>;

function unaryOf(caller: Caller): Unary {
  return (method, request, options, kind) =>
    options?.endpoint === undefined
      ? caller.unary(method, request, options, kind)
      : caller.unaryAt(options.endpoint, method, request, options);
}

/** Membership. */
export class ClusterClient {
  readonly #unary: Unary;

  constructor(caller: Caller) {
    this.#unary = unaryOf(caller);
  }

  /** @param options.linearizable default true: confirmed by a majority. */
  async members(options?: MemberCallOptions & { readonly linearizable?: boolean }): Promise<readonly api.Member[]> {
    const request = { linearizable: options?.linearizable ?? true };
    return (await this.#unary(api.ClusterService.memberList, request, options, "read")).members;
  }

  async addMember(member: { peerUrls: readonly string[]; isLearner?: boolean }, options?: CallOptions): Promise<api.MemberAddResponse> {
    const request = { peerUrls: [...member.peerUrls], isLearner: member.isLearner ?? false };
    return this.#unary(api.ClusterService.memberAdd, request, options, "write");
  }

  async removeMember(id: bigint, options?: CallOptions): Promise<api.MemberRemoveResponse> {
    return this.#unary(api.ClusterService.memberRemove, { id }, options, "write");
  }

  async updateMember(id: bigint, peerUrls: readonly string[], options?: CallOptions): Promise<api.MemberUpdateResponse> {
    return this.#unary(api.ClusterService.memberUpdate, { id, peerUrls: [...peerUrls] }, options, "write");
  }

  /** Makes a learner a voter. */
  async promoteMember(id: bigint, options?: CallOptions): Promise<api.MemberPromoteResponse> {
    return this.#unary(api.ClusterService.memberPromote, { id }, options, "write");
  }
}

export type AlarmName = "NOSPACE" | "CORRUPT";

export class MaintenanceClient {
  readonly #caller: Caller;
  readonly #unary: Unary;

  constructor(caller: Caller) {
    this.#caller = caller;
    this.#unary = unaryOf(caller);
  }

  status(options?: MemberCallOptions): Promise<api.StatusResponse> {
    return this.#unary(api.MaintenanceService.status, {}, options, "read");
  }

  async alarms(options?: CallOptions): Promise<readonly api.AlarmMember[]> {
    const request = { action: api.AlarmAction.GET, memberId: 0n, alarm: api.AlarmType.NONE };
    return (await this.#unary(api.MaintenanceService.alarm, request, options, "read")).alarms;
  }

  async disarm(alarm: { memberId: bigint; alarm: AlarmName }, options?: CallOptions): Promise<readonly api.AlarmMember[]> {
    const request = { action: api.AlarmAction.DEACTIVATE, memberId: alarm.memberId, alarm: api.AlarmType[alarm.alarm] };
    return (await this.#unary(api.MaintenanceService.alarm, request, options, "write")).alarms;
  }

  /** Of one member; it blocks while it runs. */
  async defragment(options?: MemberCallOptions): Promise<void> {
    await this.#unary(api.MaintenanceService.defragment, {}, options, "write");
  }

  /** @param options.revision 0 or absent: the current one. */
  hashKv(options?: MemberCallOptions & { readonly revision?: number }): Promise<api.HashKVResponse> {
    return this.#unary(api.MaintenanceService.hashKv, { revision: options?.revision ?? 0 }, options, "read");
  }

  /** Must go to the leader: name it with `endpoint`. */
  async moveLeader(targetId: bigint, options?: MemberCallOptions): Promise<void> {
    await this.#unary(api.MaintenanceService.moveLeader, { targetId }, options, "write");
  }

  /** The pieces of a backup of one member, in order; the last 32 bytes are the SHA-256 of all before. */
  async *snapshot(options?: MemberCallOptions): AsyncGenerator<Uint8Array, void, undefined> {
    const caller = this.#caller;
    const channel = options?.endpoint === undefined ? caller.endpoints.pick().channel : caller.endpoints.named(options.endpoint);
    const deadline = new Deadline(caller.clock, options?.timeoutMs ?? 0, options?.signal, caller.closing);
    try {
      const context = await caller.context(deadline, options);
      for await (const { blob } of channel.stream(api.MaintenanceService.snapshot, {}, context)) yield blob;
    } catch (error) {
      throw deadline.error ?? error;
    } finally {
      deadline.done();
    }
  }
}

export type PermissionName = "READ" | "WRITE" | "READWRITE";

/** The keys of a permission. */
export interface KeyChoice extends KeySelection {
  readonly key: string | Uint8Array;
}

/** Users, roles, and whether they count. */
export class AuthClient {
  readonly #unary: Unary;
  readonly #range: (keys: KeyChoice) => KeyRange;

  constructor(caller: Caller, range: (keys: KeyChoice) => KeyRange) {
    this.#unary = unaryOf(caller);
    this.#range = range;
  }

  status(options?: CallOptions): Promise<api.AuthStatusResponse> {
    return this.#unary(api.AuthService.authStatus, {}, options, "read");
  }

  async enable(options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.authEnable, {}, options, "write");
  }

  async disable(options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.authDisable, {}, options, "write");
  }

  /** Without a password the user can only be known by a certificate. */
  async addUser(name: string, password: string | undefined, options?: CallOptions): Promise<void> {
    const request = api.AuthUserAddRequest.create({
      name,
      password: password ?? "",
      options: api.UserAddOptions.create({ noPassword: password === undefined }),
    });
    await this.#unary(api.AuthService.userAdd, request, options, "write");
  }

  async deleteUser(name: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.userDelete, { name }, options, "write");
  }

  async changePassword(name: string, password: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.userChangePassword, api.AuthUserChangePasswordRequest.create({ name, password }), options, "write");
  }

  async rolesOf(user: string, options?: CallOptions): Promise<readonly string[]> {
    return (await this.#unary(api.AuthService.userGet, { name: user }, options, "read")).roles;
  }

  async users(options?: CallOptions): Promise<readonly string[]> {
    return (await this.#unary(api.AuthService.userList, {}, options, "read")).users;
  }

  async grantRole(user: string, role: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.userGrantRole, { user, role }, options, "write");
  }

  async revokeRole(user: string, role: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.userRevokeRole, { name: user, role }, options, "write");
  }

  async addRole(name: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.roleAdd, { name }, options, "write");
  }

  async deleteRole(role: string, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.roleDelete, { role }, options, "write");
  }

  async permissionsOf(role: string, options?: CallOptions): Promise<readonly api.Permission[]> {
    return (await this.#unary(api.AuthService.roleGet, { role }, options, "read")).perm;
  }

  async roles(options?: CallOptions): Promise<readonly string[]> {
    return (await this.#unary(api.AuthService.roleList, {}, options, "read")).roles;
  }

  /** Keys are those of the client: below its namespace, if it has one. */
  async grantPermission(role: string, permission: KeyChoice & { readonly type: PermissionName }, options?: CallOptions): Promise<void> {
    const perm = api.Permission.create({ permType: api.PermissionType[permission.type], ...this.#range(permission) });
    await this.#unary(api.AuthService.roleGrantPermission, { name: role, perm }, options, "write");
  }

  /** Exactly as it was granted. */
  async revokePermission(role: string, permission: KeyChoice, options?: CallOptions): Promise<void> {
    await this.#unary(api.AuthService.roleRevokePermission, { role, ...this.#range(permission) }, options, "write");
  }
}
