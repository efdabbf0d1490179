/**
 * Request targets by the rules of Go's net/http, whose request router clients of etcd see: escapes are decoded before the lookup, untidy paths are
 * redirected, broken escapes are refused.
 */

export interface Target {
  /** Decoded; one char per byte. */
  readonly path: string;
  /** As sent. */
  readonly escapedPath: string;
  /** What follows the question mark; undefined without one. */
  readonly query: string | undefined;
  /** Of a target in absolute form (`http://host/path`), which then counts instead of the Host header. */
  readonly host: string | undefined;
}

/** Undefined if the target is malformed. */
export function parseTarget(url: string): Target | undefined {
  let rest = url;
  let host: string | undefined;
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/([^/?]*)/i.exec(url);
  if (absolute !== null) {
    host = absolute[1] ?? "";
    rest = url.slice(absolute[0].length);
    if (!rest.startsWith("/")) rest = `/${rest}`;
  }
  if (!rest.startsWith("/")) return undefined;
  const mark = rest.indexOf("?");
  const escapedPath = mark < 0 ? rest : rest.slice(0, mark);
  const path = decodePath(escapedPath);
  if (path === undefined) return undefined;
  return { path, escapedPath, query: mark < 0 ? undefined : rest.slice(mark + 1), host };
}

function decodePath(escaped: string): string | undefined {
  if (!escaped.includes("%")) return escaped;
  if (/%(?![0-9a-fA-F]{2})/.test(escaped)) return undefined;
  return escaped.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** The tidy form: one leading slash, no empty, `.` or `..` parts; a slash at the end stays. */
export function cleanPath(path: string): string {
  // Nearly all paths are tidy already.
  if (path.startsWith("/") && !path.includes("//") && !path.includes("/.")) return path;
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  const clean = `/${parts.join("/")}`;
  return path.endsWith("/") && clean !== "/" ? `${clean}/` : clean;
}

/** A path (one char per byte) as it stands in a Location header. */
export function encodePath(path: string): string {
  return path.replace(/[^A-Za-z0-9\-_.~$&+,/:;=@]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}
