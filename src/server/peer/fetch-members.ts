import * as http from "node:http";
import * as https from "node:https";
import type { ConnectionOptions } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";
import type { ClusterId, MemberId } from "../../base/ids.ts";
import { parsePeerUrl } from "./handshake.ts";

/** A member as `GET /members` on a peer port tells it. */
export interface FetchedMember {
  readonly id: MemberId;
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
}

export interface FetchedCluster {
  readonly clusterId: ClusterId;
  /** As told; etcd sorts by id. */
  readonly members: readonly FetchedMember[];
  /** The URL that answered. */
  readonly url: string;
}

/** None of the URLs gave a usable answer; `failures` says why, in the order of the URLs. */
export class NoMembersError extends EtcdError {
  readonly failures: readonly { readonly url: string; readonly error: string }[];

  constructor(failures: readonly { readonly url: string; readonly error: string }[]) {
    super("no-members-fetched", GrpcCode.Unavailable, "could not retrieve cluster information from the given URLs");
    this.name = "NoMembersError";
    this.failures = failures;
  }
}

export interface FetchOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Per URL. etcd uses 10,000 when joining and 1000 when probing before a bootstrap. */
  readonly timeoutMs: number;
  readonly tls?: ConnectionOptions | undefined;
}

const ANSWER_BYTES_MAX = 4 * 1024 * 1024;

/** Members and cluster id from the first URL that answers. Rejects with {@link NoMembersError}, or with the signal's reason. */
export async function fetchMembers(urls: readonly string[], options: FetchOptions): Promise<FetchedCluster> {
  const failures: { url: string; error: string }[] = [];
  for (const url of urls) {
    options.signal.throwIfAborted();
    try {
      const { headers, body } = await getText(url, "/members", options);
      const clusterId = headers["x-etcd-cluster-id"];
      if (typeof clusterId !== "string" || !/^[0-9a-fA-F]{1,16}$/.test(clusterId)) throw new Error("the answer names no cluster id");
      return { clusterId: BigInt(`0x${clusterId}`) as ClusterId, members: parseMembers(body), url };
    } catch (error) {
      options.signal.throwIfAborted();
      failures.push({ url, error: error instanceof Error ? error.message : String(error) });
    }
  }
  throw new NoMembersError(failures);
}

/** The JSON of `GET /version` at a peer URL, as text. */
export async function fetchVersion(url: string, options: FetchOptions): Promise<string> {
  return (await getText(url, "/version", options)).body;
}

function getText(url: string, path: string, options: FetchOptions): Promise<{ headers: http.IncomingHttpHeaders; body: string }> {
  const endpoint = parsePeerUrl(url);
  if (endpoint === undefined) return Promise.reject(new Error(`not a peer URL: ${url}`));
  return new Promise((resolve, reject) => {
    const request = (endpoint.secure ? https : http).request({
      ...(endpoint.secure ? options.tls : undefined),
      host: endpoint.host,
      port: endpoint.port,
      path,
      agent: false,
    });
    const settle = (act: () => void): void => {
      timer.cancel();
      options.signal.removeEventListener("abort", onAbort);
      act();
      request.destroy();
    };
    const fail = (error: unknown): void => settle(() => reject(error));
    const onAbort = (): void => fail(options.signal.reason);
    const timer = options.clock.timer(options.timeoutMs, () => fail(new Error(`no answer within ${options.timeoutMs} ms`)));
    options.signal.addEventListener("abort", onAbort);
    request.on("error", fail);
    request.on("response", (response) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      response.on("data", (piece: Buffer) => {
        pieces.push(piece);
        bytes += piece.byteLength;
        if (bytes > ANSWER_BYTES_MAX) fail(new Error("the answer is too long"));
      });
      response.on("error", fail);
      response.on("end", () => {
        if (response.statusCode !== 200) fail(new Error(`status ${response.statusCode}`));
        else settle(() => resolve({ headers: response.headers, body: Buffer.concat(pieces).toString("utf8") }));
      });
    });
    request.end();
  });
}

/**
 * Ids are JSON numbers of 64 bits, which `JSON.parse` would round: they are turned into strings first. `"id":` cannot stand inside a
 * JSON string, where its quotes would be escaped.
 */
export function parseMembers(text: string): FetchedMember[] {
  const parsed: unknown = JSON.parse(text.replace(/"id"\s*:\s*(\d{1,20})(?=\s*[,}])/g, '"id":"$1"'));
  if (!Array.isArray(parsed)) throw new Error("the member list is no array");
  return parsed.map((item: unknown) => {
    if (typeof item !== "object" || item === null) throw new Error("a member is no object");
    const { id, name, peerURLs, clientURLs, isLearner } = item as Record<string, unknown>;
    if (typeof id !== "string" || BigInt(id) === 0n || BigInt(id) > 0xffff_ffff_ffff_ffffn) throw new Error("a member has no valid id");
    return {
      id: BigInt(id) as MemberId,
      name: typeof name === "string" ? name : "",
      peerUrls: stringsOf(peerURLs),
      clientUrls: stringsOf(clientURLs),
      isLearner: isLearner === true,
    };
  });
}

function stringsOf(value: unknown): readonly string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) throw new Error("a list of URLs is malformed");
  return value;
}
