/**
 * A founding member must advertise the peer URLs that the initial cluster gives it: its id is made of them, and the others dial them. Only checked when a new
 * cluster is founded (server-config section 7); a restart ignores both settings.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import type { Clock } from "../base/clock.ts";
import type { ServerConfig } from "./config.ts";

export interface AdvertisedUrlsOptions {
  readonly clock: Clock;
  /** Addresses of a host name; rejects when it has none. Default: the system's resolver. */
  readonly resolveHost?: (host: string) => Promise<readonly string[]>;
  /** How long a name may fail to resolve, asked once per second: at boot the resolver may come up later than we do. */
  readonly patienceMs?: number;
  readonly signal?: AbortSignal;
}

const PATIENCE_MS = 30_000;
const RETRY_MS = 1000;

/** etcd's text for what does not fit, or undefined. The same URLs by name and by address count as equal. */
export async function advertisedUrlsMismatch(
  config: Pick<ServerConfig, "name" | "initialCluster" | "initialAdvertisePeerUrls">,
  options: AdvertisedUrlsOptions,
): Promise<string | undefined> {
  const advertised = [...config.initialAdvertisePeerUrls].sort();
  const configured = [...(config.initialCluster.find((member) => member.name === config.name)?.urls ?? [])].sort();
  const why = await difference(advertised, configured, options);
  if (why === undefined) return undefined;
  const missing = configured.find((url) => !advertised.includes(url));
  if (missing !== undefined) {
    return `--initial-cluster has ${config.name}=${missing} but missing from --initial-advertise-peer-urls=${advertised.join(",")} (${why})`;
  }
  const surplus = advertised.find((url) => !configured.includes(url));
  const shown = configured.map((url) => `${config.name}=${url}`).join(",");
  return `--initial-advertise-peer-urls has ${surplus ?? advertised.join(",")} but missing from --initial-cluster=${shown}`;
}

async function difference(
  advertised: readonly string[],
  configured: readonly string[],
  options: AdvertisedUrlsOptions,
): Promise<string | undefined> {
  if (advertised.length !== configured.length) return `len(${list(advertised)}) != len(${list(configured)})`;
  if (advertised.every((url, at) => url === configured[at])) return undefined;
  const deadlineMs = options.clock.monotonicMs() + (options.patienceMs ?? PATIENCE_MS);
  const resolved: [string[], string[]] = [[], []];
  for (const [side, urls] of [advertised, configured].entries()) {
    for (const url of urls) {
      try {
        (resolved[side] as string[]).push(await withAddress(url, deadlineMs, options));
      } catch (error) {
        options.signal?.throwIfAborted();
        return `failed to resolve ${JSON.stringify(url)} (${(error as Error).message})`;
      }
    }
  }
  const [ours, theirs] = resolved.map((urls) => urls.sort()) as [string[], string[]];
  const at = ours.findIndex((url, index) => url !== theirs[index]);
  return at < 0 ? undefined : `resolved urls: ${JSON.stringify(ours[at])} != ${JSON.stringify(theirs[at])}`;
}

/** The URL with the first address of its host. `localhost` stays as it is, which is etcd's rule. */
async function withAddress(url: string, deadlineMs: number, options: AdvertisedUrlsOptions): Promise<string> {
  const parts = /^(https?:\/\/)([^:/[\]]+)(:\d+)$/.exec(url);
  const [, scheme = "", host = "", port = ""] = parts ?? [];
  if (parts === null || host === "localhost" || isIP(host) !== 0) return url;
  const resolveHost = options.resolveHost ?? addressesOf;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const [address = host] = [...(await resolveHost(host))].sort();
      return `${scheme}${address.includes(":") ? `[${address}]` : address}${port}`;
    } catch (error) {
      if (options.clock.monotonicMs() + RETRY_MS > deadlineMs) throw error;
      await pause(RETRY_MS, options);
    }
  }
}

async function addressesOf(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

function pause(ms: number, { clock, signal }: AdvertisedUrlsOptions): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel();
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = clock.timer(ms, done);
    signal?.addEventListener("abort", done);
  });
}

function list(urls: readonly string[]): string {
  return `[${urls.map((url) => JSON.stringify(url)).join(" ")}]`;
}
