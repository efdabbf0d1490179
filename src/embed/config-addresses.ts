/** Where a member listens, what it advertises and which cluster it founds: etcd's rules of how these settings hang together. */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import type { ServerConfig } from "../server/index.ts";
import type { Report } from "./config-error.ts";
import { ValueError } from "./go-values.ts";
import {
  DEFAULT_CLIENT_URL,
  DEFAULT_INITIAL_CLUSTER,
  DEFAULT_NAME,
  DEFAULT_PEER_URL,
  type SettingName,
  type SettingValues,
} from "./settings.ts";
import { isBindable, isSecure, isSocketFile, type ParsedUrl, parseUrl, parseUrls, withAddress } from "./urls.ts";

const PORT_MAX = 65_535;

/** A place to listen on. */
export type ListenUrl =
  | { readonly kind: "tcp"; readonly url: string; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly url: string; readonly path: string };

export function bindUrls(setting: SettingName, texts: readonly string[], problem: Report): ParsedUrl[] {
  const urls = parseUrls(texts);
  for (const url of urls) {
    if (!isBindable(url)) problem(setting, `expected IP in URL for binding (${url.text})`);
    else if (isSocketFile(url) && url.host === "") problem(setting, `socket file is missing in URL for binding (${url.text})`);
    else if (url.port > PORT_MAX) problem(setting, `listen tcp: address ${url.port}: invalid port`, "start");
  }
  return urls;
}

export function checkListenTls(
  peer: readonly ParsedUrl[],
  client: readonly ParsedUrl[],
  clientHttp: readonly ParsedUrl[],
  metrics: readonly ParsedUrl[],
  problem: Report,
): void {
  for (const url of peer) {
    if (!isSecure(url)) {
      checkPeerScheme("listen-peer-urls", url, url.text, problem);
      continue;
    }
    const address = isSocketFile(url) ? url.host : `${url.host.includes(":") ? `[${url.host}]` : url.host}:${url.port}`;
    problem("listen-peer-urls", `cannot listen on TLS for ${address}: KeyFile and CertFile are not presented`, "start");
  }
  const clients = [
    ...client.map((url) => ["listen-client-urls", url] as const),
    ...clientHttp.map((url) => ["listen-client-http-urls", url] as const),
  ];
  for (const [setting, url] of clients) {
    if (isSecure(url))
      problem(setting, `TLS key/cert (--cert-file, --key-file) must be provided for client url ${url.text} with HTTPS scheme`, "start");
  }
  if (metrics.some(isSecure)) {
    problem("listen-metrics-urls", "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url", "start");
  }
}

/** Members reach each other over plain HTTP; `shown` is how the URL was given. */
function checkPeerScheme(setting: SettingName, url: ParsedUrl, shown: string, problem: Report): void {
  const missing = isSecure(url) ? "TLS between members" : isSocketFile(url) ? "socket files between members" : undefined;
  if (missing !== undefined) problem(setting, `holdfast has no ${missing} yet (--${setting} ${shown})`);
}

export interface Advertised {
  urls: ParsedUrl[];
  /** Taken from what the member listens on, because nothing was given. */
  readonly fromListeners: boolean;
}

/** What is advertised: what was given, else what is listened on (as given), else the default. */
export function advertisedUrls(given: boolean, texts: readonly string[], listen: readonly ParsedUrl[], listenGiven: boolean): Advertised {
  const fromListeners = !given && listenGiven && listen.length > 0;
  return { urls: fromListeners ? [...listen] : parseUrls(texts), fromListeners };
}

/** etcd's way out for "listen on 0.0.0.0, advertise the default": the machine's address. Gives the address if it was used. */
export function replaceDefaultHosts(
  peer: Advertised,
  listenPeer: readonly ParsedUrl[],
  client: Advertised,
  listenClient: readonly ParsedUrl[],
  defaultHost: () => string | undefined,
): string | undefined {
  let used: string | undefined;
  const pairs = [
    [peer, listenPeer, DEFAULT_PEER_URL],
    [client, listenClient, DEFAULT_CLIENT_URL],
  ] as const;
  for (const [advertised, listen, defaultUrl] of pairs) {
    const first = listen[0];
    const untouched = advertised.fromListeners || (advertised.urls.length === 1 && advertised.urls[0]?.text === defaultUrl);
    if (first === undefined || first.host !== "0.0.0.0" || !untouched) continue;
    const host = defaultHost();
    if (host === undefined) continue;
    used = host;
    advertised.urls = advertised.fromListeners
      ? advertised.urls.map((url) => (url.host === "0.0.0.0" ? withAddress(url, { host }) : url))
      : advertised.urls.map((url) => withAddress(url, { host, port: first.port }));
  }
  return used;
}

