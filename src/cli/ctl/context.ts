/** What every command of the client tool works with: the global flags, the way to the servers, and how to show answers. */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { ExitError, type Invocation } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import type { FlagSet, FlagSpec } from "../cobra/flags.ts";
import { Client } from "./client.ts";
import type { TlsFiles } from "./connection.ts";
import type { Credentials } from "./credentials.ts";
import { discoverEndpoints } from "./discovery.ts";
import { GrpcError } from "./grpc-error.ts";
import { isFormat, type Printer, printerOf } from "./printer.ts";

/** Exit statuses, which scripts look at. */
export const Status = {
  error: 1,
  badConnection: 2,
  invalidInput: 3,
  badFeature: 4,
  interrupted: 5,
  io: 6,
  badArguments: 128,
} as const;

export type Call = Invocation<ToolFace>;

export const GLOBAL_FLAGS: readonly FlagSpec[] = [
  { name: "endpoints", kind: "strings", default: ["127.0.0.1:2379"], help: "servers to talk to" },
  { name: "debug", kind: "bool", help: "log what the client does" },
  {
    name: "write-out",
    short: "w",
    kind: "string",
    default: "simple",
    help: "set the output format (fields, json, protobuf, simple, table)",
  },
  { name: "hex", kind: "bool", help: "print keys and values, or ids, in hexadecimal" },
  { name: "dial-timeout", kind: "duration", default: "2s", help: "how long authentication at the start may take" },
  { name: "command-timeout", kind: "duration", default: "5s", help: "how long a command may take that does not wait by its nature" },
  { name: "keepalive-time", kind: "duration", default: "2s", help: "silence after which a server is asked for a sign of life" },
  { name: "keepalive-timeout", kind: "duration", default: "6s", help: "how long that sign may take" },
  { name: "max-request-bytes", kind: "int", help: "limit of a request in bytes (0 means 2 MiB)" },
  { name: "max-recv-bytes", kind: "int", help: "limit of an answer in bytes (0 means 2 GiB)" },
  { name: "insecure-transport", kind: "bool", default: true, help: "do without TLS where the endpoint does not ask for it" },
  { name: "insecure-discovery", kind: "bool", default: true, help: "accept SRV records of endpoints without TLS" },
  { name: "insecure-skip-tls-verify", kind: "bool", help: "do not verify the server's certificate (for tests only)" },
  { name: "cert", kind: "string", help: "the client's TLS certificate (file)" },
  { name: "key", kind: "string", help: "the client's TLS key (file)" },
  { name: "cacert", kind: "string", help: "certificates of authorities to verify servers with (file)" },
  { name: "auth-jwt-token", kind: "string", help: "a token to authenticate with, instead of --user and --password" },
  { name: "user", kind: "string", help: "username[:password] to authenticate with (asks for a password that is missing)" },
  { name: "password", kind: "string", help: "the password, when --user does not have it" },
  { name: "discovery-srv", short: "d", kind: "string", help: "domain whose SRV records name the endpoints" },
  { name: "discovery-srv-name", kind: "string", help: "service name to ask for there" },
];

const VARIABLE_PREFIX = "ETCDCTL_";
/** Variables that a command reads for itself. */
const OTHER_VARIABLES = new Set(["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"]);

export function variableOf(flag: string): string {
  return `${VARIABLE_PREFIX}${flag.toUpperCase().replaceAll("-", "_")}`;
}

/** A line in the form of the logs of etcd's client. */
export function logLine(
  face: ToolFace,
  level: "info" | "warn" | "fatal",
  message: string,
  fields: Readonly<Record<string, unknown>> = {},
): void {
  face.stderr(`${JSON.stringify({ level, ts: new Date().toISOString(), logger: "etcd-client", msg: message, ...fields })}\n`);
}

/** Takes over the variables. Both, flag and variable, are refused. */
function readVariables(face: ToolFace, flags: FlagSet): void {
  const known = new Set(OTHER_VARIABLES);
  for (const { name } of GLOBAL_FLAGS) {
    const variable = variableOf(name);
    known.add(variable);
    const value = face.environment[variable];
    if (value === undefined || value === "") continue;
    if (flags.has(name)) {
      const text =
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
      logLine(face, "fatal", text, { "environment-variable": variable });
      throw new ExitError(Status.error);
    }
    try {
      flags.set(name, value);
    } catch (error) {
      logLine(face, "warn", "ignored an environment variable that cannot be read", {
        "environment-variable": variable,
        error: String(error),
      });
    }
  }
  for (const [name, value] of Object.entries(face.environment)) {
    if (name.startsWith(VARIABLE_PREFIX) && !known.has(name))
      logLine(face, "warn", "unrecognized environment variable", { "environment-variable": `${name}=${value}` });
  }
}

/** Everything that talks to servers goes through here, after a command's own arguments were checked. */
export class Ctl {
  readonly face: ToolFace;
  readonly flags: FlagSet;
  readonly printer: Printer;
  readonly #clients = new Set<Client>();

  /** @throws ExitError when variables or the output format make no sense */
  constructor(call: Call) {
    this.face = call.context;
    this.flags = call.flags;
    readVariables(this.face, this.flags);
    const format = this.flags.string("write-out");
    if (!isFormat(format)) throw new ExitError(Status.badFeature, "unsupported output format");
    this.printer = printerOf(format, this.flags.bool("hex"), this.face);
  }

