/**
 * Tokens that are signed statements: kept nowhere, so every member with the key knows them, also after a restart. They name the auth revision of their issue and
 * are outdated with the next change of users or roles.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import type * as Jose from "jose";
import { rpcError } from "../api/index.ts";
import { utf8Bytes, utf8TextStrict } from "../base/bytes.ts";
import { EtcdError, GrpcCode } from "../base/errors.ts";
import type { Identity } from "./auth-store.ts";
import type { TokenGrant, TokenProvider, TokenSecret } from "./tokens.ts";

export const JWT_METHODS = [
  ...(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] as const),
  ...(["ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"] as const),
] as const;
export type JwtMethod = (typeof JWT_METHODS)[number];

export interface JwtTokensOptions {
  readonly method: JwtMethod;
  /** PEM: a public key or a certificate. Without it the private key's other half. Not for HS. */
  readonly publicKey?: Uint8Array | undefined;
  /** PEM; for HS the secret itself. Without it tokens are verified and none is issued. */
  readonly privateKey?: Uint8Array | undefined;
  /** How long a token lives. */
  readonly ttlMs: number;
  /** Since the Unix epoch: the time in tokens is the calendar's, and others may issue them. */
  readonly wallMs: () => number;
}

/** The keys cannot be used. The member must not start: nobody could log in, or anybody. */
export class JwtKeyError extends EtcdError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("jwt-key", GrpcCode.InvalidArgument, message, options);
    this.name = "JwtKeyError";
  }
}

const TOKEN_CHARS_MAX = 65_536;
/** Stricter than the decoder below, which forgives padding. */
const TOKEN_FORM = /^[\w-]+\.[\w-]+\.[\w-]+$/;
/** Verified tokens that are remembered, so that a caller's next request need not wait for a verification. */
const VERIFIED_MAX = 4096;

type Key = KeyObject | Uint8Array;
type Library = typeof Jose;

interface Claims {
  readonly username: string;
  readonly revision: number;
  /** Milliseconds since the epoch; infinite when the token has no end. */
  readonly endMs: number;
  readonly startMs: number;
}

export class JwtTokens implements TokenProvider {
  readonly #jose: Library;
  readonly #method: JwtMethod;
  readonly #verifyKey: Key;
  readonly #signKey: Key | undefined;
  readonly #ttlMs: number;
  readonly #wallMs: () => number;
  /** In the order of last use. */
  readonly #verified = new Map<string, Claims>();

  private constructor(jose: Library, options: JwtTokensOptions, verifyKey: Key, signKey: Key | undefined) {
    this.#jose = jose;
    this.#method = options.method;
    this.#verifyKey = verifyKey;
    this.#signKey = signKey;
    this.#ttlMs = options.ttlMs;
    this.#wallMs = options.wallMs;
  }

  /** Tries the keys once. @throws JwtKeyError when they are missing, cannot be read, or do not fit the method or each other */
  static async create(options: JwtTokensOptions): Promise<JwtTokens> {
    const { verifyKey, signKey } = keysOf(options);
    // Most members never need it, and loading it takes a while.
    const jose = await import("jose");
    const tokens = new JwtTokens(jose, options, verifyKey, signKey);
    try {
      if (signKey !== undefined) await jose.compactVerify(await tokens.#sign({}), verifyKey, { algorithms: [options.method] });
      else await refusesForeign(jose, verifyKey, options.method);
    } catch (error) {
      throw new JwtKeyError(`auth: the keys do not fit the sign-method ${options.method}`, { cause: error });
    }
    return tokens;
  }

  identify(token: string): Identity | Promise<Identity> {
    const known = this.#verified.get(token);
    if (known === undefined) return this.#verify(token);
    this.#verified.delete(token);
    this.#requireCurrent(known);
    this.#verified.set(token, known);
    return known;
  }

  async #verify(token: string): Promise<Identity> {
    if (token.length > TOKEN_CHARS_MAX || !TOKEN_FORM.test(token)) throw rpcError("invalid-auth-token");
    let payload: Uint8Array;
    try {
      ({ payload } = await this.#jose.compactVerify(token, this.#verifyKey, { algorithms: [this.#method] }));
    } catch (error) {
      throw rpcError("invalid-auth-token", { cause: error });
    }
    const claims = claimsOf(payload);
    if (claims === undefined) throw rpcError("invalid-auth-token");
    this.#requireCurrent(claims);
    if (this.#verified.size >= VERIFIED_MAX) {
      const [oldest] = this.#verified.keys();
      if (oldest !== undefined) this.#verified.delete(oldest);
    }
    this.#verified.set(token, claims);
    return claims;
  }

  #requireCurrent({ startMs, endMs }: Claims): void {
    const now = this.#wallMs();
    if (now >= endMs || now < startMs) throw rpcError("invalid-auth-token");
  }

