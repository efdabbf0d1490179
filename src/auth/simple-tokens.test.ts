import { describe, expect, it } from "vitest";
import { rpcError } from "../api/index.ts";
import { EtcdError } from "../base/errors.ts";
import { seededRandom } from "../base/random.ts";
import type { Identity } from "./auth-store.ts";
import { SimpleTokens } from "./simple-tokens.ts";
import type { CancelSignal } from "./tokens.ts";

class Member {
  nowMs = 0;
  revision = 5;
  applied = 10;
  readonly waits: { index: number; resolve: () => void; reject: (error: unknown) => void }[] = [];
  readonly tokens: SimpleTokens<CancelSignal>;

  constructor(tokensMax?: number) {
    this.tokens = new SimpleTokens({
      nowMs: () => this.nowMs,
      random: seededRandom(1),
      ttlMs: 300_000,
      revision: () => this.revision,
      appliedIndex: () => this.applied,
      waitApplied: (index) => new Promise((resolve, reject) => this.waits.push({ index, resolve, reject })),
      ...(tokensMax === undefined ? {} : { tokensMax }),
    });
  }

  login(username: string, index: number): string {
    const { secret, replicated } = this.tokens.prepare();
    const grant = { username, index, replicated, revision: this.revision };
    this.tokens.remember(grant);
    return this.tokens.issue(grant, secret);
  }

  who(token: string): Identity | string | "waits" {
    try {
      const answer = this.tokens.identify(token, undefined);
      if (!(answer instanceof Promise)) return answer;
      answer.catch(() => undefined);
      return "waits";
    } catch (error) {
      return EtcdError.is(error) ? error.reason : String(error);
    }
  }
}

describe("simple tokens", () => {
  it("are sixteen letters, a dot and the index of the login", () => {
    const member = new Member();
    const tokens = Array.from({ length: 50 }, (_, n) => member.login("u", n));
    for (const [n, token] of tokens.entries()) expect(token).toMatch(new RegExp(`^[a-zA-Z]{16}\\.${n}$`));
    expect(new Set(tokens.map((token) => token.split(".")[0])).size).toBe(50);
    expect(new Set(tokens.join("").replace(/[.\d]/g, "")).size).toBe(52);
  });

  it("BA8: go through the log as a digest, which is no token", () => {
    const member = new Member();
    const { secret, replicated } = member.tokens.prepare();
    expect(replicated).toMatch(/^[\w-]{43}$/);
    expect(replicated).not.toContain(secret);
    member.tokens.remember({ username: "u", replicated, index: 9, revision: 5 });
    expect([member.who(`${replicated}.9`), member.who(`${secret}.8`), member.who(`${secret}.9`)]).toEqual([
      "invalid-auth-token",
      "invalid-auth-token",
      { username: "u", revision: 5 },
    ]);
  });

  it("name their user at the auth revision of now", () => {
    const member = new Member();
    const token = member.login("u", 3);
    expect(member.who(token)).toEqual({ username: "u", revision: 5 });
    member.revision = 9;
    expect(member.who(token)).toEqual({ username: "u", revision: 9 });
  });

  it("live as long as they are used", () => {
    const member = new Member();
    const [used, idle] = [member.login("u", 3), member.login("u", 4)];
    for (let n = 0; n < 5; n++) {
      member.nowMs += 299_999;
      expect(member.who(used)).toMatchObject({ username: "u" });
    }
    expect(member.who(idle)).toBe("invalid-auth-token");
    member.nowMs += 300_000;
    expect(member.who(used)).toBe("invalid-auth-token");
    expect(member.tokens.size).toBe(0);
  });

  it("that nobody asks for any more are dropped at the next login", () => {
    const member = new Member();
    for (let n = 0; n < 10; n++) member.login("u", n);
    member.nowMs = 300_000;
    member.login("u", 11);
    expect(member.tokens.size).toBe(1);
  });

  it("are bounded: those used longest ago go first", () => {
    const member = new Member(3);
    const [a, b, c] = [member.login("u", 1), member.login("u", 2), member.login("u", 3)];
    member.who(a);
    const d = member.login("u", 4);
    expect([a, b, c, d].map((token) => typeof member.who(token))).toEqual(["object", "string", "object", "object"]);
  });

  it("go with their user, or all together", () => {
    const member = new Member();
    const [u, v] = [member.login("u", 1), member.login("v", 2)];
    member.tokens.forgetUser("u");
    expect([member.who(u), member.who(v)]).toEqual(["invalid-auth-token", { username: "v", revision: 5 }]);
    member.tokens.forgetAll();
    expect(member.who(v)).toBe("invalid-auth-token");
  });

  it("of a login that is not applied here yet are waited for", async () => {
    const member = new Member();
    const { secret, replicated } = member.tokens.prepare();
    const early = member.tokens.identify(`${secret}.12`, undefined);
    expect(member.waits.map((wait) => wait.index)).toEqual([12]);
    member.tokens.remember({ username: "u", replicated, index: 12, revision: 5 });
    member.applied = 12;
    member.waits[0]?.resolve();
    expect(await early).toEqual({ username: "u", revision: 5 });

    const forged = member.tokens.identify(`${secret}.13`, undefined);
    member.waits[1]?.resolve();
    await expect(forged).rejects.toThrow("invalid auth token");
    const given = member.tokens.identify(`${secret}.14`, undefined);
    member.waits[2]?.reject(rpcError("canceled"));
    await expect(given).rejects.toThrow("context canceled");
  });

  it("BA10: odd ones are invalid at once", () => {
    const member = new Member();
    const odd = [
      "",
      ".",
      "x",
      "x.",
      "x.y",
      "x.1",
      "x.10",
      "a.b.c",
      "x.-1",
      "x.1e3",
      "x. 11",
      "x.11 ",
      "x.11.12",
      "x.99999999999999999999",
      "x".repeat(1_000_000),
    ];
    expect(odd.map((token) => member.who(token))).toEqual(odd.map(() => "invalid-auth-token"));
    expect(member.who("x.11")).toBe("waits");
    // A member that gives other tokens replicates no text.
    member.tokens.remember({ username: "u", replicated: "", index: 9, revision: 1 });
    expect(member.who(".9")).toBe("invalid-auth-token");
  });
});