  get timeoutMs(): number {
    return this.flags.durationMs("command-timeout");
  }

  /** The endpoints to use. @throws ExitError when discovery fails */
  endpoints(): Promise<readonly string[]> {
    const domain = this.flags.string("discovery-srv");
    if (domain === "") return Promise.resolve(this.flags.strings("endpoints"));
    return discoverEndpoints(domain, this.flags.string("discovery-srv-name"), { insecure: this.flags.bool("insecure-discovery") });
  }

  /** A client that has authenticated, if that was asked for. @throws ExitError when that is not possible */
  async connect(endpoints?: readonly string[], overrides: ConnectOverrides = {}): Promise<Client> {
    const { flags, face } = this;
    const chosen = endpoints ?? (await this.endpoints());
    if (chosen.length === 0) throw new ExitError(Status.badConnection, "etcdclient: no available endpoints");
    const credentials = overrides.credentials ?? (await this.#credentials());
    const files = overrides.tls ?? {
      cert: flags.string("cert"),
      key: flags.string("key"),
      ca: flags.string("cacert"),
      insecure: flags.bool("insecure-transport"),
    };
    const tls = readTls(files, flags.bool("insecure-skip-tls-verify"));
    const client = new Client(
      {
        endpoints: chosen,
        ...tls,
        keepaliveMs: flags.durationMs("keepalive-time"),
        keepaliveTimeoutMs: flags.durationMs("keepalive-timeout"),
        connectTimeoutMs: 20_000,
        maxSendBytes: Number(flags.integer("max-request-bytes")) || 2 * 1024 * 1024,
        maxRecvBytes: Number(flags.integer("max-recv-bytes")) || 2 ** 31 - 1,
      },
      credentials,
      (message, fields) => logLine(face, "warn", message, fields),
    );
    this.#clients.add(client);
    try {
      await client.authenticate(flags.durationMs("dial-timeout"));
    } catch (error) {
      this.close();
      if (error instanceof GrpcError) throw new ExitError(Status.badConnection, error.message);
      throw error;
    }
    return client;
  }

  close(): void {
    for (const client of this.#clients) client.close();
    this.#clients.clear();
  }

  async #credentials(): Promise<Credentials | undefined> {
    const token = this.flags.string("auth-jwt-token");
    const user = this.flags.string("user");
    if (token !== "") {
      if (user !== "") throw new ExitError(Status.badArguments, "--auth-jwt-token and --user cannot be set at the same time, choose one");
      return { token };
    }
    return user === "" ? undefined : userCredentials(this.face, user, this.flags.string("password"));
  }
}

export interface ConnectOverrides {
  readonly tls?: TlsPaths | undefined;
  readonly credentials?: Credentials | undefined;
}

export interface TlsPaths {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
  readonly insecure: boolean;
}

/** `name`, `name:password`, or a name with the password apart; asks for a password that is nowhere. */
export async function userCredentials(face: ToolFace, user: string, password: string): Promise<Credentials> {
  const colon = user.indexOf(":");
  if (password !== "") return { user, password };
  if (colon >= 0) return { user: user.slice(0, colon), password: user.slice(colon + 1) };
  return { user, password: await face.stdin.readSecret("Password: ") };
}

function readTls(files: TlsPaths, skipVerify: boolean): { tls: TlsFiles | undefined; secureTls: TlsFiles } {
  const { cert, key, ca, insecure } = files;
  if ((cert === "") !== (key === "")) {
    throw new ExitError(Status.badArguments, `KeyFile and CertFile must both be present[key: ${key}, cert: ${cert}]`);
  }
  const read = (path: string): Buffer | undefined => (path === "" ? undefined : readFile(path));
  const tls: TlsFiles = { cert: read(cert), key: read(key), ca: read(ca), skipVerify };
  checkTls(tls);
  const wanted = cert !== "" || ca !== "" || !insecure;
  return { tls: wanted ? tls : undefined, secureTls: tls };
}

/** What can be told before anybody is dialled: files that are no certificates, or do not belong together. @throws ExitError */
function checkTls({ ca, cert, key }: TlsFiles): void {
  try {
    // OpenSSL passes over what it cannot read there.
    if (ca?.includes("-----BEGIN") === true) new X509Certificate(ca);
    if (cert !== undefined && key !== undefined) createSecureContext({ cert, key });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const mismatch = code === "ERR_OSSL_X509_KEY_VALUES_MISMATCH";
    throw new ExitError(Status.badArguments, mismatch ? "tls: private key does not match public key" : `x509: ${message}`);
  }
}

function readFile(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new ExitError(Status.badArguments, missing ? `open ${path}: no such file or directory` : (error as Error).message);
  }
}

/** Runs a command that talks to servers; what fails on the way becomes its status. */
export async function withCtl(call: Call, work: (ctl: Ctl) => Promise<void>): Promise<void> {
  const ctl = new Ctl(call);
  try {
    await work(ctl);
  } catch (error) {
    throw error instanceof GrpcError ? new ExitError(Status.error, error.message) : error;
  } finally {
    ctl.close();
  }
}

/** The same with a client of all endpoints. */
export function withClient(call: Call, work: (client: Client, ctl: Ctl) => Promise<void>): Promise<void> {
  return withCtl(call, async (ctl) => work(await ctl.connect(), ctl));
}

export function badArguments(message: string): ExitError {
  return new ExitError(Status.badArguments, message);
}
