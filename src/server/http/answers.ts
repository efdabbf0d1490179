/** Small whole answers, written straight to Node's response: header names keep the case in which they stand here. */
import type { IncomingMessage, ServerResponse } from "node:http";

/** Names and values in turn. */
export type FlatHeaders = readonly string[];

const NONE: FlatHeaders = [];
const PLAIN: FlatHeaders = ["Content-Type", "text/plain; charset=utf-8"];
const PLAIN_ERROR: FlatHeaders = [...PLAIN, "X-Content-Type-Options", "nosniff"];

/** Headers that an earlier stage decided on, for whoever answers. */
const DECIDED = Symbol("decided headers");

interface DecidedResponse extends ServerResponse {
  [DECIDED]?: FlatHeaders;
}

/** Headers which every answer to this request carries. Set before the request is handed on. */
export function decideHeaders(res: ServerResponse, headers: FlatHeaders): void {
  (res as DecidedResponse)[DECIDED] = headers;
}

export function decidedHeaders(res: ServerResponse): FlatHeaders {
  return (res as DecidedResponse)[DECIDED] ?? NONE;
}

/**
 * Node adds `Connection: keep-alive` and `Keep-Alive` to what is kept open anyway in HTTP/1.1; Go does not. Call it before the headers are written.
 */
export function quietKeepAlive(req: IncomingMessage, res: ServerResponse): void {
  if (res.shouldKeepAlive && req.httpVersionMinor === 1 && req.httpVersionMajor === 1) res.removeHeader("connection");
}

/** One whole answer. `body` is not written for HEAD, its length is. */
export function answer(req: IncomingMessage, res: ServerResponse, status: number, headers: FlatHeaders, body: string | Uint8Array): void {
  quietKeepAlive(req, res);
  const length = typeof body === "string" ? Buffer.byteLength(body) : body.byteLength;
  res.writeHead(status, [...decidedHeaders(res), ...headers, "Content-Length", String(length)]);
  res.end(body);
}

/** As Go's `http.Error`: plain text with a line end, not to be guessed at by browsers. */
export function answerError(req: IncomingMessage, res: ServerResponse, status: number, text: string, headers: FlatHeaders = NONE): void {
  answer(req, res, status, [...headers, ...PLAIN_ERROR], `${text}\n`);
}

export function answerNotFound(req: IncomingMessage, res: ServerResponse): void {
  answerError(req, res, 404, "404 page not found");
}

const ALLOW_GET: FlatHeaders = ["Allow", "GET"];

/** True if the request may go on; otherwise it has been answered with 405. */
export function onlyGet(req: IncomingMessage, res: ServerResponse): boolean {
  if (req.method === "GET") return true;
  answerError(req, res, 405, "Method Not Allowed", ALLOW_GET);
  return false;
}

/** 307, as Go's router sends it: with a little page for those who look at it. */
export function answerRedirect(req: IncomingMessage, res: ServerResponse, location: string): void {
  if (req.method !== "GET" && req.method !== "HEAD") {
    answer(req, res, 307, ["Location", location], "");
    return;
  }
  const page = `<a href="${location.replaceAll("&", "&amp;").replaceAll('"', "&#34;")}">Temporary Redirect</a>.\n\n`;
  answer(req, res, 307, ["Content-Type", "text/html; charset=utf-8", "Location", location], page);
}

/** For requests that cannot be understood: the connection ends. */
export function answerBadRequest(req: IncomingMessage, res: ServerResponse, why?: string): void {
  res.shouldKeepAlive = false;
  answer(req, res, 400, PLAIN, why === undefined ? "400 Bad Request" : `400 Bad Request: ${why}`);
}
