/**
 * A fixed workload and the sequential model that knows what every prefix of it leaves. Operations are issued in the order of the list, some of them together; the
 * log must take them in that order.
 */
import * as api from "../../../src/api/index.ts";
import { crc32, utf8Bytes, utf8Text } from "../../../src/base/bytes.ts";
import { type Random, seededRandom } from "../../../src/base/random.ts";
import type { Server } from "../../../src/server/server.ts";
import type { Services } from "../../../src/server/services/services.contract.ts";

interface Pair {
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: number;
}

/** What a member holds. Only what can be asked for counts. */
export class Model {
  revision = 1;
  compacted = 0;
  readonly pairs = new Map<string, Pair>();
  readonly leases = new Set<number>();
  readonly roles = new Set<string>();
  readonly learners = new Set<string>();

  put(key: string, value: string, lease: number, revision: number): void {
    const old = this.pairs.get(key);
    this.pairs.set(key, { value, lease, mod: revision, create: old?.create ?? revision, version: (old?.version ?? 0) + 1 });
  }

  pairsText(): string {
    return pairsText(
      [...this.pairs]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, pair]) => ({
          key,
          value: utf8Bytes(pair.value),
          create: pair.create,
          mod: pair.mod,
          version: pair.version,
          lease: pair.lease,
        })),
    );
  }

  text(): string {
    const { revision, compacted, leases, roles, learners } = this;
    return stateText({ revision, compacted, pairs: this.pairsText(), leases: [...leases], roles: [...roles], learners: [...learners] });
  }
}

function pairsText(
  rows: readonly { key: string; value: Uint8Array; create: number; mod: number; version: number; lease: number }[],
): string {
  return rows
    .map((row) => `${row.key}=${row.value.length}.${crc32(row.value)}@${row.create}.${row.mod}.${row.version}.${row.lease}`)
    .join(" ");
}

function stateText(state: {
  readonly revision: number;
  readonly compacted: number;
  readonly pairs: string;
  readonly leases: readonly number[];
  readonly roles: readonly string[];
  readonly learners: readonly string[];
}): string {
  const list = (items: readonly (string | number)[]): string => items.map(String).sort().join(",");
  return `revision ${state.revision} compacted ${state.compacted} leases [${list(state.leases)}] roles [${list(state.roles)}] learners [${list(state.learners)}] pairs [${state.pairs}]`;
}

export interface Operation {
  readonly what: string;
  /** The revision that its answer must carry; undefined for answers without one. */
  readonly revision: number | undefined;
  call(services: Services): Promise<{ readonly header?: api.ResponseHeader | undefined }>;
}

export interface Workload {
  /** Issued together; the next ones when all of them are answered. */
  readonly steps: readonly (readonly Operation[])[];
  /** The state after that many operations. */
  readonly states: readonly string[];
  /** The pairs at each revision. */
  readonly history: ReadonlyMap<number, string>;
}

const KEYS = 24;
const TTL_SECONDS = 1_000_000;

/** `count` operations. The same arguments give the same workload. */
export function makeWorkload(count: number, seed = 3): Workload {
  const random = seededRandom(seed);
  const model = new Model();
  const steps: Operation[][] = [];
  const states = [model.text()];
  const history = new Map([[1, ""]]);
  for (let done = 0; done < count; ) {
    const together = Math.min(count - done, random.chance({ of: 1, outOf: 3 }) ? 2 + random.below(4) : 1);
    const step: Operation[] = [];
    const used = new Set<string>();
    for (let i = 0; i < together; i++) {
      step.push(together > 1 ? changeOf(model, random, done, used) : nextOf(model, random, done, used));
      done += 1;
      states.push(model.text());
      history.set(model.revision, model.pairsText());
    }
    steps.push(step);
  }
  return { steps, states, history };
}

