/** Members come and go over the JSON API; members with real listeners, logs and stores in this process. */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { EtcdError } from "../../src/base/errors.ts";
import type { EtcdConfig } from "../../src/embed/config.ts";
import { type EtcdServer, startEtcd } from "../../src/embed/start-etcd.ts";
import { eventually } from "../support/cluster.ts";

const PORTS = 21_000;

interface ListedMember {
  readonly ID: string;
  readonly name?: string;
  readonly peerURLs: readonly string[];
  readonly clientURLs?: readonly string[];
  readonly isLearner?: boolean;
}

interface Answer {
  readonly status: number;
  readonly message?: string;
  readonly member?: ListedMember;
  readonly members?: readonly ListedMember[];
  readonly kvs?: readonly { readonly value: string }[];
  readonly leader?: string;
}

/** Real members, known by name; the peer port of each follows from its number. */
class Members {
  readonly directory = mkdtempSync(join(tmpdir(), "holdfast-members-"));
  readonly running = new Map<string, EtcdServer>();
  readonly #numbers = new Map<string, number>();

  peerUrl(name: string): string {
    const number = this.#numbers.get(name) ?? this.#numbers.size;
    this.#numbers.set(name, number);
    return `http://127.0.0.1:${PORTS + number}`;
  }

  dataDir(name: string): string {
    return join(this.directory, name);
  }

  clusterOf(names: readonly string[]): string {
    return names.map((name) => `${name}=${this.peerUrl(name)}`).join(",");
  }

  async start(name: string, initial: readonly string[], more: EtcdConfig = {}): Promise<EtcdServer> {
    const member = await startEtcd({
      name,
      dataDir: this.dataDir(name),
      listenClientUrls: "http://127.0.0.1:0",
      advertiseClientUrls: "http://127.0.0.1:0",
      listenPeerUrls: this.peerUrl(name),
      initialAdvertisePeerUrls: this.peerUrl(name),
      initialCluster: this.clusterOf(initial),
      heartbeatInterval: 50,
      electionTimeout: 500,
      strictReconfigCheck: false,
      ...more,
    });
    this.running.set(name, member);
    return member;
  }

  async startAll(names: readonly string[], more: EtcdConfig = {}): Promise<void> {
    await Promise.all(names.map((name) => this.start(name, names, more)));
    await Promise.all(names.map((name) => this.member(name).ready));
  }

  member(name: string): EtcdServer {
    return this.running.get(name) as EtcdServer;
  }

  async stop(name: string): Promise<void> {
    await this.running.get(name)?.close();
    this.running.delete(name);
  }

  wipe(name: string): void {
    rmSync(this.dataDir(name), { recursive: true, force: true });
  }

  /** One request to one member. */
  async call(name: string, path: string, body: unknown = {}): Promise<Answer> {
    const response = await fetch(`${this.member(name).clientUrls[0]}/v3/${path}`, { method: "POST", body: JSON.stringify(body) });
    return { ...((await response.json()) as object), status: response.status };
  }

  async list(name: string): Promise<readonly ListedMember[]> {
    return (await this.call(name, "cluster/member/list", { linearizable: false })).members ?? [];
  }

  /** The id of a member, as the API writes it. */
  id(name: string): string {
    return String(BigInt(`0x${this.member(name).id}`));
  }

  leader(): Promise<string> {
    return eventually("a leader", () => [...this.running].find(([, member]) => member.isLeader)?.[0]);
  }

  async add(by: string, name: string, options: { isLearner?: boolean } = {}): Promise<ListedMember> {
    const { status, member, message } = await this.call(by, "cluster/member/add", { peerURLs: [this.peerUrl(name)], ...options });
    expect(message).toBeUndefined();
    expect(status).toBe(200);
    return member as ListedMember;
  }

  /** Tried again while there is no answer to it: on a busy machine leaders change by themselves. */
  put(by: string, key: string, value: string): Promise<Answer> {
    return eventually("an answer to a put", async () => {
      const answer = await this.call(by, "kv/put", { key: btoa(key), value: btoa(value) });
      return answer.status === 503 || answer.status === 504 ? undefined : answer;
    });
  }

  async get(by: string, key: string): Promise<string | undefined> {
    const value = (await this.call(by, "kv/range", { key: btoa(key) })).kvs?.[0]?.value;
    return value === undefined ? undefined : atob(value);
  }