  prepare(): TokenSecret {
    return { secret: "", replicated: "" };
  }

  remember(): void {}

  issue({ username, revision }: TokenGrant): Promise<string> {
    return this.#sign({ exp: Math.floor((this.#wallMs() + this.#ttlMs) / 1000), revision, username });
  }

  async #sign(claims: object): Promise<string> {
    if (this.#signKey === undefined) throw rpcError("verify-only-key");
    const payload = utf8Bytes(JSON.stringify(claims));
    return new this.#jose.CompactSign(payload).setProtectedHeader({ alg: this.#method, typ: "JWT" }).sign(this.#signKey);
  }

  /** A change of the user is a change of the auth revision, which outdates the token. */
  forgetUser(): void {}

  forgetAll(): void {
    this.#verified.clear();
  }
}

function keysOf({ method, publicKey, privateKey }: JwtTokensOptions): { verifyKey: Key; signKey: Key | undefined } {
  if (method.startsWith("HS")) {
    if (privateKey === undefined || privateKey.length === 0) throw new JwtKeyError("auth: missing key data");
    return { verifyKey: privateKey, signKey: privateKey };
  }
  try {
    const signKey = privateKey === undefined ? undefined : createPrivateKey(pem(privateKey));
    if (publicKey !== undefined) return { verifyKey: createPublicKey(pem(publicKey)), signKey };
    if (signKey !== undefined) return { verifyKey: createPublicKey(signKey), signKey };
  } catch (error) {
    throw new JwtKeyError(`auth: cannot read the keys for the sign-method ${method}`, { cause: error });
  }
  throw new JwtKeyError("auth: missing key data");
}

function pem(bytes: Uint8Array): string {
  return utf8TextStrict(bytes) ?? "";
}

/** A key that fits the method finds the signature wrong; one that does not fails otherwise. */
async function refusesForeign(jose: Library, key: Key, method: JwtMethod): Promise<void> {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  try {
    await jose.compactVerify(`${part({ alg: method })}.${part({})}.${Buffer.alloc(64).toString("base64url")}`, key, {
      algorithms: [method],
    });
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ERR_JWS_SIGNATURE_VERIFICATION_FAILED") throw error;
  }
}

/** Undefined unless they name a user and a revision. The rules are those of the library that etcd uses: an absent end is no end. */
function claimsOf(payload: Uint8Array): Claims | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(utf8TextStrict(payload) ?? "");
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (typeof parsed !== "object" || parsed === null) return undefined;
  const { username, revision, exp, nbf } = parsed as Readonly<Record<string, unknown>>;
  if (typeof username !== "string" || typeof revision !== "number") return undefined;
  if ((exp !== undefined && typeof exp !== "number") || (nbf !== undefined && typeof nbf !== "number")) return undefined;
  const whole = Math.trunc(revision);
  return {
    username,
    // Nonsense must not pass for a later revision, nor for nobody's.
    revision: Number.isSafeInteger(whole) && whole >= 0 ? whole : -1,
    endMs: exp === undefined ? Number.POSITIVE_INFINITY : exp * 1000,
    startMs: nbf === undefined ? Number.NEGATIVE_INFINITY : nbf * 1000,
  };
}
