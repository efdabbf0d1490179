import { afterEach, describe, expect, it } from "vitest";
import { EtcdError } from "../base/errors.ts";
import { seededRandom } from "../base/random.ts";
import { inThreadHasher } from "./password-in-thread.ts";
import { passwordWorker } from "./password-worker.ts";
import { checkPassword, impossibleHash, newSalt, type PasswordHasher } from "./passwords.ts";

const open: PasswordHasher[] = [];
afterEach(async () => {
  for (const hasher of open.splice(0)) await hasher.close();
});

function worker(): PasswordHasher {
  const hasher = passwordWorker();
  open.push(hasher);
  return hasher;
}

async function reasonOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (EtcdError.is(error)) return error.reason;
    throw error;
  }
  return "none";
}

const random = seededRandom(3);

/** Hashes that etcd 3.7.1 made and stored. A password behind the 72nd byte is not looked at. */
const REFERENCE: readonly (readonly [password: string, hash: string])[] = [
  ["", "$2a$04$0Ih1XKz8iUaFkpiPleeDWeeMDieyKsQSnigpeixtj9ckhXDySM9DO"],
  ["p", "$2a$04$ka5cxyHENyM3yKeamhp5w.qdZxW24iZrZw9l.h50Ft9LL5wrVL3vq"],
  ["pä\u{1F511}", "$2a$04$nVmylkZCu8HjMAVPmzohBe.hyXukFWqlfHNj0DXbNDNF0Qar..VLG"],
  ["a\0b", "$2a$04$e5aMF4lB.6TZlbXeFjqeQuRJyeTM6UVl0R6gbXa68CDqIwSYn0cBS"],
  ["x".repeat(72), "$2a$04$bG379xYfONW0Jmdz1/SIqOCdx2hLIvK9Dn0jyVAeozfEWSoGk9sei"],
  ["x".repeat(80), "$2a$04$bG379xYfONW0Jmdz1/SIqOCdx2hLIvK9Dn0jyVAeozfEWSoGk9sei"],
];

describe("salts", () => {
  it("are bcrypt's, of the wanted cost, and each another", async () => {
    const salts = Array.from({ length: 100 }, () => newSalt(random, 4));
    for (const salt of salts) expect(salt).toMatch(/^\$2a\$04\$[./A-Za-z0-9]{22}$/);
    expect(new Set(salts).size).toBe(100);
    expect(newSalt(random, 12)).toMatch(/^\$2a\$12\$/);
    // Written by bcrypt as they were given: the last char has only two bits.
    for (const salt of salts.slice(0, 5)) expect((await inThreadHasher().hash("p", salt)).slice(0, 29)).toBe(salt);
  });
});

describe("passwords", () => {
  it("have at most 72 bytes", () => {
    checkPassword("");
    checkPassword("x".repeat(72));
    checkPassword("ü".repeat(36));
    expect(() => checkPassword("x".repeat(73))).toThrow("bcrypt: password length exceeds 72 bytes");
    expect(() => checkPassword(`${"ü".repeat(36)}x`)).toThrow("bcrypt: password length exceeds 72 bytes");
  });

  it.each([
    ["in a worker", worker],
    ["in the thread", inThreadHasher],
  ])("%s: fit their hash and no other", async (_, make) => {
    const hasher = make();
    const passwords = ["", "p", "pä\u{1F511}", "a\0b", "x".repeat(72)];
    for (const password of passwords) {
      const hash = await hasher.hash(password, newSalt(random, 4));
      expect(hash).toMatch(/^\$2a\$04\$.{53}$/);
      expect([await hasher.verify(password, hash), await hasher.verify(`!${password.slice(1)}`, hash)]).toEqual([true, false]);
    }
    for (const [password, hash] of REFERENCE) expect(await hasher.verify(password, hash)).toBe(true);
    for (const none of ["", "garbage", "x".repeat(60), impossibleHash(4), `$2a$03$${".".repeat(53)}`])
      expect(await hasher.verify("p", none)).toBe(false);
  });
});

describe("the worker", () => {
  it("gives each job its answer", async () => {
    const hasher = worker();
    const hash = await hasher.hash("p", newSalt(random, 4));
    const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => hasher.verify(n % 3 === 0 ? "p" : "q", hash)));
    expect(answers).toEqual(Array.from({ length: 40 }, (_, n) => n % 3 === 0));
  });

  it("leaves the event loop free", async () => {
    const hasher = worker();
    let turns = 0;
    let done = false;
    const count = (): void => {
      turns += 1;
      if (!done) setImmediate(count);
    };
    count();
    await hasher.hash("p", newSalt(random, 10));
    done = true;
    // On the thread itself it would be a handful.
    expect(turns).toBeGreaterThan(100);
  });

  it("takes a bounded number of jobs", async () => {
    const hasher = worker();
    const slow = newSalt(random, 5);
    const outcomes = await Promise.all(Array.from({ length: 110 }, () => reasonOf(hasher.hash("p", slow))));
    // One is at work, a hundred wait.
    expect(outcomes.filter((reason) => reason === "none").length).toBe(101);
    expect(outcomes.slice(101)).toEqual(Array.from({ length: 9 }, () => "too-many-requests"));
  });

  it("drops jobs that nobody waits for, also the one at work", async () => {
    const hasher = worker();
    const [first, second] = [new AbortController(), new AbortController()];
    const gone = new EtcdError("canceled", 1, "gone");
    // Days of work.
    const hopeless = reasonOf(hasher.verify("p", impossibleHash(31), first.signal));
    const waiting = reasonOf(hasher.hash("p", newSalt(random, 4), second.signal));
    const next = hasher.hash("p", newSalt(random, 4));
    second.abort(gone);
    expect(await waiting).toBe("canceled");
    first.abort(gone);
    expect(await hopeless).toBe("canceled");
    expect(await next).toMatch(/^\$2a\$04\$/);
    expect(await reasonOf(hasher.hash("p", newSalt(random, 4), first.signal))).toBe("canceled");
  });

  it("goes on after a failure", async () => {
    const hasher = worker();
    expect(await reasonOf(hasher.hash("p", "no salt"))).toBe("password-worker");
    expect(await hasher.hash("p", newSalt(random, 4))).toMatch(/^\$2a\$04\$/);
  });

  it("ends what is under way when it is closed", async () => {
    const hasher = passwordWorker();
    const jobs = [hasher.verify("p", impossibleHash(31)), hasher.verify("p", impossibleHash(31))].map(reasonOf);
    await hasher.close();
    expect(await Promise.all(jobs)).toEqual(["server-stopped", "server-stopped"]);
    expect(await reasonOf(hasher.hash("p", newSalt(random, 4)))).toBe("server-stopped");
    await hasher.close();
    await passwordWorker().close();
  });
});
