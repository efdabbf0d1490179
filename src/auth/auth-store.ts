/**
 * Users, roles, their permissions and the switch: replicated state, changed by applied entries only and equal on every member. Rules of api-semantics.md
 * section 16. Tokens are not in here: they are each member's own (simple-tokens.ts, jwt-tokens.ts).
 */
import {
  type AuthRoleGrantPermissionRequest,
  type AuthRoleRevokePermissionRequest,
  type AuthUserAddRequest,
  Permission,
  PermissionType,
  Role,
  type RpcError,
  rpcError,
  User,
  UserAddOptions,
} from "../api/index.ts";
import type { BackendBatch, BackendRow } from "../backend/backend.ts";
import { base64BytesLenient, compareBytes, copyBytes, EMPTY_BYTES, equalBytes, keyStringOf, utf8Bytes, utf8Text } from "../base/bytes.ts";
import type { Revision } from "../base/ids.ts";
import { type AuthImage, FIRST_AUTH_REVISION, readAuthRows, roleRow, roleRowKey, switchRow, userRow, userRowKey } from "./auth-rows.ts";
import { type KeyInterval, pointInterval } from "./key-intervals.ts";
import { endOf, Rights } from "./rights.ts";

/** The user without whom authentication cannot be on, and the role that may do everything. */
export const ROOT = "root";

/** Who asks, and the auth revision at which that was established. */
export interface Identity {
  readonly username: string;
  /** 0 stands for nobody, also with a name. */
  readonly revision: Revision;
}

/** What is known about how a user logs in. */
export interface PasswordRecord {
  /** bcrypt's text; empty when no password fits. */
  readonly hash: string;
  /** The user can only come with a certificate. */
  readonly noPassword: boolean;
}

interface UserEntry {
  readonly name: string;
  /** bcrypt's text as bytes. */
  password: Uint8Array;
  readonly noPassword: boolean;
  /** In byte order; roles that were deleted are gone from here, but `root` need not exist as a role. */
  roles: readonly string[];
  /** Made when first asked for, forgotten with every change. */
  rights: Rights | undefined;
}

interface RoleEntry {
  readonly name: string;
  /** Ordered by key; several with the same key in the order in which they were granted. */
  permissions: readonly Permission[];
}

const ANONYMOUS = Rights.nothing("user-empty");
const OUTDATED = Rights.nothing("auth-old-revision");
const UNKNOWN_USER = Rights.nothing("permission-denied");

/** What etcd shows for the role root, whatever was granted to it. */
const ROOT_PERMISSION = Permission.create({ permType: PermissionType.READWRITE, rangeEnd: Uint8Array.of(0) });

export class AuthStore {
  #enabled = false;
  #revision: Revision = FIRST_AUTH_REVISION;
  readonly #users = new Map<string, UserEntry>();
  readonly #roles = new Map<string, RoleEntry>();

  /** Takes over what was stored. @throws CorruptAuthRowError */
  static open(rows: Iterable<BackendRow>): AuthStore {
    const store = new AuthStore();
    const image = readAuthRows(rows);
    store.#enabled = image.enabled;
    store.#revision = image.revision;
    for (const user of image.users) {
      const name = utf8Text(user.name);
      const noPassword = user.options?.noPassword === true;
      store.#users.set(name, { name, password: user.password, noPassword, roles: [...user.roles].sort(byBytes), rights: undefined });
    }
    for (const role of image.roles) {
      const name = utf8Text(role.name);
      const permissions = role.keyPermission.map(ownPermission).sort(byKey);
      store.#roles.set(name, { name, permissions });
    }
    return store;
  }

  get enabled(): boolean {
    return this.#enabled;
  }

  /** Counts changes; 1 when there were none. Turning authentication on is none. */
  get revision(): Revision {
    return this.#revision;
  }

  get userCount(): number {
    return this.#users.size;
  }

  // -- who may do what -------------------------------------------------------------------------------------------------------------------

