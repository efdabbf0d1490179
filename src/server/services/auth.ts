import * as api from "../../api/index.ts";
import { rpcError } from "../../api/rpc-errors.ts";
import { checkPassword, impossibleHash, newSalt, type PasswordHasher, type TokenProvider } from "../../auth/index.ts";
import { base64Text, utf8Bytes } from "../../base/bytes.ts";
import type { Random } from "../../base/random.ts";
import type { AuthRequestKind, AuthResults } from "../apply/auth.ts";
import type { Applied } from "../apply/execute.ts";
import { type RaftRequest, type RaftRequestOf, raftRequest } from "../raft-request.ts";
import type { ServiceCore } from "./core.ts";
import type { AuthService, CallContext } from "./services.contract.ts";

export interface AuthPorts {
  readonly passwords: PasswordHasher;
  readonly tokens: TokenProvider<AbortSignal>;
  readonly random: Random;
  readonly bcryptCost: number;
}

/**
 * The Auth service of api-semantics.md section 16. Everything goes through the log, also what only looks. A password in clear goes nowhere but to the hasher:
 * neither into the log, nor to other members, nor into a line of the log file.
 */
export function createAuthService(core: ServiceCore, ports: AuthPorts): AuthService {
  const { passwords, tokens, random, bcryptCost } = ports;

  /** Replicates, and gives the header's revision beside what applying it gave. */
  function propose<Kind extends AuthRequestKind>(request: RaftRequestOf<Kind>, context: CallContext): Promise<Applied<AuthResults[Kind]>> {
    return core.propose<Applied<AuthResults[Kind]>>(request as RaftRequest, context);
  }

  /** For changes whose answer says nothing but that they happened. */
  async function change(request: RaftRequestOf<AuthRequestKind>, context: CallContext): Promise<{ header: api.ResponseHeader }> {
    core.admit(context);
    const { revision } = await propose(request, context);
    return { header: core.header(revision) };
  }

  async function authStatus(request: api.AuthStatusRequest, context: CallContext): Promise<api.AuthStatusResponse> {
    core.admit(context);
    const { response, revision } = await propose(raftRequest("auth-status", request), context);
    return api.AuthStatusResponse.create({ header: core.header(revision), ...response });
  }

  async function authenticate(request: api.AuthenticateRequest, context: CallContext): Promise<api.AuthenticateResponse> {
    core.admit(context);
    const barrier = core.linearizable(context.signal);
    if (barrier !== undefined) await barrier;
    return within(context, (signal) => logIn(request, signal));
  }

  async function logIn({ name, password }: api.AuthenticateRequest, signal: AbortSignal): Promise<api.AuthenticateResponse> {
    for (;;) {
      const checked = core.state.auth.revision;
      await checkLogin(name, password, signal);
      const { secret, replicated } = tokens.prepare();
      const body = api.InternalAuthenticateRequest.create({ name, simpleToken: replicated });
      // Whoever logs in need not be anybody yet: a token beside it is not looked at.
      const { response, revision } = await propose(raftRequest("authenticate", body), { signal });
      // The user may have got another password between the check and the log: then only a check of the new one counts.
      if (response.revision !== checked) continue;
      return api.AuthenticateResponse.create({ header: core.header(revision), token: await tokens.issue(response, secret) });
    }
  }

  /** @throws auth-not-enabled, auth-failed, no-password-user */
  async function checkLogin(name: string, password: string, signal: AbortSignal): Promise<void> {
    const { auth } = core.state;
    if (!auth.enabled) throw rpcError("auth-not-enabled");
    const record = auth.passwordOf(name);
    // As much work for an unknown user as for a wrong password, so that the time taken tells nobody which it was.
    const hash = record === undefined || record.hash === "" ? impossibleHash(bcryptCost) : record.hash;
    const fits = await passwords.verify(password, hash, signal);
    if (record?.noPassword === true) throw rpcError("no-password-user");
    if (record === undefined || !fits) throw rpcError("auth-failed");
  }

  /** The replicated form of a new password. @throws password-too-long, and what keeps the caller from administering */
  async function hashNew(password: string, context: CallContext): Promise<string> {
    checkPassword(password);
    await requireLikelyRoot(context);
    const hash = await within(context, (signal) => passwords.hash(password, newSalt(random, bcryptCost), signal));
    return base64Text(utf8Bytes(hash));
  }

  /**
   * Hashing is dear, so strangers must not cause it. What really decides is the state when the change is applied; a member that lags behind looks again when it
   * has caught up.
   */
  async function requireLikelyRoot(context: CallContext): Promise<void> {
    const who = await core.access.identify(context);
    const username = who?.username ?? "";
    if (core.state.auth.adminRefusal(username) === undefined) return;
    const barrier = core.linearizable(context.signal);
    if (barrier !== undefined) await barrier;
    core.state.auth.requireAdmin(username);
  }

  /** With the request timeout, which ends what the caller's own signal does not. */
  async function within<Result>(context: CallContext, work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    const deadline = core.deadline(context);
    try {
      return await work(deadline.signal);
    } finally {
      deadline.done();
    }
  }

  async function userAdd(request: api.AuthUserAddRequest, context: CallContext): Promise<api.AuthUserAddResponse> {
    core.admit(context);
    const noPassword = request.options?.noPassword === true;
    const hashedPassword = noPassword ? "" : await hashNew(request.password, context);
    const body = api.AuthUserAddRequest.create({ name: request.name, options: request.options, hashedPassword });
    return api.AuthUserAddResponse.create(await change(raftRequest("auth-user-add", body), context));
  }

  async function userChangePassword(
    request: api.AuthUserChangePasswordRequest,
    context: CallContext,
  ): Promise<api.AuthUserChangePasswordResponse> {
    core.admit(context);
    // Sic: an empty password is not hashed, and a hash given instead of one is taken as it is.
    const hashedPassword = request.password === "" ? request.hashedPassword : await hashNew(request.password, context);
    const body = api.AuthUserChangePasswordRequest.create({ name: request.name, hashedPassword });
    return api.AuthUserChangePasswordResponse.create(await change(raftRequest("auth-user-change-password", body), context));
  }

  async function userGet(request: api.AuthUserGetRequest, context: CallContext): Promise<api.AuthUserGetResponse> {
    core.admit(context);
    const { response, revision } = await propose(raftRequest("auth-user-get", request), context);
    return api.AuthUserGetResponse.create({ header: core.header(revision), roles: [...response] });
  }

  async function userList(request: api.AuthUserListRequest, context: CallContext): Promise<api.AuthUserListResponse> {
    core.admit(context);
    const { response, revision } = await propose(raftRequest("auth-user-list", request), context);
    return api.AuthUserListResponse.create({ header: core.header(revision), users: [...response] });
  }

  async function roleGet(request: api.AuthRoleGetRequest, context: CallContext): Promise<api.AuthRoleGetResponse> {
    core.admit(context);
    const { response, revision } = await propose(raftRequest("auth-role-get", request), context);
    return api.AuthRoleGetResponse.create({ header: core.header(revision), perm: [...response] });
  }

  async function roleList(request: api.AuthRoleListRequest, context: CallContext): Promise<api.AuthRoleListResponse> {
    core.admit(context);
    const { response, revision } = await propose(raftRequest("auth-role-list", request), context);
    return api.AuthRoleListResponse.create({ header: core.header(revision), roles: [...response] });
  }

  return {
    authEnable: async (request, context) => api.AuthEnableResponse.create(await change(raftRequest("auth-enable", request), context)),
    authDisable: async (request, context) => api.AuthDisableResponse.create(await change(raftRequest("auth-disable", request), context)),
    authStatus,
    authenticate,
    userAdd,
    userGet,
    userList,
    userDelete: async (request, context) =>
      api.AuthUserDeleteResponse.create(await change(raftRequest("auth-user-delete", request), context)),
    userChangePassword,
    userGrantRole: async (request, context) =>
      api.AuthUserGrantRoleResponse.create(await change(raftRequest("auth-user-grant-role", request), context)),
    userRevokeRole: async (request, context) =>
      api.AuthUserRevokeRoleResponse.create(await change(raftRequest("auth-user-revoke-role", request), context)),
    roleAdd: async (request, context) => api.AuthRoleAddResponse.create(await change(raftRequest("auth-role-add", request), context)),
    roleGet,
    roleList,
    roleDelete: async (request, context) =>
      api.AuthRoleDeleteResponse.create(await change(raftRequest("auth-role-delete", request), context)),
    roleGrantPermission: async (request, context) =>
      api.AuthRoleGrantPermissionResponse.create(await change(raftRequest("auth-role-grant-permission", request), context)),
    roleRevokePermission: async (request, context) =>
      api.AuthRoleRevokePermissionResponse.create(await change(raftRequest("auth-role-revoke-permission", request), context)),
  };
}
