import { rpcError } from "../api/rpc-errors.ts";

const SCHEMES = new Set(["http:", "https:", "unix:", "unixs:"]);

/**
 * Peer URLs as MemberAdd takes them (api-semantics.md section 14): at least one; scheme http, https, unix or unixs; host:port; no path. Returns them sorted.
 * @throws bad-member-urls
 */
export function checkMemberUrls(urls: readonly string[]): string[] {
  if (urls.length === 0) throw rpcError("bad-member-urls");
  const checked = urls.map((url) => url.trim());
  for (const url of checked) {
    const match = /^([a-z]+:)\/\/([^/?#]+)\/?$/.exec(url);
    if (match === null || !SCHEMES.has(match[1] as string)) throw rpcError("bad-member-urls");
    if (match[1] === "http:" || match[1] === "https:") {
      if (!/^(?:\[[0-9a-fA-F:.%]+\]|[^:[\]]*):\d{1,5}$/.test(match[2] as string)) throw rpcError("bad-member-urls");
    }
  }
  return checked.sort();
}
