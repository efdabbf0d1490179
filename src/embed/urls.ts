/**
 * URLs of listeners and members, by etcd's rules: http and https need an explicit port and have no path; unix and unixs name a socket file by everything
 * after the two slashes.
 */
import { isIP } from "node:net";
import { ValueError } from "./go-values.ts";

export type UrlScheme = "http" | "https" | "unix" | "unixs";

export interface ParsedUrl {
  /** As it is stored, compared and shown. */
  readonly text: string;
  readonly scheme: UrlScheme;
  /** Without the brackets of IPv6; may be empty. For a socket file: its path. */
  readonly host: string;
  /** 0 to 65535 when valid; larger ones are found when binding is checked. 0 for a socket file. */
  readonly port: number;
}

const NETWORK_URL = /^(https?):\/\/([^/?#]*)(.*)$/i;
const SOCKET_URL = /^(unixs?):\/\/(.*)$/i;

/** Throws {@link ValueError} with etcd's text. Blanks around are dropped. */
export function parseUrl(raw: string): ParsedUrl {
  const text = raw.trim();
  const socket = SOCKET_URL.exec(text);
  if (socket !== null) {
    const scheme = (socket[1] ?? "").toLowerCase() as UrlScheme;
    return { text: `${scheme}://${socket[2]}`, scheme, host: socket[2] ?? "", port: 0 };
  }
  const network = NETWORK_URL.exec(text);
  if (network === null) {
    if (/^https?:/i.test(text)) throw new ValueError(`URL address does not have the form "host:port": ${text}`);
    // The usual slip is a missing scheme, for which Go has a text of its own.
    if (/^[^a-zA-Z][^/]*:/.test(text))
      throw new ValueError(`parse ${JSON.stringify(text)}: first path segment in URL cannot contain colon`);
    throw new ValueError(`URL scheme must be http, https, unix, or unixs: ${text}`);
  }
  const [, givenScheme = "", authority = "", rest = ""] = network;
  const scheme = givenScheme.toLowerCase() as UrlScheme;
  const split = splitHostPort(authority);
  if (split !== undefined && !/^\d*$/.test(split.port)) {
    throw new ValueError(`parse ${JSON.stringify(text)}: invalid port ":${split.port}" after host`);
  }
  if (split === undefined || authority.includes("@")) throw new ValueError(`URL address does not have the form "host:port": ${text}`);
  if (rest !== "") throw new ValueError(`URL must not contain a path: ${text}`);
  return { text: `${scheme}://${authority}`, scheme, host: split.host, port: split.port === "" ? 0 : Number(split.port) };
}

/** Parsed, each once, in the order of their texts. Throws {@link ValueError}. */
export function parseUrls(texts: readonly string[]): ParsedUrl[] {
  const unique = new Map<string, ParsedUrl>();
  for (const text of texts) {
    const url = parseUrl(text);
    unique.set(url.text, url);
  }
  return [...unique.values()].sort(byText);
}

export function isSocketFile(url: ParsedUrl): boolean {
  return url.scheme === "unix" || url.scheme === "unixs";
}

export function isSecure(url: ParsedUrl): boolean {
  return url.scheme === "https" || url.scheme === "unixs";
}

/** Only addresses and `localhost` can be bound; a name could resolve to something else tomorrow. */
export function isBindable(url: ParsedUrl): boolean {
  return isSocketFile(url) || url.host === "localhost" || (isIP(url.host) !== 0 && !url.host.includes("%"));
}

/** The URL with another host or port. */
export function withAddress(
  url: ParsedUrl,
  address: { readonly host?: string | undefined; readonly port?: number | undefined },
): ParsedUrl {
  const host = address.host ?? url.host;
  const port = address.port ?? url.port;
  return { ...url, host, port, text: `${url.scheme}://${host.includes(":") ? `[${host}]` : host}:${port}` };
}

function byText(a: ParsedUrl, b: ParsedUrl): number {
  return a.text < b.text ? -1 : a.text > b.text ? 1 : 0;
}

function splitHostPort(authority: string): { host: string; port: string } | undefined {
  const bracketed = /^\[([^\]]*)\]:([^:]*)$/.exec(authority);
  const plain = bracketed ?? /^([^:[\]]*):([^:]*)$/.exec(authority);
  return plain === null ? undefined : { host: plain[1] ?? "", port: plain[2] ?? "" };
}
