/** Users, roles and permissions, tokens and passwords. The server root drives them. */
export { AUTH_ROWS, type AuthImage, authImageRows, CorruptAuthRowError, FIRST_AUTH_REVISION, readAuthRows } from "./auth-rows.ts";
export { AuthStore, type Identity, type PasswordRecord, ROOT } from "./auth-store.ts";
export { JWT_METHODS, JwtKeyError, type JwtMethod, JwtTokens, type JwtTokensOptions } from "./jwt-tokens.ts";
export { noTokens } from "./no-tokens.ts";
export { inThreadHasher } from "./password-in-thread.ts";
export { passwordWorker } from "./password-worker.ts";
export { checkPassword, impossibleHash, newSalt, type PasswordHasher } from "./passwords.ts";
export {
  type AttachedKeys,
  requireDeleteRange,
  requireLeaseRead,
  requireLeaseWrite,
  requirePut,
  requireRange,
  requireTxn,
} from "./request-permissions.ts";
export { Rights } from "./rights.ts";
export { SimpleTokens, type SimpleTokensOptions } from "./simple-tokens.ts";
export type { TokenGrant, TokenProvider, TokenSecret } from "./tokens.ts";
