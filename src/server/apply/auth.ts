/** Applying requests about users, roles and the switch: who may ask, then the change, all by the state as of this entry. */
import type * as api from "../../api/index.ts";
import type { TokenGrant } from "../../auth/index.ts";
import type { LogIndex, Revision } from "../../base/ids.ts";
import type { RaftRequest, RaftRequestOf } from "../raft-request.ts";
import type { Applied } from "./execute.ts";
import type { State } from "./state.ts";

/** What the applier tells the member about tokens, which are not replicated state. */
export interface AuthSinks {
  /** A user has logged in, through this or another member. */
  onLogin(grant: TokenGrant): void;
  /** Tokens of this user, or of all users, are void. */
  onTokensVoid(username: string | undefined): void;
}

export type AuthRequestKind = Extract<RaftRequest["kind"], `auth-${string}` | "authenticate">;
type AuthRequest = { [Kind in AuthRequestKind]: RaftRequestOf<Kind> }[AuthRequestKind];

/** What applying each kind gives, beside the revision. */
export interface AuthResults {
  "auth-enable": undefined;
  "auth-disable": undefined;
  "auth-status": { readonly enabled: boolean; readonly authRevision: Revision };
  authenticate: TokenGrant;
  "auth-user-add": undefined;
  "auth-user-delete": undefined;
  "auth-user-get": readonly string[];
  "auth-user-change-password": undefined;
  "auth-user-grant-role": undefined;
  "auth-user-revoke-role": undefined;
  "auth-user-list": readonly string[];
  "auth-role-list": readonly string[];
  "auth-role-add": undefined;
  "auth-role-delete": undefined;
  "auth-role-get": readonly api.Permission[];
  "auth-role-grant-permission": undefined;
  "auth-role-revoke-permission": undefined;
}

export function applyAuth(state: State, request: AuthRequest, index: LogIndex, sinks: AuthSinks): Applied<AuthResults[AuthRequestKind]> {
  // Nothing here changes keys.
  return { response: perform(state, request, index, sinks), revision: state.store.revision };
}

function perform(state: State, request: AuthRequest, index: LogIndex, sinks: AuthSinks): AuthResults[AuthRequestKind] {
  const { auth } = state;
  const { batch } = state.writer;
  const { username } = request;
  switch (request.kind) {
    case "auth-status":
      return { enabled: auth.enabled, authRevision: auth.revision };
    case "authenticate": {
      // The password was checked by the member that took the request.
      const { name, simpleToken } = request.body;
      auth.requireLogin(name);
      const grant: TokenGrant = { username: name, replicated: simpleToken, index, revision: auth.revision };
      sinks.onLogin(grant);
      return grant;
    }
    case "auth-user-get": {
      const { name } = request.body;
      // Sic: without a name nobody asks about themselves.
      if (name !== username) auth.requireAdmin(username);
      return auth.rolesOf(name);
    }
    case "auth-role-get": {
      const { role } = request.body;
      if (!auth.userHasRole(username, role)) auth.requireAdmin(username);
      return auth.permissionsOf(role);
    }
    default:
      auth.requireAdmin(username);
  }
  switch (request.kind) {
    case "auth-enable":
      auth.enable(batch);
      return undefined;
    case "auth-disable":
      if (auth.disable(batch)) sinks.onTokensVoid(undefined);
      return undefined;
    case "auth-user-add":
      auth.addUser(request.body, batch);
      return undefined;
    case "auth-user-delete":
      auth.deleteUser(request.body.name, batch);
      sinks.onTokensVoid(request.body.name);
      return undefined;
    case "auth-user-change-password":
      auth.changePassword(request.body.name, request.body.hashedPassword, batch);
      sinks.onTokensVoid(request.body.name);
      return undefined;
    case "auth-user-grant-role":
      auth.grantRole(request.body.user, request.body.role, batch);
      return undefined;
    case "auth-user-revoke-role":
      auth.revokeRole(request.body.name, request.body.role, batch);
      return undefined;
    case "auth-user-list":
      return auth.userNames();
    case "auth-role-list":
      return auth.roleNames();
    case "auth-role-add":
      auth.addRole(request.body.name, batch);
      return undefined;
    case "auth-role-delete":
      auth.deleteRole(request.body.role, batch);
      return undefined;
    case "auth-role-grant-permission":
      auth.grantPermission(request.body, batch);
      return undefined;
    case "auth-role-revoke-permission":
      auth.revokePermission(request.body, batch);
      return undefined;
    default:
      return request satisfies never;
  }
}
