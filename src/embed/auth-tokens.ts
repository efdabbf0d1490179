import { readFile } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { EtcdError } from "../base/errors.ts";
import { JwtTokens, noTokens, type TokenProvider } from "../server/index.ts";
import { type AuthTokens, ConfigError } from "./config.ts";

/**
 * How the member knows callers by their tokens; undefined for simple tokens, which it makes itself.
 * @throws ConfigError when a key file cannot be read or its key cannot be used
 */
export async function openTokens(tokens: AuthTokens, clock: Clock): Promise<TokenProvider | undefined> {
  switch (tokens.kind) {
    case "simple":
      return undefined;
    case "none":
      return noTokens;
    case "jwt": {
      const [publicKey, privateKey] = await Promise.all([readKey(tokens.publicKeyFile), readKey(tokens.privateKeyFile)]);
      try {
        return await JwtTokens.create({ method: tokens.method, publicKey, privateKey, ttlMs: tokens.ttlMs, wallMs: () => clock.wallMs() });
      } catch (error) {
        throw EtcdError.is(error) ? refused(error.message) : error;
      }
    }
    default:
      return tokens satisfies never;
  }
}

async function readKey(path: string | undefined): Promise<Uint8Array | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path);
  } catch (error) {
    throw refused(`auth: invalid auth options: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function refused(message: string): ConfigError {
  return new ConfigError([{ setting: "auth-token", message, stage: "start" }]);
}
