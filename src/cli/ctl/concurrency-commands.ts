/** lock and elect, by the server's own lock and election services; the session is a lease kept alive here. */
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import type { Client } from "./client.ts";
import { badArguments, type Call, type Ctl, Status, withClient } from "./context.ts";
import { GrpcError } from "./grpc-error.ts";
import { keyOf } from "./key-ranges.ts";
import { showRange } from "./kv-answers.ts";
import { keepAlive } from "./lease-keeper.ts";

const ELECTION_TTL_SECONDS = 60;
/** For giving back what is held, when the end has come. */
const RELEASE_MS = 5000;

/** A lease that lives as long as this object is open and its server can be reached. */
class Session {
  readonly id: bigint;
  /** Resolves when the lease is lost. */
  readonly expired: Promise<"expired">;
  readonly #client: Client;
  readonly #abort = new AbortController();

  private constructor(client: Client, id: bigint) {
    this.#client = client;
    this.id = id;
    this.expired = this.#keep();
  }

  static async open(client: Client, ttlSeconds: number): Promise<Session> {
    const { id } = await client.call(api.LeaseService.leaseGrant, api.LeaseGrantRequest.create({ ttl: ttlSeconds }));
    return new Session(client, id);
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#client
      .call(api.LeaseService.leaseRevoke, api.LeaseRevokeRequest.create({ id: this.id }), { timeoutMs: RELEASE_MS })
      .catch(ignoreRpc);
  }

  async #keep(): Promise<"expired"> {
    try {
      for await (const response of keepAlive(this.#client, this.id, this.#abort.signal)) {
        if (response.ttl <= 0) break;
      }
    } catch (error) {
      if (!(error instanceof GrpcError)) throw error;
    }
    // Not lost but given back: nobody waits for it any more.
    if (this.#abort.signal.aborted) return new Promise(() => undefined);
    return "expired";
  }
}

/** What is given back ends with its lease at the latest. */
function ignoreRpc(error: unknown): void {
  if (!(error instanceof GrpcError)) throw error;
}

/** A promise of the first SIGINT or SIGTERM, and how to stop listening. */
function stopped(face: ToolFace): { signal: Promise<"signal">; off: () => void } {
  let off = (): void => undefined;
  const signal = new Promise<"signal">((resolve) => {
    off = face.onSignal(() => resolve("signal"));
  });
  return { signal, off };
}

/** `work`, given up at a signal from outside. @throws ExitError then */
async function untilStopped<T>(stop: Promise<"signal">, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  void stop.then(() => abort.abort());
  try {
    return await work(abort.signal);
  } catch (error) {
    if (abort.signal.aborted) throw new ExitError(Status.error, "context canceled");
    throw error;
  }
}

async function showOwn(client: Client, { printer, timeoutMs }: Ctl, key: Uint8Array, lost: string): Promise<api.KeyValue> {
  const response = await client.call(api.KvService.range, api.RangeRequest.create({ key }), { timeoutMs });
  const [own] = response.kvs;
  if (own === undefined) throw new ExitError(Status.error, lost);
  showRange(printer, response);
  return own;
}

export const lock: Command<ToolFace> = {
  use: "lock <lockname> [exec-command arg1 arg2 ...]",
  short: "Acquires a named lock",
  flags: [{ name: "ttl", kind: "int", default: 10, help: "timeout for session" }],
  run: async (call) => {
    const [name, ...program] = call.args;
    if (name === undefined) throw badArguments("lock takes a lock name argument and an optional command to execute");
    await withClient(call, (client, ctl) => holdLock(client, ctl, name, program, call));
  },
};

async function holdLock(client: Client, ctl: Ctl, name: string, program: readonly string[], call: Call): Promise<void> {
  const { face } = ctl;
  const stop = stopped(face);
  const session = await Session.open(client, Number(call.flags.integer("ttl")));
  try {
    const request = api.LockRequest.create({ name: keyOf(name), lease: session.id });
    const { key, header } = await untilStopped(stop.signal, (signal) => client.call(api.LockService.lock, request, { signal }));
    try {
      if (program.length > 0) {
        const status = await face.runProgram(program, {
          ETCD_LOCK_KEY: Buffer.from(key).toString("utf8"),
          ETCD_LOCK_REV: String(header?.revision ?? 0),
        });
        if (status !== 0) throw new ExitError(status, `exit status ${status}`);
        return;
      }
      await showOwn(client, ctl, key, "lock lost on init");
      if ((await Promise.race([stop.signal, session.expired])) === "expired") throw new ExitError(Status.error, "session expired");
    } finally {
      await client.call(api.LockService.unlock, api.UnlockRequest.create({ key }), { timeoutMs: RELEASE_MS }).catch(ignoreRpc);
    }
  } finally {
    stop.off();
    await session.close();
  }
}

export const elect: Command<ToolFace> = {
  use: "elect <election-name> [proposal]",
  short: "Observes and participates in leader election",
  flags: [{ name: "listen", short: "l", kind: "bool", help: "observation mode" }],
  run: async (call) => {
    const [name, proposal] = call.args;
    const listen = call.flags.bool("listen");
    if (name === undefined || call.args.length > 2)
      throw badArguments("elect takes one election name argument and an optional proposal argument");
    if (listen) {
      if (proposal !== undefined) throw badArguments("proposal given but -l is set");
      await withClient(call, (client, ctl) => observe(client, ctl, name));
      return;
    }
    if (proposal === undefined) throw badArguments("no proposal argument but -l not set");
    await withClient(call, (client, ctl) => campaign(client, ctl, name, proposal));
  },
};

async function observe(client: Client, { printer, face }: Ctl, name: string): Promise<void> {
  const stop = stopped(face);
  const abort = new AbortController();
  void stop.signal.then(() => abort.abort());
  try {
    for await (const { header, kv } of client.stream(api.ElectionService.observe, api.LeaderRequest.create({ name: keyOf(name) }), {
      signal: abort.signal,
    })) {
      if (kv !== undefined) showRange(printer, api.RangeResponse.create({ header, kvs: [kv] }));
    }
  } catch (error) {
    if (abort.signal.aborted) return;
    if (!(error instanceof GrpcError) || error.code === GrpcCode.PermissionDenied) throw error;
  } finally {
    stop.off();
  }
  if (!abort.signal.aborted) throw new ExitError(Status.error, "elect: observer lost");
}

async function campaign(client: Client, ctl: Ctl, name: string, proposal: string): Promise<void> {
  const stop = stopped(ctl.face);
  const session = await Session.open(client, ELECTION_TTL_SECONDS);
  try {
    const request = api.CampaignRequest.create({ name: keyOf(name), lease: session.id, value: keyOf(proposal) });
    const { leader } = await untilStopped(stop.signal, (signal) => client.call(api.ElectionService.campaign, request, { signal }));
    if (leader === undefined) throw new ExitError(Status.error, "no leader elected");
    await showOwn(client, ctl, leader.key, "no leader elected");
    if ((await Promise.race([stop.signal, session.expired])) === "expired") throw new ExitError(Status.error, "elect: session expired");
    await client.call(api.ElectionService.resign, api.ResignRequest.create({ leader }), { timeoutMs: RELEASE_MS }).catch(ignoreRpc);
  } finally {
    stop.off();
    await session.close();
  }
}
