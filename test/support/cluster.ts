/** Clusters of embedded members in this process, for tests that cross roots: real log and store in temporary directories, an in-process network. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as api from "../../src/api/index.ts";
import { systemClock } from "../../src/base/clock-system.ts";
import { silentLogger } from "../../src/base/logger.ts";
import type { EtcdConfig } from "../../src/embed/config.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";
import { MemoryNetwork } from "../../src/server/peer/index.ts";
import { until } from "./server-process.ts";

export const text = (value: string): Uint8Array => new TextEncoder().encode(value);
export const plain = (value: Uint8Array): string => new TextDecoder().decode(value);

/** {@link until} with the usual patience of tests inside one process. */
export function eventually<T>(what: string, check: () => T | undefined | false | Promise<T | undefined | false>, ms = 20_000): Promise<T> {
  return until(what, ms, check, 10);
}

export interface TestCluster {
  readonly network: MemoryNetwork;
  readonly names: readonly string[];
  /** Running members only. */
  readonly members: ReadonlyMap<string, EtcdServer>;
  /** Where that member keeps its data. */
  directory(name: string): string;
  member(name: string): EtcdServer;
  start(name: string, more?: EtcdConfig): Promise<EtcdServer>;
  stop(name: string): Promise<void>;
  leader(): Promise<EtcdServer>;
  close(): Promise<void>;
}

/** `names` become one cluster with short timings; `config` is added to every member's, `own` to that of each. */
export async function startCluster(
  names: readonly string[],
  config: EtcdConfig = {},
  own: (name: string) => EtcdConfig = () => ({}),
): Promise<TestCluster> {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-cluster-"));
  const network = new MemoryNetwork({ clock: systemClock() });
  const members = new Map<string, EtcdServer>();
  const urlOf = (name: string): string => `http://${name}.test:2380`;
  const cluster: TestCluster = {
    network,
    names,
    members,
    directory: (name) => join(directory, name),
    member(name) {
      const member = members.get(name);
      if (member === undefined) throw new Error(`${name} does not run`);
      return member;
    },
    async start(name, more = {}) {
      const member = await startEtcd({
        name,
        dataDir: join(directory, name),
        listenClientUrls: [],
        listenPeerUrls: [],
        advertiseClientUrls: `http://${name}.test:2379`,
        initialAdvertisePeerUrls: urlOf(name),
        initialCluster: names.map((one) => `${one}=${urlOf(one)}`).join(","),
        heartbeatInterval: 20,
        electionTimeout: 200,
        logger: silentLogger,
        transport: () => network.transport(),
        ...config,
        ...own(name),
        ...more,
      });
      members.set(name, member);
      return member;
    },
    async stop(name) {
      const member = members.get(name);
      members.delete(name);
      await member?.close();
    },
    leader: () => eventually("a leader", () => [...members.values()].find((member) => member.isLeader)),
    async close() {
      await Promise.all([...members.keys()].map((name) => cluster.stop(name)));
      await rm(directory, { recursive: true, force: true });
    },
  };
  await Promise.all(names.map((name) => cluster.start(name)));
  await Promise.all([...members.values()].map((member) => member.ready));
  return cluster;
}

export async function put(member: EtcdServer, key: string, value: string): Promise<api.PutResponse> {
  return member.services.kv.put(api.PutRequest.create({ key: text(key), value: text(value) }), {});
}

export async function get(member: EtcdServer, key: string, options: { serializable?: boolean } = {}): Promise<string | undefined> {
  const request = api.RangeRequest.create({ key: text(key), serializable: options.serializable ?? false });
  const kv = (await member.services.kv.range(request, {})).kvs[0];
  return kv === undefined ? undefined : plain(kv.value);
}

export async function hashOf(member: EtcdServer, revision: number): Promise<number> {
  return (await member.services.maintenance.hashKv(api.HashKVRequest.create({ revision }), {})).hash;
}
