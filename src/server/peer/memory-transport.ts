/**
 * Peer transports that share one process: for in-memory clusters, tests and the simulator. No sockets, no real time: everything that
 * travels waits for a timer of the given clock, so a simulated clock makes a run repeatable. Messages are encoded and decoded on their way,
 * so nothing mutable is shared, `context` of entries does not travel, and what the real wire would refuse fails here too.
 */

import { RpcError } from "../../api/rpc-errors.ts";
import { assert } from "../../base/assert.ts";
import { copyBytes } from "../../base/bytes.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { MemberId } from "../../base/ids.ts";
import type { Message, SnapshotRequest } from "../../raft/index.ts";
import { errorFields, PeerTransportClosedError, PeerUnavailableError, SnapshotInProgressError } from "./errors.ts";
import { type FetchedCluster, parseMembers } from "./fetch-members.ts";
import { decodeMessages, decodeSnapshotOffer, encodeMessages, encodeSnapshotOffer } from "./message-codec.ts";
import type { PeerAddress, PeerHandlers, PeerRequestKind, PeerTransport, SnapshotSource } from "./transport.ts";

/** What travels. */
export type Parcel =
  | { readonly type: "message"; readonly from: MemberId; readonly to: MemberId; readonly message: Message }
  | { readonly type: "request"; readonly from: MemberId; readonly to: MemberId; readonly kind: PeerRequestKind }
  | { readonly type: "response"; readonly from: MemberId; readonly to: MemberId; readonly kind: PeerRequestKind }
  | { readonly type: "snapshot-chunk"; readonly from: MemberId; readonly to: MemberId; readonly bytes: number };

/**
 * Decides the fate of a parcel: the delays, in ms, of each of its copies. `[]` drops it, `[0]` delivers it in a later turn, `[0, 30]` delivers
 * it twice. A dropped request or response is never answered; a dropped chunk breaks the snapshot stream.
 */
export type Route = (parcel: Parcel) => readonly number[];

const DELIVER: readonly number[] = [0];

/** Messages on their way between two members; more are dropped. */
const IN_FLIGHT_MAX = 4096;
const SNAPSHOT_ATTEMPTS_MAX = 4;
const SNAPSHOT_RETRY_MS = 100;

export interface MemoryNetworkOptions {
  readonly clock: Clock;
  /**
   * Carries what has no delay (ServerPorts.defer): a timer of the system's clock takes a millisecond at least. Default: a timer of 0 ms, which keeps
   * everything in one order under a simulated clock.
   */
  readonly defer?: ((fn: () => void) => void) | undefined;
  /** Default: delivers everything without delay. */
  readonly route?: Route | undefined;
  /**
   * Carries a parcel to its receiver instead of `defer` and the clock: for a simulator whose members can stand still, so that what arrives meanwhile waits for
   * them.
   */
  readonly carry?: ((parcel: Parcel, delayMs: number, arrive: () => void) => void) | undefined;
}

export class MemoryNetwork {
  readonly clock: Clock;
  readonly #carry: (parcel: Parcel, delayMs: number, arrive: () => void) => void;
  #route: Route;
  readonly #transports = new Map<MemberId, MemoryTransport>();
  /** `from>to` pairs between which nothing passes. */
  readonly #cut = new Set<string>();

  constructor(options: MemoryNetworkOptions) {
    const { clock } = options;
    this.clock = clock;
    const defer = options.defer ?? ((fn: () => void): void => void clock.timer(0, fn));
    this.#carry =
      options.carry ??
      ((_parcel, delayMs, arrive): void => {
        if (delayMs === 0) defer(arrive);
        else clock.timer(delayMs, arrive);
      });
    this.#route = options.route ?? (() => DELIVER);
  }

  /** One per member and life: after `close`, ask for a new one. `clock` is the member's own, if it is not the network's. */
  transport(options: { clock?: Clock } = {}): PeerTransport {
    return new MemoryTransport(this, options.clock ?? this.clock);
  }

  setRoute(route: Route): void {
    this.#route = route;
  }

  /** Cuts the way from one member to another, in this direction only; what is already on its way still arrives. */
  cut(from: MemberId, to: MemberId): void {
    this.#cut.add(pairOf(from, to));
    this.#transports.get(from)?.linkChanged(to);
    this.#transports.get(to)?.linkChanged(from);
  }

  heal(from: MemberId, to: MemberId): void {
    this.#cut.delete(pairOf(from, to));
    this.#transports.get(from)?.linkChanged(to);
    this.#transports.get(to)?.linkChanged(from);
  }

