import { describe, expect, it } from "vitest";
import * as api from "../api/index.ts";
import type { BackendBatch, BackendOperation, BackendRow } from "../backend/backend.ts";
import { base64Text, latin1Bytes, latin1Text, utf8Bytes } from "../base/bytes.ts";
import { EtcdError } from "../base/errors.ts";
import { authImageRows, CorruptAuthRowError, readAuthRows } from "./auth-rows.ts";
import { AuthStore } from "./auth-store.ts";

/** Rows as they would be stored. */
class Rows implements BackendBatch {
  readonly operations: BackendOperation[] = [];
  readonly bytes = 0;
  readonly #stored = new Map<string, BackendRow>();

  put(key: Uint8Array, value: Uint8Array): void {
    this.operations.push({ type: "put", key, value });
    this.#stored.set(latin1Text(key), [key, value]);
  }

  delete(key: Uint8Array): void {
    this.operations.push({ type: "del", key });
    this.#stored.delete(latin1Text(key));
  }

  all(): BackendRow[] {
    return [...this.#stored.values()];
  }
}

const HASH = "$2a$04$......................................................";
const hashed = (text: string): string => base64Text(utf8Bytes(text));
const add = (name: string, more: Partial<api.AuthUserAddRequest> = {}): api.AuthUserAddRequest =>
  api.AuthUserAddRequest.create({ name, hashedPassword: hashed(HASH), ...more });
const grant = (name: string, key: string, rangeEnd = "", permType: number = api.PermissionType.READ): api.AuthRoleGrantPermissionRequest =>
  api.AuthRoleGrantPermissionRequest.create({ name, perm: { permType, key: latin1Bytes(key), rangeEnd: latin1Bytes(rangeEnd) } });

function start(): { store: AuthStore; rows: Rows } {
  return { store: AuthStore.open([]), rows: new Rows() };
}

/** Reason of what is thrown. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (EtcdError.is(error)) return error.reason;
    throw error;
  }
  return "none";
}

function withRoot(): { store: AuthStore; rows: Rows } {
  const { store, rows } = start();
  store.addUser(add("root"), rows);
  store.grantRole("root", "root", rows);
  store.enable(rows);
  return { store, rows };
}

describe("users", () => {
  it("are added, found, listed and deleted", () => {
    const { store, rows } = start();
    store.addUser(add("b"), rows);
    store.addUser(add("a"), rows);
    store.addUser(add("ä"), rows);
    store.addUser(add("\u{1F511}"), rows);
    store.addUser(add("\uffee"), rows);
    // By bytes, not by UTF-16 units.
    expect(store.userNames()).toEqual(["a", "b", "ä", "\uffee", "\u{1F511}"]);
    expect(refusal(() => store.addUser(add(""), rows))).toBe("user-empty");
    expect(refusal(() => store.addUser(add("a"), rows))).toBe("user-already-exists");
    expect(refusal(() => store.deleteUser("x", rows))).toBe("user-not-found");
    store.deleteUser("a", rows);
    expect(refusal(() => store.rolesOf("a"))).toBe("user-not-found");
    expect(store.revision).toBe(7);
  });

  it("keep a hash, and never a password in clear", () => {
    const { store, rows } = start();
    store.addUser(add("u", { password: "canary" }), rows);
    expect(store.passwordOf("u")).toEqual({ hash: HASH, noPassword: false });
    store.addUser(add("np", { password: "canary", hashedPassword: "?", options: { noPassword: true } }), rows);
    expect(store.passwordOf("np")).toEqual({ hash: "", noPassword: true });
    expect(refusal(() => store.addUser(add("v", { hashedPassword: "not base64" }), rows))).toBe("no-password-user");
    expect(refusal(() => store.passwordOf("v"))).toBe("none");
    expect(rows.all().some(([, value]) => latin1Text(value).includes("canary"))).toBe(false);
  });

  it("get other passwords", () => {
    const { store, rows } = start();
    store.addUser(add("u"), rows);
    store.addUser(add("np", { options: { noPassword: true } }), rows);
    store.changePassword("u", hashed("other"), rows);
    expect(store.passwordOf("u")?.hash).toBe("other");
    expect(refusal(() => store.changePassword("u", "!", rows))).toBe("no-password-user");
    expect(refusal(() => store.changePassword("u", "YQ", rows))).toBe("no-password-user");
    expect(store.passwordOf("u")?.hash).toBe("other");
    store.changePassword("u", `${hashed("again")}\n`, rows);
    expect(store.passwordOf("u")?.hash).toBe("again");
    store.changePassword("u", "", rows);
    expect(store.passwordOf("u")?.hash).toBe("");
    const before = store.revision;
    store.changePassword("np", "!", rows);
    expect([store.revision, store.passwordOf("np")?.noPassword]).toEqual([before + 1, true]);
    expect(refusal(() => store.changePassword("x", "", rows))).toBe("user-not-found");
  });

  it("have roles", () => {
    const { store, rows } = start();
    store.addUser(add("u"), rows);
    for (const role of ["r2", "r1"]) store.addRole(role, rows);
    expect(refusal(() => store.grantRole("x", "r1", rows))).toBe("user-not-found");
    expect(refusal(() => store.grantRole("u", "x", rows))).toBe("role-not-found");
    for (const role of ["r2", "root", "r1"]) store.grantRole("u", role, rows);
    expect(store.rolesOf("u")).toEqual(["r1", "r2", "root"]);
    const before = store.revision;
    store.grantRole("u", "r1", rows);
    expect(store.revision).toBe(before);
    store.revokeRole("u", "r1", rows);
    expect(refusal(() => store.revokeRole("u", "r1", rows))).toBe("role-not-granted");
    store.deleteRole("r2", rows);
    expect([store.rolesOf("u"), store.userHasRole("u", "r2"), store.userHasRole("x", "r2")]).toEqual([["root"], false, false]);
  });
});

describe("roles", () => {
  it("are added, listed and deleted", () => {
    const { store, rows } = start();
    expect(refusal(() => store.addRole("", rows))).toBe("role-empty");
    store.addRole("b", rows);
    store.addRole("a", rows);
    expect(refusal(() => store.addRole("a", rows))).toBe("role-already-exists");
    expect(store.roleNames()).toEqual(["a", "b"]);
    store.deleteRole("a", rows);
    expect(refusal(() => store.deleteRole("a", rows))).toBe("role-not-found");
    expect(refusal(() => store.permissionsOf("a"))).toBe("role-not-found");
  });

  it("show root's permission as everything, once the role exists", () => {
    const { store, rows } = start();
    expect(refusal(() => store.permissionsOf("root"))).toBe("role-not-found");
    store.addRole("root", rows);
    store.grantPermission(grant("root", "a"), rows);
    expect(store.permissionsOf("root")).toEqual([api.Permission.create({ permType: 2, rangeEnd: Uint8Array.of(0) })]);
  });

  it("refuse permissions that select nothing", () => {
    const { store, rows } = start();
    expect(refusal(() => store.grantPermission(api.AuthRoleGrantPermissionRequest.create({ name: "x" }), rows))).toBe(
      "permission-not-given",
    );
    for (const [key, end] of [
      ["", ""],
      ["", "\0"],
      ["b", "a"],
      ["b", "b"],
      ["\0\0", "\0\0"],
    ] as const)
      expect(refusal(() => store.grantPermission(grant("x", key, end), rows))).toBe("invalid-auth-management");
    expect(refusal(() => store.grantPermission(grant("x", "a"), rows))).toBe("role-not-found");
    store.addRole("x", rows);
    for (const [key, end] of [
      ["\0", "\0"],
      ["b", "b\0"],
      ["b", "\0"],
      ["a", ""],
    ] as const)
      expect(refusal(() => store.grantPermission(grant("x", key, end), rows))).toBe("none");
  });

  it("recognise only the first of several permissions with one key, and revoke all that are equal", () => {
    const { store, rows } = start();
    store.addRole("r", rows);
    for (const end of ["", "c", "b"]) store.grantPermission(grant("r", "a", end), rows);
    for (const end of ["c", "", "b"]) store.grantPermission(grant("r", "a", end, api.PermissionType.WRITE), rows);
    const shown = (): string[] => store.permissionsOf("r").map((one) => `${one.permType}${latin1Text(one.rangeEnd)}`);
    expect(shown()).toEqual(["1", "0c", "0b", "1c", "1b"]);
    const revoke = (end: string) => () =>
      store.revokePermission(
        api.AuthRoleRevokePermissionRequest.create({ role: "r", key: latin1Bytes("a"), rangeEnd: latin1Bytes(end) }),
        rows,
      );
    revoke("c")();
    expect(shown()).toEqual(["1", "0b", "1b"]);
    expect(refusal(revoke("c"))).toBe("permission-not-granted");
    expect(refusal(() => store.revokePermission(api.AuthRoleRevokePermissionRequest.create({ role: "x" }), rows))).toBe("role-not-found");
  });

  it("keep nothing of the request's buffer", () => {
    const { store, rows } = start();
    store.addRole("r", rows);
    const request = grant("r", "abc", "abd");
    store.grantPermission(request, rows);
    request.perm?.key.fill(0);
    request.perm?.rangeEnd.fill(0);
    expect(latin1Text(store.permissionsOf("r")[0]?.key ?? new Uint8Array(0))).toBe("abc");
  });
});

describe("the switch", () => {
  it("needs a root with the role root, and protects both while it is on", () => {
    const { store, rows } = start();
    expect(refusal(() => store.enable(rows))).toBe("root-user-not-exist");
    store.addUser(add("root"), rows);
    expect(refusal(() => store.enable(rows))).toBe("root-role-not-exist");
    store.grantRole("root", "root", rows);
    const before = store.revision;
    expect(store.disable(rows)).toBe(false);
    store.enable(rows);
    store.enable(rows);
    expect([store.enabled, store.revision]).toEqual([true, before]);
    expect(refusal(() => store.deleteUser("root", rows))).toBe("invalid-auth-management");
    expect(refusal(() => store.revokeRole("root", "root", rows))).toBe("invalid-auth-management");
    expect(refusal(() => store.deleteRole("root", rows))).toBe("invalid-auth-management");
    expect([store.disable(rows), store.enabled, store.revision]).toEqual([true, false, before + 1]);
    store.deleteUser("root", rows);
  });

  it("decides who may administer and log in", () => {
    const { store, rows } = withRoot();
    store.addUser(add("u"), rows);
    store.addUser(add("np", { options: { noPassword: true } }), rows);
    expect(["", "x", "u", "root"].map((name) => store.adminRefusal(name)?.reason)).toEqual([
      "user-empty",
      "user-not-found",
      "permission-denied",
      undefined,
    ]);
    expect(["", "x", "np", "u"].map((name) => refusal(() => store.requireLogin(name)))).toEqual([
      "auth-failed",
      "auth-failed",
      "no-password-user",
      "none",
    ]);
    store.disable(rows);
    expect([refusal(() => store.requireAdmin("")), refusal(() => store.requireLogin("u"))]).toEqual(["none", "auth-not-enabled"]);
  });
});

describe("rights", () => {
  const reads = (store: AuthStore, name: string, revision: number, key = "a"): string =>
    refusal(() => store.rightsOf(name, revision).requireRead(latin1Bytes(key), new Uint8Array(0)));

  it("fail in etcd's order: nobody, outdated, unknown, not granted", () => {
    const { store, rows } = withRoot();
    store.addUser(add("u"), rows);
    const now = store.revision;
    expect([reads(store, "u", 0), reads(store, "", 0), reads(store, "u", now - 1), reads(store, "", now), reads(store, "u", now)]).toEqual([
      "user-empty",
      "user-empty",
      "auth-old-revision",
      "permission-denied",
      "permission-denied",
    ]);
    expect([reads(store, "root", now), reads(store, "root", now + 5), reads(store, "root", now - 1)]).toEqual([
      "none",
      "none",
      "auth-old-revision",
    ]);
    store.disable(rows);
    expect(reads(store, "", 0)).toBe("none");
  });

  it("follow every change at once", () => {
    const { store, rows } = withRoot();
    store.addUser(add("u"), rows);
    store.addRole("r", rows);
    store.grantRole("u", "r", rows);
    expect(reads(store, "u", store.revision)).toBe("permission-denied");
    store.grantPermission(grant("r", "a", "b"), rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("none");
    expect(refusal(() => store.rightsOf("u", store.revision).requireWrite(latin1Bytes("aa"), new Uint8Array(0)))).toBe("permission-denied");
    store.grantPermission(grant("r", "a", "b", api.PermissionType.WRITE), rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("permission-denied");
    store.grantPermission(grant("r", "a", "b", 7), rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("permission-denied");
    store.grantPermission(grant("r", "a", "b", api.PermissionType.READWRITE), rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("none");
    store.revokeRole("u", "r", rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("permission-denied");
    store.grantRole("u", "r", rows);
    store.deleteRole("r", rows);
    expect(reads(store, "u", store.revision, "aa")).toBe("permission-denied");
    store.grantRole("u", "root", rows);
    expect(reads(store, "u", store.revision, "zz")).toBe("none");
  });
});

describe("rows", () => {
  it("BA1, BA3: give back all that was written", () => {
    const { store, rows } = withRoot();
    store.addUser(add("ü"), rows);
    store.addUser(add("np", { options: { noPassword: true } }), rows);
    store.addUser(add("gone"), rows);
    store.addRole("r", rows);
    store.addRole("gone", rows);
    for (const end of ["c", "", "b"]) store.grantPermission(grant("r", "a", end, 2), rows);
    store.grantRole("ü", "gone", rows);
    store.grantRole("ü", "r", rows);
    store.deleteRole("gone", rows);
    store.deleteUser("gone", rows);
    const again = AuthStore.open(rows.all());
    const sorted = (list: readonly BackendRow[]): string[] => list.map(([key, value]) => `${latin1Text(key)}=${latin1Text(value)}`).sort();
    expect(sorted(authImageRows(again.image()))).toEqual(sorted(authImageRows(store.image())));
    expect(again.enabled).toBe(true);
    expect(again.revision).toBe(store.revision);
    expect(refusal(() => again.rightsOf("ü", again.revision).requireWrite(latin1Bytes("b"), new Uint8Array(0)))).toBe("none");
    // The rows of an image are the rows that were written, in the form in which etcd keeps users and roles.
    expect(sorted(authImageRows(store.image()))).toEqual(sorted(rows.all()));
    const stored = store.image().users.find((user) => user.name.length === 2 && user.name[0] === 0xc3);
    expect(stored?.options).toEqual({ noPassword: false });
  });

  it("are refused when any byte is not as it was written", () => {
    const { store, rows } = withRoot();
    store.addRole("r", rows);
    store.grantPermission(grant("r", "a", "b"), rows);
    for (const [key, value] of rows.all()) {
      for (let at = 0; at < key.length + value.length; at++) {
        const badKey = key.slice();
        const badValue = value.slice();
        if (at < key.length) badKey[at] = (badKey[at] as number) ^ 1;
        else badValue[at - key.length] = (badValue[at - key.length] as number) ^ 0x80;
        expect(() => readAuthRows([[badKey, badValue]])).toThrow(CorruptAuthRowError);
      }
      expect(() => readAuthRows([[key, value.subarray(0, value.length - 1)]])).toThrow(CorruptAuthRowError);
      expect(() => readAuthRows([[key, new Uint8Array(0)]])).toThrow(CorruptAuthRowError);
      expect(readAuthRows([[key, value]])).toBeDefined();
    }
  });
});
