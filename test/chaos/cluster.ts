/** Clusters of real processes on loopback, with everything that can be done to them. */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as api from "../../src/api/index.ts";
import {
  type MemberSpec,
  memberFlags,
  postJson,
  type ServerKind,
  ServerProcess,
  sleep,
  until,
  untilServing,
} from "../support/server-process.ts";
import type { Endpoint } from "./json-client.ts";
import { type LinkState, PeerProxy } from "./peer-proxy.ts";

export interface ClusterOptions {
  readonly kind: ServerKind;
  readonly size: number;
  readonly portBase: number;
  /** For logs, and for data if nothing else is said. */
  readonly directory: string;
  /** For the data of some members, by their names. */
  readonly dataDirectories?: Readonly<Record<string, string>>;
  /** For every member. */
  readonly flags?: readonly string[];
  readonly token: string;
  /** Put a proxy in front of every peer port. */
  readonly proxies?: boolean;
}

/** Ports of one member: clients, peers as advertised, peers behind the proxy. */
const PORTS_EACH = 3;

export class Member {
  readonly spec: MemberSpec;
  readonly logFile: string;
  readonly initialCluster: string;
  readonly state: "new" | "existing";
  process: ServerProcess | undefined;
  run = 0;
  /** Hexadecimal, once it is known. */
  id: string | undefined;
  paused = false;

  constructor(spec: MemberSpec, logFile: string, initialCluster: string, state: "new" | "existing") {
    this.spec = spec;
    this.logFile = logFile;
    this.initialCluster = initialCluster;
    this.state = state;
  }

  get name(): string {
    return this.spec.name;
  }

  get endpoint(): Endpoint {
    return { member: this.spec.name, run: this.run, url: this.spec.clientUrl };
  }

  get isRunning(): boolean {
    return this.process !== undefined && this.process.ending === undefined;
  }
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly members = new Map<string, Member>();
  readonly #proxies = new Map<string, PeerProxy>();
  #made = 0;
  /** Asked for and not known to be added. */
  #adding: MemberSpec | undefined;

  constructor(options: ClusterOptions) {
    this.#options = options;
    mkdirSync(options.directory, { recursive: true });
    const specs = Array.from({ length: options.size }, (_, slot) => this.#spec(slot));
    const initialCluster = specs.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
    for (const spec of specs) this.#enlist(spec, initialCluster, "new");
  }

  #spec(slot: number): MemberSpec {
    const { portBase, directory, dataDirectories, proxies } = this.#options;
    this.#made += 1;
    const name = `n${this.#made}`;
    const port = portBase + PORTS_EACH * slot;
    return {
      name,
      clientUrl: `http://127.0.0.1:${port}`,
      peerUrl: `http://127.0.0.1:${port + 1}`,
      ...(proxies === true ? { peerListenUrl: `http://127.0.0.1:${port + 2}` } : {}),
      dataDir: dataDirectories?.[name] ?? join(directory, name),
    };
  }

