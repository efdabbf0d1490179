import { createHmac, generateKeyPairSync, type KeyObject } from "node:crypto";
import { describe, expect, it } from "vitest";
import { utf8Bytes } from "../base/bytes.ts";
import { EtcdError } from "../base/errors.ts";
import { JWT_METHODS, JwtKeyError, type JwtMethod, JwtTokens, type JwtTokensOptions } from "./jwt-tokens.ts";

const SECRET = "a secret of a good length, 32 bytes and more, as all methods want it";
const NOW_MS = 1_700_000_000_000;
const NOW = NOW_MS / 1000;

function create(more: Partial<JwtTokensOptions> = {}): Promise<JwtTokens> {
  return JwtTokens.create({ method: "HS256", privateKey: utf8Bytes(SECRET), ttlMs: 300_000, wallMs: () => NOW_MS, ...more });
}

const part = (value: unknown): string => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

function signed(claims: unknown, header: object = { alg: "HS256", typ: "JWT" }, secret = SECRET): string {
  const text = `${part(header)}.${part(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

async function who(tokens: JwtTokens, token: string): Promise<unknown> {
  try {
    const { username, revision } = await tokens.identify(token);
    return { username, revision };
  } catch (error) {
    if (EtcdError.is(error)) return error.reason;
    throw error;
  }
}

const pems = ({ publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject }, type: "pkcs1" | "pkcs8" | "sec1" = "pkcs8") => ({
  publicKey: utf8Bytes(publicKey.export({ type: "spki", format: "pem" }).toString()),
  privateKey: utf8Bytes(privateKey.export({ type: type as "pkcs8", format: "pem" }).toString()),
});

const RSA = generateKeyPairSync("rsa", { modulusLength: 2048 });
const CURVES: Readonly<Record<string, string>> = { ES256: "prime256v1", ES384: "secp384r1", ES512: "secp521r1" };

function keysFor(method: JwtMethod): Pick<JwtTokensOptions, "publicKey" | "privateKey"> {
  if (method.startsWith("HS")) return { privateKey: utf8Bytes(SECRET) };
  if (method === "EdDSA") return pems(generateKeyPairSync("ed25519"));
  const namedCurve = CURVES[method];
  return namedCurve === undefined ? pems(RSA, "pkcs1") : pems(generateKeyPairSync("ec", { namedCurve }), "sec1");
}

describe("JWT tokens", () => {
  it.each(JWT_METHODS)("%s: what is issued is recognised, with one half of the keys or both", async (method) => {
    const keys = keysFor(method);
    const tokens = await create({ method, ...keys });
    const token = await tokens.issue({ username: "ü", revision: 7, replicated: "", index: 1 });
    const [header, claims] = token.split(".").map((one) => Buffer.from(one, "base64url").toString());
    expect([header, claims]).toEqual([`{"alg":"${method}","typ":"JWT"}`, `{"exp":${NOW + 300},"revision":7,"username":"ü"}`]);
    expect(await who(tokens, token)).toEqual({ username: "ü", revision: 7 });
    const others = [await create({ method, privateKey: keys.privateKey })];
    if (keys.publicKey !== undefined) others.push(await create({ method, publicKey: keys.publicKey, privateKey: undefined }));
    for (const other of others) expect(await who(other, token)).toEqual({ username: "ü", revision: 7 });
  });

  it("are not issued with a public key alone", async () => {
    const { publicKey } = keysFor("RS256");
    const tokens = await create({ method: "RS256", publicKey, privateKey: undefined });
    await expect(tokens.issue({ username: "u", revision: 1, replicated: "", index: 1 })).rejects.toThrow(
      "token signing attempted with verify-only key",
    );
  });

  it("are not taken from keys that are missing, unreadable, or unfit", async () => {
    const ec = keysFor("ES256");
    const bad: (Partial<JwtTokensOptions> & { method: JwtMethod })[] = [
      { method: "HS256", privateKey: undefined },
      { method: "HS256", privateKey: undefined, publicKey: utf8Bytes(SECRET) },
      { method: "HS256", privateKey: new Uint8Array(0) },
      { method: "RS256", privateKey: undefined },
      { method: "RS256", privateKey: utf8Bytes("no PEM") },
      { method: "RS256", privateKey: Uint8Array.of(0xff, 0xfe) },
      { method: "RS256", ...ec },
      { method: "ES384", ...ec },
      { method: "ES384", publicKey: ec.publicKey, privateKey: undefined },
      { method: "EdDSA", publicKey: ec.publicKey, privateKey: undefined },
      { method: "ES256", privateKey: ec.privateKey, publicKey: keysFor("ES256").publicKey },
    ];
    for (const options of bad) await expect(create(options), options.method).rejects.toThrow(JwtKeyError);
  });

  it("end, and begin, to the second", async () => {
    let nowMs = NOW_MS;
    const tokens = await create({ wallMs: () => nowMs });
    const token = await tokens.issue({ username: "u", revision: 1, replicated: "", index: 1 });
    nowMs += 299_999;
    expect(await who(tokens, token)).toEqual({ username: "u", revision: 1 });
    nowMs += 1;
    expect(await who(tokens, token)).toBe("invalid-auth-token");
    expect(await who(tokens, token)).toBe("invalid-auth-token");
    const later = signed({ username: "u", revision: 1, nbf: nowMs / 1000 + 1 });
    expect(await who(tokens, later)).toBe("invalid-auth-token");
    nowMs += 1000;
    expect(await who(tokens, later)).toEqual({ username: "u", revision: 1 });
  });

  it("that were verified once are known at once", async () => {
    const tokens = await create();
    const token = signed({ username: "u", revision: 1 });
    expect(tokens.identify(token)).toBeInstanceOf(Promise);
    await tokens.identify(token);
    expect(tokens.identify(token)).toMatchObject({ username: "u" });
    tokens.forgetAll();
    expect(tokens.identify(token)).toBeInstanceOf(Promise);
  });

  it("say who and at which revision, or are invalid", async () => {
    const tokens = await create();
    const good = { username: "u", revision: 4, exp: NOW + 60 };
    const takes: [object, number][] = [
      [good, 4],
      [{ username: "u", revision: 4 }, 4],
      [{ ...good, iat: NOW + 1000, aud: "x", sub: 5 }, 4],
      [{ ...good, exp: NOW + 60.5, revision: 4.5 }, 4],
      [{ ...good, exp: 1e18 }, 4],
      [{ ...good, revision: 0 }, 0],
      [{ ...good, revision: -3 }, -1],
      [{ ...good, revision: 1e30 }, -1],
    ];
    for (const [claims, revision] of takes)
      expect(await who(tokens, signed(claims)), JSON.stringify(claims)).toEqual({ username: "u", revision });
    expect(await who(tokens, signed({ ...good, username: "" }))).toEqual({ username: "", revision: 4 });
    const refused: unknown[] = [
      { ...good, username: undefined },
      { ...good, username: 5 },
      { ...good, revision: undefined },
      { ...good, revision: "4" },
      { ...good, exp: NOW },
      { ...good, exp: String(NOW + 60) },
      { ...good, exp: null },
      { ...good, nbf: NOW + 1 },
      { ...good, nbf: "x" },
      [],
      null,
      "x",
      5,
    ];
    for (const claims of refused) expect(await who(tokens, signed(claims)), JSON.stringify(claims)).toBe("invalid-auth-token");
  });

  it("BA10: forged and odd ones are invalid", async () => {
    const tokens = await create();
    const claims = { username: "root", revision: 4 };
    const text = signed(claims);
    const odd = [
      `${part({ alg: "none" })}.${part(claims)}.`,
      `${part({ alg: "none" })}.${part(claims)}`,
      signed(claims, { alg: "HS512", typ: "JWT" }),
      signed(claims, { alg: "RS256", typ: "JWT" }),
      signed(claims, undefined, `${SECRET}!`),
      `${text}=`,
      `${text}.x`,
      text.slice(0, -2),
      "",
      ".",
      "a.b.c",
      "\0",
      `x${text}`,
      `${part({ alg: "HS256" })}.${"x".repeat(1_000_000)}.x`,
      "NWikIzuUhjrzFxwR.212",
    ];
    for (const token of odd) expect(await who(tokens, token), token.slice(0, 40)).toBe("invalid-auth-token");
    expect(await who(tokens, signed(claims, { alg: "HS256" }))).toEqual(claims);
  });

  it("signed with an RSA key's public half as HMAC secret are invalid", async () => {
    const { publicKey, privateKey } = keysFor("RS256");
    const tokens = await create({ method: "RS256", publicKey, privateKey });
    const forged = signed({ username: "root", revision: 1 }, { alg: "HS256" }, Buffer.from(publicKey ?? []).toString());
    expect(await who(tokens, forged)).toBe("invalid-auth-token");
  });
});
