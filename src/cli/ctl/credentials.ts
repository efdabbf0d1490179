/** Who a client says it is, and what servers say to that. */
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import { GrpcError } from "./grpc-error.ts";

export type Credentials = { readonly user: string; readonly password: string } | { readonly token: string };

/** True for etcd's answer while authentication is off. */
export function isAuthOff(error: unknown): boolean {
  const [code, text] = api.RPC_ERRORS["auth-not-enabled"];
  return error instanceof GrpcError && error.code === code && error.details === text;
}

export function isInvalidToken(error: unknown): boolean {
  return (
    error instanceof GrpcError &&
    ((error.code === GrpcCode.Unauthenticated && error.details === api.RPC_ERRORS["invalid-auth-token"][1]) ||
      error.details === api.RPC_ERRORS["auth-old-revision"][1])
  );
}