  /** Raft's configuration and the table of members say the same on every member (BM5). */
  async expectOneView(): Promise<void> {
    const leader = await this.leader();
    const applied = this.member(leader).server.appliedIndex;
    for (const [name, { server }] of this.running) {
      await eventually(`${name} has applied it`, () => server.appliedIndex >= applied);
      const { confState, membership } = server.state;
      expect(confState.voters).toEqual(membership.voters().map((member) => member.id));
      expect(confState.learners).toEqual(membership.list().flatMap((member) => (member.isLearner ? [member.id] : [])));
      expect(confState.votersOutgoing).toEqual([]);
      expect(membership.list()).toEqual(this.member(leader).server.state.membership.list());
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.running.keys()].map((name) => this.stop(name)));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

let members = new Members();
afterEach(async () => {
  await members.close();
  members = new Members();
});

async function refusalOf(call: Promise<unknown>): Promise<EtcdError> {
  const error = await call.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (!EtcdError.is(error)) throw error;
  return error;
}

const ABC = ["a", "b", "c"];

test("a learner joins, is promoted and serves at once; an original member goes; another takes its seat (BM4, BM5, BM7, BM11)", async () => {
  await members.startAll(ABC);
  await members.put("a", "k", "1");
  const added = await members.add("a", "d", { isLearner: true });
  expect(added.isLearner).toBe(true);
  const promote = (by: string): Promise<Answer> => members.call(by, "cluster/member/promote", { ID: added.ID });
  // Not started yet, so it has nothing.
  expect((await promote("a")).message).toBe("etcdserver: can only promote a learner member which is in sync with leader");
  // What is known of it stays when its URLs change.
  const other = `${members.peerUrl("d")}/`;
  await members.call("b", "cluster/member/update", { ID: added.ID, peerURLs: [other] });
  expect((await members.list("b")).find(({ ID }) => ID === added.ID)).toMatchObject({ peerURLs: [other], isLearner: true });
  await members.call("b", "cluster/member/update", { ID: added.ID, peerURLs: added.peerURLs });

  const learner = await members.start("d", [...ABC, "d"], { initialClusterState: "existing" });
  await learner.ready;
  expect((await members.put("d", "k", "2")).message).toBe("etcdserver: rpc not supported for learner");
  expect((await members.call(await members.leader(), "maintenance/transfer-leadership", { targetID: added.ID })).message).toBe(
    "etcdserver: bad leader transferee",
  );
  await members.expectOneView();
  // Through any member; and then it serves without a moment's delay.
  const follower = ABC.find((name) => !members.member(name).isLeader) as string;
  expect((await promote(follower)).status).toBe(200);
  expect(await members.put("d", "k", "2")).toMatchObject({ status: 200 });
  expect((await promote(follower)).message).toBe("etcdserver: can only promote a learner member");
  expect((await members.list("a")).find(({ ID }) => ID === added.ID)).toMatchObject({ name: "d" });
  await members.expectOneView();

  // The leader itself goes.
  const leader = await members.leader();
  const gone = members.member(leader);
  const removed = await members.call("d", "cluster/member/remove", { ID: members.id(leader) });
  expect(removed.members).toHaveLength(3);
  expect((await gone.failed).failure).toBe("removed");
  await members.stop(leader);
  const rest = [...members.running.keys()];
  expect(await members.put(rest[0] as string, "k", "3")).toMatchObject({ status: 200 });
  await members.expectOneView();
  const { term } = members.member(await members.leader()).server;

  // Started again it learns that it is out, and disturbs nobody.
  const again = await members.start(leader, ABC);
  expect((await again.failed).failure).toBe("removed");
  await members.stop(leader);
  members.wipe(leader);
  expect((await refusalOf(members.start(leader, [...rest, leader], { initialClusterState: "existing" }))).message).toContain(
    "member count is unequal",
  );
  expect(members.member(await members.leader()).server.term).toBe(term);
  // Its id is used up; with a new one it is welcome, under its old name and URL.
  const back = await members.add(rest[0] as string, leader);
  await (await members.start(leader, [...rest, leader], { initialClusterState: "existing" })).ready;
  expect(members.id(leader)).toBe(back.ID);
  expect(await members.get(leader, "k")).toBe("3");
  await members.expectOneView();
}, 60_000);

test("what cannot be changed is refused with etcd's words", async () => {
  await members.startAll(ABC);
  const call = async (path: string, body: unknown): Promise<string | undefined> =>
    (await members.call("a", `cluster/member/${path}`, body)).message;
  expect(await call("add", { peerURLs: [members.peerUrl("b")] })).toBe("etcdserver: Peer URLs already exists");
  expect(await call("add", { peerURLs: ["nonsense"] })).toBe("etcdserver: given member URLs are invalid");
  expect(await call("remove", { ID: "7" })).toBe("etcdserver: member not found");
  expect(await call("promote", { ID: "7" })).toBe("etcdserver: member not found");
  expect(await call("promote", { ID: members.id("b") })).toBe("etcdserver: can only promote a learner member");
  expect(await call("update", { ID: "7", peerURLs: ["http://127.0.0.1:1"] })).toBe("etcdserver: member not found");
  expect(await call("update", { ID: members.id("b"), peerURLs: [members.peerUrl("c")] })).toBe("etcdserver: Peer URLs already exists");
  await members.add("a", "d", { isLearner: true });
  expect(await call("add", { peerURLs: ["http://127.0.0.1:1"], isLearner: true })).toBe("etcdserver: too many learner members in cluster");
  await members.expectOneView();
}, 60_000);

test("with one of three dead a member can be added unless the strict check is on; with two dead nothing can be changed (BM9)", async () => {
  await members.startAll(ABC, { strictReconfigCheck: true });
  await members.stop("c");
  expect((await members.call("a", "cluster/member/add", { peerURLs: [members.peerUrl("d")] })).message).toBe(
    "etcdserver: unhealthy cluster",
  );
  for (const name of ["a", "b"]) {
    await members.stop(name);
  }
  for (const name of ["a", "b"]) await members.start(name, ABC);
  await members.member("a").ready;
  const learner = await members.add("a", "d", { isLearner: true });
  await (await members.start("d", [...ABC, "d"], { initialClusterState: "existing" })).ready;
  expect((await members.call("a", "cluster/member/promote", { ID: learner.ID })).status).toBe(200);
  expect(await members.put("d", "k", "1")).toMatchObject({ status: 200 });
  await members.expectOneView();
  await members.stop("b");
  // Two of four: no quorum, so no change; and none sneaks in later.
  const { clientUrls } = members.member("a");
  const late = fetch(`${clientUrls[0]}/v3/cluster/member/remove`, {
    method: "POST",
    body: JSON.stringify({ ID: learner.ID }),
    signal: AbortSignal.timeout(1500),
  });
  await expect(late).rejects.toThrow();
  expect(await members.list("a")).toHaveLength(4);
}, 60_000);

test("mistakes at the start are refused with the reason, and the others go on (BM11)", async () => {
  await members.startAll(ABC);
  await members.put("a", "k", "1");
  await members.stop("c");
  const kept = `${members.dataDir("c")}.kept`;
  cpSync(members.dataDir("c"), kept, { recursive: true });

  // A wiped directory: under the old identity it would vote without knowing what it had promised.
  members.wipe("c");
  expect((await refusalOf(members.start("c", ABC))).message).toMatch(/^member [0-9a-f]+ has already been bootstrapped$/);
  members.wipe("c");
  expect((await refusalOf(members.start("c", ABC, { initialClusterState: "existing" }))).message).toMatch(
    /^member [0-9a-f]+ has already been bootstrapped: .*add it again/,
  );
  // Another token, or other members: another cluster.
  members.wipe("c");
  expect((await refusalOf(members.start("c", ABC, { initialClusterToken: "another" }))).message).toContain("check --initial-cluster and");
  expect((await refusalOf(members.start("d", [...ABC, "d"]))).message).toMatch(
    /^cluster ID mismatch: .* --initial-cluster-state existing$/,
  );
  expect((await refusalOf(members.start("c", [...ABC, "x"], { initialClusterState: "existing" }))).message).toContain(
    "member count is unequal",
  );
  expect((await refusalOf(members.start("c", ["a", "b", "x"]))).message).toContain('couldn\'t find local name "c"');
  expect(
    (
      await refusalOf(
        members.start("c", ABC, {
          initialCluster: `${members.clusterOf(["a", "b"])},c=http://127.0.0.1:1`,
          initialClusterState: "existing",
        }),
      )
    ).message,
  ).toMatch(/--initial-cluster|no match found/);
  // A name that another member has: its URL is not this one's.
  expect((await refusalOf(members.start("c", ABC, { name: "a", initialClusterState: "existing" }))).message).toMatch(
    /initial-cluster|bootstrapped/,
  );
  // Another member's data.
  await members.stop("b");
  cpSync(members.dataDir("b"), members.dataDir("c"), { recursive: true });
  expect((await refusalOf(members.start("c", ABC))).message).toMatch(
    /^the data directory is that of member [0-9a-f]+ \("b"\), but name and peer URLs/,
  );
  // A second process on the same data.
  await members.start("b", ABC);
  expect((await refusalOf(members.start("c", ABC, { dataDir: members.dataDir("b") }))).message).toMatch(/data directory|in use|lock/i);

  members.wipe("c");
  cpSync(kept, members.dataDir("c"), { recursive: true });
  await (await members.start("c", ABC)).ready;
  expect(await members.get("c", "k")).toBe("1");
  await members.expectOneView();
}, 60_000);
