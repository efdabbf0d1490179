import { rpcError } from "../api/index.ts";
import type { TokenProvider } from "./tokens.ts";

/** `--auth-token ""`: nobody can log in by password, no token is valid. What remains are client certificates. */
export const noTokens: TokenProvider = {
  identify() {
    throw rpcError("invalid-auth-token");
  },
  prepare() {
    throw rpcError("auth-failed");
  },
  remember() {},
  issue() {
    throw rpcError("auth-failed");
  },
  forgetUser() {},
  forgetAll() {},
};