  /** Members in different groups do not hear each other; everything else heals. */
  partition(groups: readonly (readonly MemberId[])[]): void {
    this.#cut.clear();
    groups.forEach((group, i) => {
      groups.forEach((other, j) => {
        if (i === j) return;
        for (const from of group) for (const to of other) this.#cut.add(pairOf(from, to));
      });
    });
    for (const transport of this.#transports.values()) transport.linksChanged();
  }

  /** For transports. */
  attach(member: MemberId, transport: MemoryTransport): void {
    assert(!this.#transports.has(member), "one transport per member");
    this.#transports.set(member, transport);
    for (const other of this.#transports.values()) other.linkChanged(member);
  }

  detach(member: MemberId, transport: MemoryTransport): void {
    if (this.#transports.get(member) !== transport) return;
    this.#transports.delete(member);
    for (const other of this.#transports.values()) other.linkChanged(member);
  }

  /** What some running member answers with. */
  anyHandlers(): PeerHandlers | undefined {
    for (const transport of this.#transports.values()) if (transport.handlers !== undefined) return transport.handlers;
    return undefined;
  }

  /** The other end, unless it is absent or cut off. */
  reach(from: MemberId, to: MemberId): MemoryTransport | undefined {
    return this.#cut.has(pairOf(from, to)) ? undefined : this.#transports.get(to);
  }

  /** Both directions work. */
  connected(a: MemberId, b: MemberId): boolean {
    return this.reach(a, b) !== undefined && !this.#cut.has(pairOf(b, a));
  }

  /** Calls `deliver` once per copy, later, if the other end is there then, and `settled` in any case. Returns the number of copies on their way. */
  carry(parcel: Parcel, deliver: (to: MemoryTransport) => void, settled?: () => void): number {
    if (this.reach(parcel.from, parcel.to) === undefined) return 0;
    const delays = this.#route(parcel);
    const arrive = (): void => {
      settled?.();
      // The way is looked at when a parcel leaves; the receiver when it arrives.
      const to = this.#transports.get(parcel.to);
      if (to !== undefined) deliver(to);
    };
    for (const ms of delays) this.#carry(parcel, ms, arrive);
    return delays.length;
  }
}

function pairOf(from: MemberId, to: MemberId): string {
  return `${from}>${to}`;
}

export class MemoryTransport implements PeerTransport {
  readonly #network: MemoryNetwork;
  readonly #clock: Clock;
  #handlers: PeerHandlers | undefined;
  #closed = false;
  #peers: readonly PeerAddress[] = [];
  readonly #activeSinceMs = new Map<MemberId, number>();
  readonly #inFlight = new Map<MemberId, number>();
  /** Peers reported as unreachable since the last message that left for them. */
  readonly #reported = new Set<MemberId>();
  readonly #heard = new Set<MemberId>();
  readonly #snapshotsOut = new Set<MemberId>();
  readonly #snapshotsIn = new Set<MemberId>();
  readonly #closing = new AbortController();
  #removedReported = false;

  constructor(network: MemoryNetwork, clock: Clock) {
    this.#network = network;
    this.#clock = clock;
  }

  async start(handlers: PeerHandlers): Promise<void> {
    if (this.#closed) throw new PeerTransportClosedError();
    assert(this.#handlers === undefined, "a transport starts once");
    this.#handlers = handlers;
    this.#network.attach(handlers.memberId, this);
    this.linksChanged();
  }

  /** Of the first other member that is attached. */
  fetchMembers(): FetchedCluster | undefined {
    const handlers = this.#network.anyHandlers();
    if (handlers === undefined) return undefined;
    return { clusterId: handlers.clusterId, members: parseMembers(handlers.membersJson()), url: "memory:" };
  }

  /** For the network. */
  get handlers(): PeerHandlers | undefined {
    return this.#handlers;
  }

  setPeers(peers: readonly PeerAddress[]): void {
    this.#peers = peers.filter(({ id }) => id !== this.#handlers?.memberId);
    this.linksChanged();
  }

  send(messages: readonly Message[]): void {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined) return;
    for (const message of messages) {
      assert(message.type !== "snapshot", "a snapshot message travels with its state");
      const { to } = message;
      if (!this.#knows(to)) continue;
      const inFlight = this.#inFlight.get(to) ?? 0;
      if (inFlight >= IN_FLIGHT_MAX || this.#network.reach(handlers.memberId, to) === undefined) {
        this.#unreachable(to);
        continue;
      }
      this.#reported.delete(to);
      const bytes = encodeMessages([message]);
      const parcel: Parcel = { type: "message", from: handlers.memberId, to, message };
      const copies = this.#network.carry(
        parcel,
        (peer) => {
          for (const copy of decodeMessages(bytes)) peer.#receive(handlers, copy);
        },
        () => this.#inFlight.set(to, (this.#inFlight.get(to) ?? 1) - 1),
      );
      this.#inFlight.set(to, inFlight + copies);
    }
  }

  async sendSnapshot(message: SnapshotRequest, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined) throw new PeerTransportClosedError();
    const { to } = message;
    if (this.#snapshotsOut.has(to)) throw new SnapshotInProgressError(to);
    this.#snapshotsOut.add(to);
    const combined = AbortSignal.any([signal, this.#closing.signal]);
    try {
      for (let attempt = 1; ; attempt++) {
        combined.throwIfAborted();
        try {
          await this.#sendSnapshotOnce(handlers, message, source, combined);
          return;
        } catch (error) {
          combined.throwIfAborted();
          // What the receiver pronounced is final, as on the real wire.
          if (!(error instanceof StreamBroken)) throw error;
          if (attempt >= SNAPSHOT_ATTEMPTS_MAX) throw new PeerUnavailableError(to, "the snapshot could not be sent");
        }
        await this.#sleep(SNAPSHOT_RETRY_MS, combined);
      }
    } finally {
      this.#snapshotsOut.delete(to);
    }
  }

  request(to: MemberId, kind: PeerRequestKind, body: Uint8Array, options: { signal: AbortSignal }): Promise<Uint8Array> {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined) return Promise.reject(new PeerTransportClosedError());
    const from = handlers.memberId;
    const { signal } = options;
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#network.reach(from, to) === undefined) return Promise.reject(new PeerUnavailableError(to, "not connected"));
    const copy = copyBytes(body);
    return new Promise<Uint8Array>((resolve, reject) => {
      const remote = new AbortController();
      const settle = (act: () => void): void => {
        signal.removeEventListener("abort", onAbort);
        this.#closing.signal.removeEventListener("abort", onClose);
        act();
      };
      const onAbort = (): void => {
        remote.abort(new RpcError("canceled"));
        settle(() => reject(signal.reason));
      };
      const onClose = (): void => {
        remote.abort(new PeerTransportClosedError());
        settle(() => reject(new PeerTransportClosedError()));
      };
      signal.addEventListener("abort", onAbort);
      this.#closing.signal.addEventListener("abort", onClose);
      const back: Parcel = { type: "response", from: to, to: from, kind };
      this.#network.carry({ type: "request", from, to, kind }, (peer) => {
        void peer.#serve(from, kind, copy, remote.signal).then((answer) => {
          // An answer to somebody who was started anew meanwhile finds nobody.
          this.#network.carry(back, (self) => {
            if (self === this) settle(() => (answer instanceof Uint8Array ? resolve(answer) : reject(answer)));
          });
        });
      });
    });
  }

  activeSince(peer: MemberId): number | undefined {
    return this.#activeSinceMs.get(peer);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#activeSinceMs.clear();
    if (this.#handlers !== undefined) this.#network.detach(this.#handlers.memberId, this);
    this.#closing.abort(new PeerTransportClosedError());
  }

  linksChanged(): void {
    for (const { id } of this.#peers) this.linkChanged(id);
    for (const id of [...this.#activeSinceMs.keys()]) this.linkChanged(id);
  }

  linkChanged(peer: MemberId): void {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined) return;
    const known = this.#peers.some(({ id }) => id === peer);
    const active = known && this.#network.connected(handlers.memberId, peer);
    if (!active) {
      if (this.#activeSinceMs.delete(peer) && known) this.#unreachable(peer);
      return;
    }
    if (!this.#activeSinceMs.has(peer)) {
      this.#activeSinceMs.set(peer, this.#clock.monotonicMs());
      this.#reported.delete(peer);
    }
    // As on the real wire, a removed member learns of it when it connects.
    if (this.#network.reach(handlers.memberId, peer)?.holdsRemoved(handlers.memberId) === true) this.#removed(handlers);
  }

  /** For the other transports of the network. */
  holdsRemoved(member: MemberId): boolean {
    return this.#handlers?.isRemoved(member) === true;
  }

  /** A member, or a sender that was heard: raft may want to answer it before it is known as a member. */
  #knows(peer: MemberId): boolean {
    return peer !== this.#handlers?.memberId && (this.#heard.has(peer) || this.#peers.some(({ id }) => id === peer));
  }

  #removed(handlers: PeerHandlers): void {
    if (this.#removedReported) return;
    this.#removedReported = true;
    this.#later(0, () => handlers.onRemoved());
  }

  #receive(sender: PeerHandlers, message: Message): void {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined || sender.clusterId !== handlers.clusterId) return;
    if (message.from !== sender.memberId || message.to !== handlers.memberId || handlers.isRemoved(message.from)) return;
    this.#heard.add(message.from);
    handlers.onMessage(message);
  }

  /** The answer, or the error as it would arrive. */
  async #serve(from: MemberId, kind: PeerRequestKind, body: Uint8Array, signal: AbortSignal): Promise<Uint8Array | EtcdError> {
    const handlers = this.#handlers;
    if (this.#closed || handlers === undefined) return new PeerTransportClosedError();
    try {
      return copyBytes(await handlers.onRequest(from, kind, body, { signal: AbortSignal.any([signal, this.#closing.signal]) }));
    } catch (error) {
      const { reason, code, message } = errorFields(error);
      return new EtcdError(reason, code, message);
    }
  }

  #unreachable(peer: MemberId): void {
    if (this.#reported.has(peer)) return;
    this.#reported.add(peer);
    this.#later(0, () => this.#handlers?.onUnreachable(peer));
  }

  #later(ms: number, act: () => void): Timer {
    return this.#clock.timer(ms, () => {
      if (!this.#closed) act();
    });
  }

  async #sendSnapshotOnce(handlers: PeerHandlers, message: SnapshotRequest, source: SnapshotSource, signal: AbortSignal): Promise<void> {
    const { memberId: from } = handlers;
    const { to } = message;
    const peer = this.#network.reach(from, to);
    if (peer === undefined) throw new StreamBroken();
    const receiver = peer.#handlers;
    if (receiver === undefined || receiver.isRemoved(from) || receiver.clusterId !== handlers.clusterId) throw new StreamBroken();
    if (peer.#snapshotsIn.has(from)) throw new StreamBroken();
    peer.#snapshotsIn.add(from);
    const ended = AbortSignal.any([signal, peer.#closing.signal]);
    const stream = { broken: false };
    const receive = async (): Promise<void> => {
      try {
        const offer = decodeSnapshotOffer(encodeSnapshotOffer(source.info, message));
        const held = await receiver.snapshotBytesHeld(offer.info);
        await receiver.onSnapshot(offer.message, this.#chunks(to, source, held, ended, stream), offer.info);
      } catch (error) {
        if (stream.broken) throw new StreamBroken();
        const fields = errorFields(error);
        throw new EtcdError(fields.reason, fields.code, fields.message, { cause: error });
      } finally {
        peer.#snapshotsIn.delete(from);
      }
    };
    await this.#unlessEnded(receive(), ended);
  }

  /** A handler that does not return must not hold the sender beyond its own end. */
  #unlessEnded(task: Promise<void>, ended: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => reject(new StreamBroken());
      ended.addEventListener("abort", stop, { once: true });
      if (ended.aborted) stop();
      task.then(resolve, reject).finally(() => ended.removeEventListener("abort", stop));
    });
  }

  async *#chunks(
    to: MemberId,
    source: SnapshotSource,
    offset: number,
    signal: AbortSignal,
    stream: { broken: boolean },
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const from = this.#handlers?.memberId;
    assert(from !== undefined, "snapshots are sent after start");
    for await (const chunk of source.read(offset)) {
      const bytes = copyBytes(chunk);
      const parcel: Parcel = { type: "snapshot-chunk", from, to, bytes: bytes.byteLength };
      const arrived = await new Promise<boolean>((resolve) => {
        const stop = (): void => resolve(false);
        signal.addEventListener("abort", stop, { once: true });
        const copies = this.#network.carry(parcel, () => {
          signal.removeEventListener("abort", stop);
          resolve(true);
        });
        if (copies === 0 || signal.aborted) stop();
      });
      if (!arrived) {
        stream.broken = true;
        throw new StreamBroken();
      }
      yield bytes;
    }
  }

  #sleep(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = this.#clock.timer(ms, done);
      signal.addEventListener("abort", done);
    });
  }
}

/** The stream of a snapshot ended before its time; another attempt may succeed. */
class StreamBroken extends EtcdError {
  constructor() {
    super("peer-unavailable", GrpcCode.Unavailable, "the snapshot stream broke off");
    this.name = "StreamBroken";
  }
}
