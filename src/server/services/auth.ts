import * as api from "../../api/index.ts";
import { type RpcErrorReason, rpcError } from "../../api/rpc-errors.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { ServiceCore } from "./core.ts";
import type { AuthService, CallContext } from "./services.contract.ts";

/** Revision of an auth store in which nothing was ever changed. */
const UNTOUCHED_REVISION = 1;

/**
 * The Auth service as long as there are no users and roles: authentication is off and cannot be switched on, which is what etcd answers in that state. Calls
 * that would create users or roles are refused as unimplemented (docs/DIVERGENCE.md).
 */
export function createAuthService(core: ServiceCore): AuthService {
  async function refuse(context: CallContext, reason: RpcErrorReason): Promise<never> {
    core.admit(context);
    throw rpcError(reason);
  }
  async function unsupported(context: CallContext): Promise<never> {
    core.admit(context);
    throw new EtcdError("auth-unsupported", GrpcCode.Unimplemented, "holdfast: users and roles are not supported yet");
  }
  const header = (): api.ResponseHeader => core.header(core.state.store.revision);
  return {
    authEnable: (_request, context) => refuse(context, "root-user-not-exist"),
    async authDisable(_request, context) {
      core.admit(context);
      return api.AuthDisableResponse.create({ header: header() });
    },
    async authStatus(_request, context) {
      core.admit(context);
      return api.AuthStatusResponse.create({ header: header(), enabled: false, authRevision: UNTOUCHED_REVISION });
    },
    authenticate: (_request, context) => refuse(context, "auth-not-enabled"),
    userAdd: (request, context) => (request.name === "" ? refuse(context, "user-empty") : unsupported(context)),
    userGet: (_request, context) => refuse(context, "user-not-found"),
    async userList(_request, context) {
      core.admit(context);
      return api.AuthUserListResponse.create({ header: header() });
    },
    userDelete: (_request, context) => refuse(context, "user-not-found"),
    userChangePassword: (_request, context) => refuse(context, "user-not-found"),
    userGrantRole: (_request, context) => refuse(context, "user-not-found"),
    userRevokeRole: (_request, context) => refuse(context, "user-not-found"),
    roleAdd: (request, context) => (request.name === "" ? refuse(context, "role-empty") : unsupported(context)),
    roleGet: (_request, context) => refuse(context, "role-not-found"),
    async roleList(_request, context) {
      core.admit(context);
      return api.AuthRoleListResponse.create({ header: header() });
    },
    roleDelete: (_request, context) => refuse(context, "role-not-found"),
    roleGrantPermission: (request, context) => refuse(context, request.perm === undefined ? "permission-not-given" : "role-not-found"),
    roleRevokePermission: (_request, context) => refuse(context, "role-not-found"),
  };
}