  #enlist(spec: MemberSpec, initialCluster: string, state: "new" | "existing"): Member {
    const member = new Member(spec, join(this.#options.directory, `${spec.name}.log`), initialCluster, state);
    this.members.set(spec.name, member);
    if (spec.peerListenUrl !== undefined) {
      const [port, target] = [spec.peerUrl, spec.peerListenUrl].map((url) => Number(new URL(url).port));
      const names = (id: string): string | undefined => this.list.find((one) => one.id === id)?.name;
      this.#proxies.set(spec.name, new PeerProxy(port ?? 0, target ?? 0, names));
    }
    return member;
  }

  get list(): Member[] {
    return [...this.members.values()];
  }

  get running(): Member[] {
    return this.list.filter(({ isRunning }) => isRunning);
  }

  member(name: string): Member {
    const member = this.members.get(name);
    if (member === undefined) throw new Error(`there is no ${name}`);
    return member;
  }

  /** Launches a member without waiting for it. */
  launch(member: Member, flags: readonly string[] = []): ServerProcess {
    member.run += 1;
    member.paused = false;
    const cluster = { token: this.#options.token, initialCluster: member.initialCluster, state: member.state };
    const all = [...memberFlags(member.spec, cluster), "--log-level", "info", ...(this.#options.flags ?? []), ...flags];
    member.process = new ServerProcess(this.#options.kind, all, member.logFile);
    return member.process;
  }

  /** Starts a member and waits until it serves. */
  async start(member: Member, deadlineMs = 60_000): Promise<void> {
    const process = this.launch(member);
    await untilServing(process, member.spec.clientUrl, deadlineMs);
    await this.#learnId(member);
  }

  async startAll(): Promise<void> {
    for (const member of this.list) this.launch(member);
    await this.untilServing();
  }

  /** Until every running member answers linearizable reads. */
  async untilServing(deadlineMs = 60_000): Promise<void> {
    for (const member of this.running) {
      if (member.process !== undefined) await untilServing(member.process, member.spec.clientUrl, deadlineMs);
      await this.#learnId(member);
    }
  }

  async #learnId(member: Member): Promise<void> {
    if (member.id !== undefined) return;
    member.id = (await this.status(member)).header?.memberId.toString(16);
  }

  async kill(member: Member): Promise<void> {
    await member.process?.kill();
  }

  /** SIGTERM. */
  async stop(member: Member, deadlineMs = 60_000): Promise<boolean> {
    return (await member.process?.stop(deadlineMs)) ?? true;
  }

  pause(member: Member): void {
    member.process?.signal("SIGSTOP");
    member.paused = true;
  }

  resume(member: Member): void {
    member.process?.signal("SIGCONT");
    member.paused = false;
  }

  wipe(member: Member): void {
    rmSync(member.spec.dataDir, { recursive: true, force: true });
  }

  async status(member: Member, deadlineMs = 3000): Promise<api.StatusResponse> {
    return api.parseJson(api.StatusResponse, await this.call(member, "/v3/maintenance/status", {}, deadlineMs));
  }

  /** The text of an answer with status 200. */
  async call(member: Member, path: string, body: unknown, deadlineMs = 10_000): Promise<string> {
    const { status, text } = await postJson(member.spec.clientUrl, path, body, deadlineMs);
    if (status !== 200) throw new Error(`${member.name} ${path}: ${text}`);
    return text;
  }

  /** The running member that the others, and itself, call leader. */
  leader(deadlineMs = 60_000): Promise<Member> {
    return until("there is a leader", deadlineMs, async () => {
      for (const member of this.running.filter(({ paused }) => !paused)) {
        const { leader, header } = await this.status(member);
        if (leader !== 0n && leader === header?.memberId) return member;
      }
      return undefined;
    });
  }

  /** The first ports that no member has. */
  #freeSlot(): number {
    const taken = new Set(this.list.map(({ spec }) => Number(new URL(spec.clientUrl).port)));
    for (let slot = 0; ; slot += 1) if (!taken.has(this.#options.portBase + PORTS_EACH * slot)) return slot;
  }

  async memberList(through: Member, deadlineMs?: number): Promise<api.Member[]> {
    return api.parseJson(api.MemberListResponse, await this.call(through, "/v3/cluster/member/list", {}, deadlineMs)).members;
  }

  /** Adds a member by asking `through`; it is not started. Asked again after an unknown outcome it adds the same one, or finds it. */
  async add(through: Member, isLearner = false): Promise<Member> {
    this.#adding ??= this.#spec(this.#freeSlot());
    const spec = this.#adding;
    let members = await this.memberList(through);
    if (!members.some(({ peerUrls }) => peerUrls.includes(spec.peerUrl))) {
      const text = await this.call(through, "/v3/cluster/member/add", { peerURLs: [spec.peerUrl], isLearner });
      ({ members } = api.parseJson(api.MemberAddResponse, text));
    }
    this.#adding = undefined;
    // Who has no name yet is the new one.
    const initialCluster = members
      .flatMap(({ name, peerUrls }) => peerUrls.map((url) => `${url === spec.peerUrl ? spec.name : name}=${url}`))
      .filter((part) => !part.startsWith("="))
      .join(",");
    return this.#enlist(spec, initialCluster, "existing");
  }

  async remove(through: Member, member: Member): Promise<void> {
    if (member.id === undefined) throw new Error(`the id of ${member.name} is not known`);
    await this.call(through, "/v3/cluster/member/remove", { ID: BigInt(`0x${member.id}`).toString() });
  }

  /** Forgets a member that has been removed; its process is ended if need be. */
  async dismiss(member: Member): Promise<void> {
    await member.process?.kill();
    this.#proxies.get(member.name)?.close();
    this.#proxies.delete(member.name);
    this.members.delete(member.name);
  }

  /** The link on which `from` dials `to`. */
  link(from: Member, to: Member, state: LinkState): void {
    const proxy = this.#proxies.get(to.name);
    if (proxy === undefined) throw new Error("this cluster has no proxies");
    proxy.set(from.name, state);
  }

  /** Between the two groups, in both directions. */
  partition(some: readonly Member[], others: readonly Member[], state: LinkState): void {
    for (const one of some) {
      for (const other of others) {
        this.link(one, other, state);
        this.link(other, one, state);
      }
    }
  }

  healLinks(): void {
    for (const to of this.list) for (const from of this.list) if (from !== to) this.link(from, to, { kind: "open" });
  }

  output(member: Member): string {
    return readFileSync(member.logFile, "utf8");
  }

  async close(): Promise<void> {
    for (const member of this.list) if (member.paused) this.resume(member);
    await Promise.all(this.list.map((member) => member.process?.kill()));
    for (const proxy of this.#proxies.values()) proxy.close();
    await sleep(0);
  }
}

/** Asks one after the other until the member is gone from the list: leaders change meanwhile, and a cluster that was just changed refuses the next change for a while. */
export async function removeMember(cluster: Cluster, member: Member, through: () => Member, deadlineMs = 60_000): Promise<void> {
  const id = BigInt(`0x${member.id ?? "0"}`);
  await until(
    `${member.name} is removed`,
    deadlineMs,
    async () => {
      const asked = through();
      if (!(await cluster.memberList(asked)).some((one) => one.id === id)) return true;
      await cluster.remove(asked, member);
      return true;
    },
    300,
  );
}
