/** Answers with many or large pairs: printed in slices, so that heartbeats and other clients need not wait for them. */
import type { ServerResponse } from "node:http";
import { DeleteRangeResponse, KeyValue, printJson, RangeResponse } from "../../api/index.ts";
import { EtcdError, GrpcCode } from "../../base/errors.ts";

/** Keys and values of more bytes than this are printed in slices. */
const LARGE_BYTES = 256 * 1024;
/** Bytes of keys and values that are printed without a pause: about a millisecond. */
const SLICE_BYTES = 256 * 1024;
/** The pairs of an answer count at least this much each. */
const PAIR_BYTES = 100;
/** What a gRPC message may have; no answer is longer in JSON. */
const ANSWER_BYTES_MAX = 2 ** 31 - 1;

/** The messages that carry pairs. */
export type LargeRange = RangeResponse | DeleteRangeResponse;

interface Shape {
  readonly pairs: readonly KeyValue[];
  /** JSON of what stands before the pairs and after them, each an object without pairs. */
  readonly before: string;
  readonly name: string;
  readonly after: string;
}

function pairsOf(response: object): readonly KeyValue[] | undefined {
  if ("kvs" in response && Array.isArray(response.kvs)) return response.kvs;
  if ("prevKvs" in response && Array.isArray(response.prevKvs)) return response.prevKvs;
  return undefined;
}

function weight({ key, value }: KeyValue): number {
  return PAIR_BYTES + key.byteLength + value.byteLength;
}

/** Whether this is an answer to print with {@link printLargeRange}. Cheap for small ones. */
export function isLargeRange(response: object): response is LargeRange {
  const pairs = pairsOf(response);
  if (pairs === undefined) return false;
  let bytes = 0;
  for (const pair of pairs) {
    bytes += weight(pair);
    if (bytes > LARGE_BYTES) return true;
  }
  return false;
}

function shapeOf(response: LargeRange): Shape {
  if ("kvs" in response) {
    const { header, kvs, more, count } = response;
    return {
      pairs: kvs,
      before: printJson(RangeResponse, RangeResponse.create({ header })),
      name: "kvs",
      after: printJson(RangeResponse, RangeResponse.create({ more, count })),
    };
  }
  const { header, deleted, prevKvs } = response;
  return {
    pairs: prevKvs,
    before: printJson(DeleteRangeResponse, DeleteRangeResponse.create({ header, deleted })),
    name: "prev_kvs",
    after: "{}",
  };
}

/**
 * The same text as `printJson` gives, in pieces. `stop` is asked between slices; undefined if it said yes.
 * @throws EtcdError (ResourceExhausted) if the text is longer than 2 GiB.
 */
export async function printLargeRange(
  response: LargeRange,
  stop: () => boolean,
): Promise<{ pieces: readonly string[]; bytes: number } | undefined> {
  const { pairs, before, name, after } = shapeOf(response);
  const pieces = [`${before.slice(0, -1)}${before === "{}" ? "" : ","}"${name}":[`];
  let bytes = pieces[0]?.length ?? 0;
  let at = 0;
  while (at < pairs.length) {
    let slice = "";
    for (let weighed = 0; at < pairs.length && weighed < SLICE_BYTES; at++) {
      const pair = pairs[at] as KeyValue;
      slice += at === 0 ? printJson(KeyValue, pair) : `,${printJson(KeyValue, pair)}`;
      weighed += weight(pair);
    }
    // Everything here is ASCII: numbers, names and base64.
    bytes += slice.length;
    if (bytes > ANSWER_BYTES_MAX) {
      throw new EtcdError(
        "message-too-large",
        GrpcCode.ResourceExhausted,
        `grpc: trying to send message larger than max (${bytes} vs. ${ANSWER_BYTES_MAX})`,
      );
    }
    pieces.push(slice);
    await new Promise((resolve) => setImmediate(resolve));
    if (stop()) return undefined;
  }
  pieces.push(`]${after === "{}" ? "" : ","}${after.slice(1)}`);
  return { pieces, bytes: bytes + (pieces.at(-1)?.length ?? 0) };
}

/** Writes the pieces of a body and ends the answer; waits where the client is slow. `waiting` is called whenever something was handed to the socket. */
export async function writePieces(res: ServerResponse, pieces: readonly string[], waiting: () => void): Promise<void> {
  for (const piece of pieces) {
    if (res.destroyed) return;
    if (!res.write(piece, "latin1")) {
      waiting();
      await drained(res);
    }
  }
  if (!res.destroyed) res.end();
}

function drained(res: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      res.off("drain", done);
      res.off("close", done);
      resolve();
    };
    res.on("drain", done);
    res.on("close", done);
  });
}