function nextOf(model: Model, random: Random, number: number, used: Set<string>): Operation {
  const draw = random.below(100);
  if (draw < 8) return grant(model, number);
  if (draw < 13 && model.leases.size > 0) return revoke(model, pick(random, [...model.leases]));
  if (draw < 20 && model.revision > model.compacted + 4) return compact(model, random);
  if (draw < 23) return addRole(model, number);
  if (draw < 26) return model.learners.size === 0 ? addLearner(model, number) : removeLearner(model);
  if (draw < 30) return defragment();
  if (draw < 36) return read(model);
  if (draw < 43) return deletePrefix(model, random, number, used);
  return changeOf(model, random, number, used);
}

/** One that takes a revision whatever happens beside it. */
function changeOf(model: Model, random: Random, number: number, used: Set<string>): Operation {
  const draw = random.below(10);
  const free = Array.from({ length: KEYS }, (_, i) => `k${String(i).padStart(2, "0")}`).filter((key) => !used.has(key));
  const key = pick(random, free);
  used.add(key);
  if (draw < 2 && model.pairs.has(key)) return deleteOne(model, key);
  if (draw < 5) {
    const other = pick(
      random,
      free.filter((one) => one !== key),
    );
    used.add(other);
    return txn(model, random, number, key, other);
  }
  return put(model, random, number, key);
}

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)] as T;
}

/** Sometimes larger than a block, now and then nearly a segment. */
function textOfSize(random: Random, number: number): string {
  const size = random.chance({ of: 1, outOf: 12 }) ? 3000 + random.below(4000) : random.below(200);
  return `${number}:${"v".repeat(size)}`;
}

function put(model: Model, random: Random, number: number, key: string): Operation {
  const value = textOfSize(random, number);
  const lease = model.leases.size > 0 && random.chance({ of: 1, outOf: 3 }) ? pick(random, [...model.leases]) : 0;
  model.revision += 1;
  model.put(key, value, lease, model.revision);
  const request = api.PutRequest.create({ key: utf8Bytes(key), value: utf8Bytes(value), lease: BigInt(lease) });
  return { what: `put ${key}`, revision: model.revision, call: (services) => services.kv.put(request, {}) };
}

function deleteOne(model: Model, key: string): Operation {
  model.revision += 1;
  model.pairs.delete(key);
  const request = api.DeleteRangeRequest.create({ key: utf8Bytes(key) });
  return { what: `delete ${key}`, revision: model.revision, call: (services) => services.kv.deleteRange(request, {}) };
}

/** May find nothing: then it takes no revision. */
function deletePrefix(model: Model, random: Random, number: number, used: Set<string>): Operation {
  const prefix = `k${random.below(3)}`;
  const found = [...model.pairs.keys()].filter((key) => key.startsWith(prefix));
  if (found.length === 0) return put(model, random, number, `k00`);
  for (const key of found) {
    model.pairs.delete(key);
    used.add(key);
  }
  model.revision += 1;
  const end = `k${Number(prefix.slice(1)) + 1}`;
  const request = api.DeleteRangeRequest.create({ key: utf8Bytes(prefix), rangeEnd: utf8Bytes(end) });
  return { what: `delete ${prefix}*`, revision: model.revision, call: (services) => services.kv.deleteRange(request, {}) };
}

/** Two keys in one revision: a half of it would show. */
function txn(model: Model, random: Random, number: number, key: string, other: string): Operation {
  const value = textOfSize(random, number);
  const putOf = (name: string): api.RequestOp =>
    api.RequestOp.create({ requestPut: api.PutRequest.create({ key: utf8Bytes(name), value: utf8Bytes(value) }) });
  const removal = api.RequestOp.create({ requestDeleteRange: api.DeleteRangeRequest.create({ key: utf8Bytes(other) }) });
  const removes = model.pairs.has(other) && random.chance({ of: 1, outOf: 2 });
  model.revision += 1;
  model.put(key, value, 0, model.revision);
  if (removes) model.pairs.delete(other);
  else model.put(other, value, 0, model.revision);
  const request = api.TxnRequest.create({ success: [putOf(key), removes ? removal : putOf(other)] });
  return { what: `txn ${key} ${other}`, revision: model.revision, call: (services) => services.kv.txn(request, {}) };
}

