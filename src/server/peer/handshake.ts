/**
 * The HTTP side of a connection between members: which headers a dialler sends, and what an acceptor checks before a single frame flows.
 * Names and texts are etcd's (etcd: server/etcdserver/api/rafthttp), the frames behind the upgrade are our own.
 */
import type { IncomingHttpHeaders } from "node:http";
import { type ClusterId, hexId, type MemberId } from "../../base/ids.ts";

/** Offered in the `Upgrade` header; the number is the protocol version and fixes the layout of all frames. */
export const RAFT_PROTOCOL = "holdfast-raft/1";
export const SNAPSHOT_PROTOCOL = "holdfast-snapshot/1";
export const RAFT_PATH = "/raft/stream";
export const SNAPSHOT_PATH = "/raft/snapshot";

/** Oldest server version that may talk to this one. */
export const MIN_CLUSTER_VERSION = "3.0.0";

export interface LocalIdentity {
  readonly clusterId: ClusterId;
  readonly memberId: MemberId;
  readonly serverVersion: string;
}

export function dialHeaders(self: LocalIdentity, to: MemberId, peerUrls: readonly string[], protocol: string): Record<string, string> {
  const headers: Record<string, string> = {
    Connection: "Upgrade",
    Upgrade: protocol,
    "X-Server-From": hexId(self.memberId),
    "X-Server-Version": self.serverVersion,
    "X-Min-Cluster-Version": MIN_CLUSTER_VERSION,
    "X-Etcd-Cluster-ID": hexId(self.clusterId),
    "X-Raft-To": hexId(to),
  };
  if (peerUrls.length > 0) headers["X-PeerURLs"] = peerUrls.join(",");
  return headers;
}

export type HandshakeOutcome =
  | { readonly ok: true; readonly from: MemberId; readonly peerUrls: readonly string[] }
  | { readonly ok: false; readonly status: number; readonly text: string };

/** Checks in this order: version, cluster, addressee, sender. The order decides what a misconfigured member is told. */
export function checkHandshake(
  headers: IncomingHttpHeaders,
  protocol: string,
  self: LocalIdentity,
  isRemoved: (member: MemberId) => boolean,
): HandshakeOutcome {
  if (!offers(headers.upgrade, protocol) || !versionsFit(headers, self.serverVersion)) return refusal(412, "incompatible version");
  if (headerText(headers, "x-etcd-cluster-id") !== hexId(self.clusterId)) return refusal(412, "cluster ID mismatch");
  if (headerText(headers, "x-raft-to") !== hexId(self.memberId)) return refusal(412, "to field mismatch");
  const from = parseMemberId(headerText(headers, "x-server-from"));
  if (from === undefined) return refusal(404, "invalid from");
  if (isRemoved(from)) return refusal(410, "removed member");
  // Two processes with one identity: neither may feed the other.
  if (from === self.memberId) return refusal(404, "invalid from");
  return { ok: true, from, peerUrls: parsePeerUrls(headerText(headers, "x-peerurls")) };
}

function refusal(status: number, text: string): HandshakeOutcome {
  return { ok: false, status, text };
}

/** The Upgrade header may offer several protocols, best first. */
function offers(header: string | undefined, protocol: string): boolean {
  return header?.split(",").some((name) => name.trim().toLowerCase() === protocol) === true;
}

function headerText(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" ? value : undefined;
}

function parseMemberId(text: string | undefined): MemberId | undefined {
  if (text === undefined || !/^[0-9a-f]{1,16}$/.test(text)) return undefined;
  const id = BigInt(`0x${text}`);
  return id === 0n ? undefined : (id as MemberId);
}

/** Each side names its own version and the oldest it can live with; both must be content (etcd: checkVersionCompatibility). */
function versionsFit(headers: IncomingHttpHeaders, serverVersion: string): boolean {
  const theirs = parseVersion(headerText(headers, "x-server-version"));
  const theirMin = parseVersion(headerText(headers, "x-min-cluster-version"));
  const ours = parseVersion(serverVersion);
  const ourMin = parseVersion(MIN_CLUSTER_VERSION);
  if (theirs === undefined || theirMin === undefined || ours === undefined || ourMin === undefined) return false;
  return theirs >= ourMin && ours >= theirMin;
}

/** A number that orders like the version; undefined for what is no version. Pre-release and build parts are ignored. */
function parseVersion(text: string | undefined): number | undefined {
  const match = /^(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[-+][0-9A-Za-z.+-]{0,64})?$/.exec(text ?? "");
  if (match === null) return undefined;
  return Number(match[1]) * 1e8 + Number(match[2]) * 1e4 + Number(match[3]);
}

const PEER_URLS_MAX = 16;

/** URLs on which an unknown sender says it can be reached. Wrong ones are left out. */
function parsePeerUrls(text: string | undefined): readonly string[] {
  if (text === undefined) return [];
  const urls: string[] = [];
  for (const part of text.split(",", PEER_URLS_MAX)) {
    const url = part.trim();
    if (parsePeerUrl(url) !== undefined) urls.push(url);
  }
  return urls;
}

export interface PeerEndpoint {
  readonly secure: boolean;
  /** Without the brackets of an IPv6 literal. */
  readonly host: string;
  readonly port: number;
}

/** Undefined for what is no http or https URL. */
export function parsePeerUrl(url: string): PeerEndpoint | undefined {
  if (!URL.canParse(url)) return undefined;
  const { protocol, hostname, port } = new URL(url);
  if ((protocol !== "http:" && protocol !== "https:") || hostname === "") return undefined;
  const secure = protocol === "https:";
  const host = hostname.startsWith("[") ? hostname.slice(1, -1) : hostname;
  return { secure, host, port: port === "" ? (secure ? 443 : 80) : Number(port) };
}