  /**
   * What the named user may do with keys, if their identity was established at `revision`. Never throws: the result's checks do, so that a request that
   * touches no key needs no identity.
   */
  rightsOf(username: string, revision: Revision): Rights {
    if (!this.#enabled) return Rights.everything;
    if (revision === 0) return ANONYMOUS;
    if (revision < this.#revision) return OUTDATED;
    const user = this.#users.get(username);
    if (user === undefined) return UNKNOWN_USER;
    user.rights ??= this.#rightsOfRoles(user.roles);
    return user.rights;
  }

  /**
   * The same for calls about leases: there root is known by the name alone, so an outdated token will do. (In etcd the check for root comes first there, and does
   * not look at the revision.)
   */
  leaseRightsOf(username: string, revision: Revision): Rights {
    return this.adminRefusal(username) === undefined ? Rights.everything : this.rightsOf(username, revision);
  }

  #rightsOfRoles(roles: readonly string[]): Rights {
    if (roles.includes(ROOT)) return Rights.everything;
    const read: KeyInterval[] = [];
    const write: KeyInterval[] = [];
    for (const name of roles) {
      for (const { permType, key, rangeEnd } of this.#roles.get(name)?.permissions ?? []) {
        const start = keyStringOf(key);
        const interval = rangeEnd.length === 0 ? pointInterval(start) : { start, end: endOf(rangeEnd) };
        // Types with unknown numbers are kept, but allow nothing.
        if (permType === PermissionType.READ || permType === PermissionType.READWRITE) read.push(interval);
        if (permType === PermissionType.WRITE || permType === PermissionType.READWRITE) write.push(interval);
      }
    }
    return Rights.of(read, write);
  }

  /** Why this user may not administer: user-empty, user-not-found, permission-denied; undefined when they may, or when authentication is off. */
  adminRefusal(username: string): RpcError | undefined {
    if (!this.#enabled) return undefined;
    if (username === "") return rpcError("user-empty");
    const user = this.#users.get(username);
    if (user === undefined) return rpcError("user-not-found");
    return user.roles.includes(ROOT) ? undefined : rpcError("permission-denied");
  }

  /** @throws RpcError as {@link adminRefusal} gives it. */
  requireAdmin(username: string): void {
    const refusal = this.adminRefusal(username);
    if (refusal !== undefined) throw refusal;
  }

  /** How the user logs in; undefined when there is no such user. */
  passwordOf(username: string): PasswordRecord | undefined {
    const user = this.#users.get(username);
    return user === undefined ? undefined : { hash: utf8Text(user.password), noPassword: user.noPassword };
  }

  /** @throws auth-not-enabled, auth-failed, no-password-user: why the user cannot get a token now, whatever the password. */
  requireLogin(username: string): void {
    if (!this.#enabled) throw rpcError("auth-not-enabled");
    const user = this.#users.get(username);
    if (user === undefined) throw rpcError("auth-failed");
    if (user.noPassword) throw rpcError("no-password-user");
  }

  userHasRole(username: string, role: string): boolean {
    return this.#users.get(username)?.roles.includes(role) === true;
  }

  // -- the switch ------------------------------------------------------------------------------------------------------------------------

  /** Does nothing when it is on. @throws root-user-not-exist, root-role-not-exist */
  enable(batch: BackendBatch): void {
    if (this.#enabled) return;
    const root = this.#users.get(ROOT);
    if (root === undefined) throw rpcError("root-user-not-exist");
    if (!root.roles.includes(ROOT)) throw rpcError("root-role-not-exist");
    this.#enabled = true;
    put(batch, switchRow(this));
  }

  /** False when it was off already. */
  disable(batch: BackendBatch): boolean {
    if (!this.#enabled) return false;
    this.#enabled = false;
    this.#changed(batch);
    return true;
  }

  // -- users -----------------------------------------------------------------------------------------------------------------------------

  /** The password comes hashed; one in clear is never looked at. @throws user-empty, user-already-exists, no-password-user for an unreadable hash */
  addUser(request: AuthUserAddRequest, batch: BackendBatch): void {
    const { name } = request;
    if (name === "") throw rpcError("user-empty");
    if (this.#users.has(name)) throw rpcError("user-already-exists");
    const noPassword = request.options?.noPassword === true;
    const password = noPassword ? EMPTY_BYTES : hashBytes(request.hashedPassword);
    this.#putUser({ name, password, noPassword, roles: [], rights: undefined }, batch);
    this.#changed(batch);
  }

  /** @throws invalid-auth-management, user-not-found */
  deleteUser(name: string, batch: BackendBatch): void {
    if (this.#enabled && name === ROOT) throw rpcError("invalid-auth-management");
    this.#user(name);
    this.#users.delete(name);
    batch.delete(userRowKey(name));
    this.#changed(batch);
  }

  /** Without effect for users without password, but it counts as a change. @throws user-not-found, no-password-user for an unreadable hash */
  changePassword(name: string, hashedPassword: string, batch: BackendBatch): void {
    const user = this.#user(name);
    if (!user.noPassword) user.password = hashBytes(hashedPassword);
    this.#putUser(user, batch);
    this.#changed(batch);
  }

  /** Granting again changes nothing. @throws user-not-found, role-not-found */
  grantRole(name: string, role: string, batch: BackendBatch): void {
    const user = this.#user(name);
    // The role root means something without existing.
    if (role !== ROOT && !this.#roles.has(role)) throw rpcError("role-not-found");
    if (user.roles.includes(role)) return;
    user.roles = [...user.roles, role].sort(byBytes);
    this.#putUser(user, batch);
    this.#changed(batch);
  }

  /** @throws invalid-auth-management, user-not-found, role-not-granted */
  revokeRole(name: string, role: string, batch: BackendBatch): void {
    if (this.#enabled && name === ROOT && role === ROOT) throw rpcError("invalid-auth-management");
    const user = this.#user(name);
    if (!user.roles.includes(role)) throw rpcError("role-not-granted");
    user.roles = user.roles.filter((one) => one !== role);
    this.#putUser(user, batch);
    this.#changed(batch);
  }

  /** The user's roles, in byte order. @throws user-not-found */
  rolesOf(name: string): string[] {
    return [...this.#user(name).roles];
  }

  /** In byte order. */
  userNames(): string[] {
    return [...this.#users.keys()].sort(byBytes);
  }

  // -- roles -----------------------------------------------------------------------------------------------------------------------------

  /** @throws role-empty, role-already-exists */
  addRole(name: string, batch: BackendBatch): void {
    if (name === "") throw rpcError("role-empty");
    if (this.#roles.has(name)) throw rpcError("role-already-exists");
    this.#putRole({ name, permissions: [] }, batch);
    this.#changed(batch);
  }

  /** Takes it from all users, too. @throws invalid-auth-management, role-not-found */
  deleteRole(name: string, batch: BackendBatch): void {
    if (this.#enabled && name === ROOT) throw rpcError("invalid-auth-management");
    this.#role(name);
    this.#roles.delete(name);
    batch.delete(roleRowKey(name));
    for (const user of this.#users.values()) {
      if (!user.roles.includes(name)) continue;
      user.roles = user.roles.filter((one) => one !== name);
      this.#putUser(user, batch);
    }
    this.#changed(batch);
  }

  /** @throws permission-not-given, invalid-auth-management, role-not-found */
  grantPermission(request: AuthRoleGrantPermissionRequest, batch: BackendBatch): void {
    const { perm } = request;
    if (perm === undefined) throw rpcError("permission-not-given");
    if (!isGrantable(perm)) throw rpcError("invalid-auth-management");
    const role = this.#role(request.name);
    const granted = ownPermission(perm);
    const { permissions } = role;
    // Only the first of several with the same key is compared: etcd does the same, and what is stored has to be equal.
    const at = permissions.findIndex(({ key }) => compareBytes(key, granted.key) >= 0);
    const found = permissions[at];
    if (found !== undefined && equalBytes(found.key, granted.key) && equalBytes(found.rangeEnd, granted.rangeEnd)) {
      role.permissions = permissions.with(at, granted);
    } else {
      role.permissions = [...permissions, granted].sort(byKey);
    }
    this.#putRole(role, batch);
    this.#changed(batch);
  }

  /** @throws role-not-found, permission-not-granted */
  revokePermission(request: AuthRoleRevokePermissionRequest, batch: BackendBatch): void {
    const role = this.#role(request.role);
    const rest = role.permissions.filter(({ key, rangeEnd }) => !equalBytes(key, request.key) || !equalBytes(rangeEnd, request.rangeEnd));
    if (rest.length === role.permissions.length) throw rpcError("permission-not-granted");
    role.permissions = rest;
    this.#putRole(role, batch);
    this.#changed(batch);
  }

  /** What was granted to the role, ordered by key. @throws role-not-found */
  permissionsOf(name: string): Permission[] {
    const { permissions } = this.#role(name);
    return name === ROOT ? [ROOT_PERMISSION] : [...permissions];
  }

  /** In byte order. */
  roleNames(): string[] {
    return [...this.#roles.keys()].sort(byBytes);
  }

  // -- inside ----------------------------------------------------------------------------------------------------------------------------

  /** All that is stored, in byte order of the names; for comparing members and for backups. */
  image(): AuthImage {
    const users = this.userNames().map((name) => userMessage(this.#user(name)));
    const roles = this.roleNames().map((name) => roleMessage(this.#role(name)));
    return { enabled: this.#enabled, revision: this.#revision, users, roles };
  }

  #user(name: string): UserEntry {
    const user = this.#users.get(name);
    if (user === undefined) throw rpcError("user-not-found");
    return user;
  }

  #role(name: string): RoleEntry {
    const role = this.#roles.get(name);
    if (role === undefined) throw rpcError("role-not-found");
    return role;
  }

  #putUser(user: UserEntry, batch: BackendBatch): void {
    this.#users.set(user.name, user);
    put(batch, userRow(userMessage(user)));
  }

  #putRole(role: RoleEntry, batch: BackendBatch): void {
    this.#roles.set(role.name, role);
    put(batch, roleRow(roleMessage(role)));
  }

  /** Every change ends with this: it counts, and nothing that was worked out before is valid. */
  #changed(batch: BackendBatch): void {
    this.#revision += 1;
    put(batch, switchRow(this));
    for (const user of this.#users.values()) user.rights = undefined;
  }
}

function put(batch: BackendBatch, [key, value]: BackendRow): void {
  batch.put(key, value);
}

function userMessage({ name, password, roles, noPassword }: UserEntry): User {
  return User.create({ name: utf8Bytes(name), password, roles: [...roles], options: UserAddOptions.create({ noPassword }) });
}

function roleMessage({ name, permissions }: RoleEntry): Role {
  return Role.create({ name: utf8Bytes(name), keyPermission: [...permissions] });
}

/** Requests are views of buffers that are used again. */
function ownPermission({ permType, key, rangeEnd }: Permission): Permission {
  return Permission.create({ permType, key: copyBytes(key), rangeEnd: copyBytes(rangeEnd) });
}

function isGrantable({ key, rangeEnd }: Permission): boolean {
  if (key.length === 0) return false;
  return rangeEnd.length === 0 || (rangeEnd.length === 1 && rangeEnd[0] === 0) || compareBytes(key, rangeEnd) < 0;
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The replicated form is base64 of bcrypt's text. Line breaks are skipped, as Go's decoder does. */
function hashBytes(hashedPassword: string): Uint8Array {
  const text = hashedPassword.replace(/[\r\n]/g, "");
  if (!BASE64.test(text)) throw rpcError("no-password-user");
  return copyBytes(base64BytesLenient(text));
}

function byKey(a: Permission, b: Permission): number {
  return compareBytes(a.key, b.key);
}

function byBytes(a: string, b: string): number {
  return compareBytes(utf8Bytes(a), utf8Bytes(b));
}