function read(model: Model): Operation {
  const request = api.RangeRequest.create({ key: utf8Bytes("k"), rangeEnd: utf8Bytes("l"), keysOnly: true });
  return { what: "read", revision: model.revision, call: (services) => services.kv.range(request, {}) };
}

function grant(model: Model, number: number): Operation {
  const id = 1000 + number;
  model.leases.add(id);
  const request = api.LeaseGrantRequest.create({ id: BigInt(id), ttl: TTL_SECONDS });
  return { what: `grant ${id}`, revision: undefined, call: (services) => services.lease.leaseGrant(request, {}) };
}

function revoke(model: Model, id: number): Operation {
  const attached = [...model.pairs].filter(([, pair]) => pair.lease === id).map(([key]) => key);
  for (const key of attached) model.pairs.delete(key);
  if (attached.length > 0) model.revision += 1;
  model.leases.delete(id);
  const request = api.LeaseRevokeRequest.create({ id: BigInt(id) });
  return { what: `revoke ${id}`, revision: undefined, call: (services) => services.lease.leaseRevoke(request, {}) };
}

function compact(model: Model, random: Random): Operation {
  model.compacted += 2 + random.below(model.revision - model.compacted - 2);
  const request = api.CompactionRequest.create({ revision: model.compacted, physical: random.chance({ of: 1, outOf: 3 }) });
  return { what: `compact ${model.compacted}`, revision: undefined, call: (services) => services.kv.compact(request, {}) };
}

function addRole(model: Model, number: number): Operation {
  const name = `role${number}`;
  model.roles.add(name);
  const request = api.AuthRoleAddRequest.create({ name });
  return { what: `add role ${name}`, revision: undefined, call: (services) => services.auth.roleAdd(request, {}) };
}

function addLearner(model: Model, number: number): Operation {
  const url = `http://learner${number}.test:2380`;
  model.learners.add(url);
  const request = api.MemberAddRequest.create({ peerUrls: [url], isLearner: true });
  return { what: `add ${url}`, revision: undefined, call: (services) => services.cluster.memberAdd(request, {}) };
}

function removeLearner(model: Model): Operation {
  const [url] = [...model.learners];
  model.learners.clear();
  return {
    what: `remove ${url}`,
    revision: undefined,
    call: async (services) => {
      const { members } = await services.cluster.memberList(api.MemberListRequest.create({ linearizable: true }), {});
      const member = members.find((one) => one.isLearner);
      return services.cluster.memberRemove(api.MemberRemoveRequest.create({ id: member?.id ?? 0n }), {});
    },
  };
}

function defragment(): Operation {
  return {
    what: "defragment",
    revision: undefined,
    call: (services) => services.maintenance.defragment(api.DefragmentRequest.create({}), {}),
  };
}

/** What a running member holds, in the words of {@link Model.text}. */
export async function stateOf(server: Server): Promise<string> {
  const { services } = server;
  const pairs = await pairsAt(server, 0);
  const { leases } = await services.lease.leaseLeases(api.LeaseLeasesRequest.create({}), {});
  const { roles } = await services.auth.roleList(api.AuthRoleListRequest.create({}), {});
  const { members } = await services.cluster.memberList(api.MemberListRequest.create({ linearizable: true }), {});
  return stateText({
    revision: server.store.revision,
    compacted: Math.max(0, server.store.compactRevision),
    pairs,
    leases: leases.map((lease) => Number(lease.id)),
    roles,
    learners: members.filter((member) => member.isLearner).flatMap((member) => member.peerUrls),
  });
}

/** All pairs at a revision; 0 for now. */
export async function pairsAt(server: Server, revision: number): Promise<string> {
  const request = api.RangeRequest.create({ key: utf8Bytes("\0"), rangeEnd: utf8Bytes("\0"), revision });
  const { kvs } = await server.services.kv.range(request, {});
  return pairsText(
    kvs.map((kv) => ({
      key: utf8Text(kv.key),
      value: kv.value,
      create: kv.createRevision,
      mod: kv.modRevision,
      version: kv.version,
      lease: Number(kv.lease),
    })),
  );
}
