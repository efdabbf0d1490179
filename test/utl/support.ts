/** Backups of members in this process, and members made of backups. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as api from "../../src/api/index.ts";
import { LevelBackend } from "../../src/backend/index.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { systemDisk } from "../../src/base/disk-system.ts";
import { silentLogger } from "../../src/base/logger.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";
import type { BoltSource } from "../../src/server/backup/bolt-reader.ts";
import { MemoryNetwork } from "../../src/server/peer/index.ts";
import { type Restored, type RestoreOptions, restoreBackup } from "../../src/server/restore.ts";
import type { CallContext } from "../../src/server/services/services.contract.ts";

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

export function sourceOf(bytes: Uint8Array): BoltSource {
  return { sizeBytes: bytes.byteLength, read: async (at, length) => Uint8Array.prototype.slice.call(bytes, at, at + length) };
}

/** What a client of `Maintenance.Snapshot` would write to its file. */
export async function backupOf(member: EtcdServer, caller: CallContext = {}): Promise<Uint8Array> {
  const blobs: Uint8Array[] = [];
  let before = Number.POSITIVE_INFINITY;
  for await (const { blob, remainingBytes } of member.services.maintenance.snapshot(api.SnapshotRequest.create(), caller)) {
    expectAtMost(blob.byteLength, 32_768);
    expectAtMost(remainingBytes, before);
    before = remainingBytes;
    blobs.push(blob.slice());
  }
  expectAtMost(before, 0);
  return new Uint8Array(Buffer.concat(blobs));
}

function expectAtMost(value: number, limit: number): void {
  if (value > limit) throw new Error(`${value} is more than ${limit}`);
}

/** Directories and members of one test. */
export class Bench {
  readonly directory: string;
  readonly #members: EtcdServer[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async make(): Promise<Bench> {
    return new Bench(await mkdtemp(join(tmpdir(), "holdfast-utl-")));
  }

  /** Starts a cluster of these members, each in `<label>-<name>`, which may be there already. Resolves when all are ready. */
  async start(label: string, names: readonly string[], token = "token"): Promise<EtcdServer[]> {
    const network = new MemoryNetwork({ clock: systemClock() });
    const members = await Promise.all(
      names.map((name) =>
        startEtcd({
          name,
          dataDir: this.dataDirectory(label, name),
          listenClientUrls: [],
          listenPeerUrls: [],
          advertiseClientUrls: `http://${name}.test:2379`,
          initialAdvertisePeerUrls: urlOf(name),
          initialCluster: names.map((one) => `${one}=${urlOf(one)}`).join(","),
          initialClusterToken: token,
          heartbeatInterval: 20,
          electionTimeout: 200,
          logger: silentLogger,
          transport: network.transport(),
        }),
      ),
    );
    this.#members.push(...members);
    await Promise.all(members.map((member) => member.ready));
    return members;
  }

  dataDirectory(label: string, name: string): string {
    return join(this.directory, `${label}-${name}`);
  }

  restore(
    label: string,
    name: string,
    names: readonly string[],
    backup: Uint8Array,
    more: Partial<RestoreOptions> = {},
  ): Promise<Restored> {
    const dataDirectory = this.dataDirectory(label, name);
    return restoreBackup({
      source: sourceOf(backup),
      name,
      dataDirectory,
      walDirectory: join(dataDirectory, "member/wal"),
      initialCluster: names.map((one) => ({ name: one, urls: [urlOf(one)] })),
      initialClusterToken: "token",
      initialAdvertisePeerUrls: [urlOf(name)],
      skipHashCheck: false,
      bumpRevision: 0,
      markCompacted: false,
      disk: systemDisk(),
      clock: systemClock(),
      logger: silentLogger,
      openBackend: (directory) => LevelBackend.open({ directory }),
      defer: setImmediate,
      ...more,
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#members.splice(0).map((member) => member.close()));
    await rm(this.directory, { recursive: true, force: true });
  }
}

function urlOf(name: string): string {
  return `http://${name}.test:2380`;
}

/** Everything that clients can see of the keys, oldest revisions included. */
export async function contentOf(member: EtcdServer): Promise<unknown> {
  const { services } = member;
  const answer = await services.kv.range(api.RangeRequest.create({ key: new Uint8Array(1), rangeEnd: new Uint8Array(1) }), {});
  // As it goes over the wire: in process pairs may come packed.
  const all = api.RangeResponse.decode(api.RangeResponse.encode(answer));
  const hash = await services.maintenance.hashKv(api.HashKVRequest.create(), {});
  const leases = await services.lease.leaseLeases(api.LeaseLeasesRequest.create(), {});
  const alarms = await services.maintenance.alarm(api.AlarmRequest.create(), {});
  return {
    revision: all.header?.revision,
    kvs: all.kvs.map(({ key, value, createRevision, modRevision, version, lease }) => ({
      key: Buffer.from(key).toString("latin1"),
      value: Buffer.from(value).toString("latin1"),
      createRevision,
      modRevision,
      version,
      lease,
    })),
    hash: [hash.hash, hash.hashRevision, hash.compactRevision],
    leases: leases.leases.map(({ id }) => id).sort(),
    alarms: alarms.alarms.map(({ memberId, alarm }) => [memberId, alarm]),
  };
}

/** Keys with a history: changed, deleted, several in one transaction, with leases, large, compacted in between. */
export async function fill(member: EtcdServer): Promise<void> {
  const { kv, lease, maintenance } = member.services;
  const put = (key: string, value: string | Uint8Array, leaseId = 0n): Promise<api.PutResponse> =>
    kv.put(api.PutRequest.create({ key: bytesOf(key), value: typeof value === "string" ? bytesOf(value) : value, lease: leaseId }), {});
  const { id } = await lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 3600 }), {});
  await lease.leaseGrant(api.LeaseGrantRequest.create({ ttl: 7200, id: -5n }), {});
  for (let i = 0; i < 120; i += 1) await put(`key-${String(i % 60).padStart(3, "0")}`, `value ${i}`, i % 7 === 0 ? id : 0n);
  await kv.deleteRange(api.DeleteRangeRequest.create({ key: bytesOf("key-010"), rangeEnd: bytesOf("key-020") }), {});
  const { header } = await put("before the compaction", "");
  await kv.compact(api.CompactionRequest.create({ revision: header?.revision ?? 0, physical: true }), {});
  await put("key-011", "again");
  await put("large", new Uint8Array(200_000).fill(7));
  await put("\u0000odd\u00ff", "", -5n);
  const op = (key: string): api.RequestOp =>
    api.RequestOp.create({ requestPut: api.PutRequest.create({ key: bytesOf(key), value: bytesOf("txn") }) });
  const remove = api.RequestOp.create({
    requestDeleteRange: api.DeleteRangeRequest.create({ key: bytesOf("key-05"), rangeEnd: bytesOf("key-06") }),
  });
  await kv.txn(api.TxnRequest.create({ success: [op("t1"), op("t2"), remove, op("t3")] }), {});
  await maintenance.alarm(api.AlarmRequest.create({ action: api.AlarmAction.ACTIVATE, memberId: 77n, alarm: api.AlarmType.CORRUPT }), {});
}