export function checkAdvertised(peer: readonly ParsedUrl[], client: Advertised, problem: Report): void {
  const emptyPeer = peer.find((url) => !isSocketFile(url) && url.host === "");
  if (emptyPeer !== undefined) {
    problem(
      "initial-advertise-peer-urls",
      `--initial-advertise-peer-urls ${JSON.stringify(joined(peer))} must be "host:port" (unexpected empty host (${emptyPeer.text}))`,
    );
  }
  for (const url of peer) checkPeerScheme("initial-advertise-peer-urls", url, url.text, problem);
  const emptyClient = client.urls.find((url) => !isSocketFile(url) && url.host === "");
  if (emptyClient !== undefined) {
    problem(
      "advertise-client-urls",
      `--advertise-client-urls ${JSON.stringify(joined(client.urls))} must be in the format "host:port", "unix:/path/to/socket" or ` +
        `"unixs:/path/to/socket" (unexpected empty host (${emptyClient.text}))`,
    );
  }
  // Nobody can dial "every interface", and the machine's own address could not be told.
  if (client.fromListeners && client.urls.some((url) => url.host === "0.0.0.0" || url.host === "::")) {
    problem("advertise-client-urls", ADVERTISE_REQUIRED);
  }
}

/** etcd's text when clients would not know where to go. */
export const ADVERTISE_REQUIRED = "--advertise-client-urls is required when --listen-client-urls is set explicitly";

export function resolveInitialCluster(
  values: SettingValues,
  isGiven: (name: SettingName) => boolean,
  advertised: Advertised,
  problem: Report,
): ServerConfig["initialCluster"] {
  let text = values["initial-cluster"];
  const untouched = text === DEFAULT_INITIAL_CLUSTER;
  const discovered = values["discovery-srv"] !== "" || values["discovery-srv-name"] !== "" || values["discovery-endpoints"].length > 0;
  if (discovered && !isGiven("initial-cluster")) return [];
  if (untouched && (values.name !== DEFAULT_NAME || advertised.fromListeners)) {
    text = advertised.urls.map((url) => `${values.name === "" ? DEFAULT_NAME : values.name}=${url.text}`).join(",");
  }
  return parseInitialCluster(text, (part, url) => {
    if (url instanceof ValueError) problem("initial-cluster", `error setting up initial cluster: ${url.message}`, "start");
    else checkPeerScheme("initial-cluster", url, part, problem);
  });
}

/** `name=url,name=url`: each name once, with its URLs. `seen` is told each part and its URL, or why that is none; then it is left out. */
export function parseInitialCluster(
  text: string,
  seen: (part: string, url: ParsedUrl | ValueError) => void,
): ServerConfig["initialCluster"] {
  const members = new Map<string, string[]>();
  for (const part of text.split(",")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    const raw = equals < 0 ? "" : part.slice(equals + 1);
    const urls = members.get(name) ?? [];
    members.set(name, urls);
    try {
      const url = parseUrl(raw);
      seen(part, url);
      urls.push(url.text);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      seen(part, error);
    }
  }
  return [...members].map(([name, urls]) => ({ name, urls: urls.sort() }));
}

export function checkOverlap(listenClient: readonly ParsedUrl[], listenClientHttp: readonly ParsedUrl[], problem: Report): void {
  for (const url of listenClientHttp) {
    if (listenClient.some((other) => other.host === url.host && other.port === url.port && (url.port !== 0 || isSocketFile(url)))) {
      problem(
        "listen-client-http-urls",
        `cannot bind both --listen-client-urls and --listen-client-http-urls on the same url ${url.text}`,
        "start",
      );
    }
  }
}

export function toListenUrl(url: ParsedUrl): ListenUrl {
  if (isSocketFile(url)) return { kind: "unix", url: url.text, path: url.host };
  // Go binds `localhost` on IPv4; Node would take whatever the resolver names first.
  return { kind: "tcp", url: url.text, host: url.host === "localhost" ? "127.0.0.1" : url.host, port: url.port };
}

/** The IPv4 address of the interface that the default route goes through. Linux only; undefined elsewhere and when there is none. */
export function defaultRouteAddress(): string | undefined {
  let routes: string;
  try {
    routes = readFileSync("/proc/net/route", "utf8");
  } catch {
    return undefined; // Not Linux, or a sandbox: then the default stays, as it does in etcd.
  }
  const line = routes.split("\n").find((candidate) => candidate.split("\t")[1] === "00000000");
  const name = line?.split("\t")[0];
  return name === undefined ? undefined : networkInterfaces()[name]?.find((address) => address.family === "IPv4")?.address;
}

function joined(urls: readonly ParsedUrl[]): string {
  return urls.map((url) => url.text).join(",");
}
