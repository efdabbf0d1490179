/** Watches over streams that break: nothing is lost and nothing comes twice. */
import { describe, expect, it } from "vitest";
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import type { Client } from "./client.ts";
import type { DuplexCall } from "./grpc-client.ts";
import { GrpcError } from "./grpc-error.ts";
import { isProgressNotify, WatchStream } from "./watcher.ts";

type Response = api.WatchResponse;

const headerAt = (revision: number): api.ResponseHeader => api.ResponseHeader.create({ revision });
const created = (watchId: bigint, revision: number): Response =>
  api.WatchResponse.create({ watchId, created: true, header: headerAt(revision) });

function changed(watchId: bigint, at: readonly number[], revision: number): Response {
  const events = at.map((modRevision) => api.Event.create({ kv: api.KeyValue.create({ modRevision }) }));
  return api.WatchResponse.create({ watchId, header: headerAt(revision), events });
}

/** Streams that say what is given and then break; the last one ends the test's signal. What was asked on each is kept. */
function scripted(
  streams: readonly (readonly Response[])[],
  end: () => void,
): { client: Pick<Client, "duplex">; asked: api.WatchRequest[][] } {
  const asked: api.WatchRequest[][] = [];
  const duplex = async (): Promise<DuplexCall<api.WatchRequest, Response>> => {
    const requests: api.WatchRequest[] = [];
    const responses = streams[asked.length] ?? [];
    asked.push(requests);
    return {
      send: (request) => void requests.push(request),
      end: () => undefined,
      cancel: () => undefined,
      async *[Symbol.asyncIterator]() {
        yield* responses;
        if (asked.length === streams.length) end();
        throw new GrpcError(GrpcCode.Unavailable, "the server went away");
      },
    };
  };
  return { client: { duplex: duplex as unknown as Client["duplex"] }, asked };
}

async function run(
  streams: readonly (readonly Response[])[],
  startRevisions: readonly number[],
): Promise<{ starts: [bigint, number][][]; seen: string[] }> {
  const abort = new AbortController();
  const { client, asked } = scripted(streams, () => abort.abort());
  const stream = new WatchStream(client, abort.signal);
  const seen: string[] = [];
  for (const [at, startRevision] of startRevisions.entries()) {
    stream.add(api.WatchCreateRequest.create({ startRevision }), async (response) => {
      const what = isProgressNotify(response) ? `progress ${response.header?.revision}` : response.events.map(({ kv }) => kv?.modRevision);
      seen.push(`${at}: ${response.canceled ? "canceled" : what}`);
    });
  }
  await stream.run();
  const starts = asked.map((requests) =>
    requests.flatMap(({ createRequest }): [bigint, number][] =>
      createRequest === undefined ? [] : [[createRequest.watchId, createRequest.startRevision]],
    ),
  );
  return { starts, seen };
}

describe("a watch over streams that break", () => {
  it("goes on behind the last event, although the server is further", async () => {
    const { starts, seen } = await run(
      [
        [created(1n, 100), changed(1n, [4, 5], 100)],
        [created(1n, 100), changed(1n, [6], 100)],
      ],
      [4],
    );
    expect(starts).toEqual([[[1n, 4]], [[1n, 6]]]);
    expect(seen).toEqual(["0: 4,5", "0: 6"]);
  });

  it("from now on begins at what the server had when it was created", async () => {
    const { starts } = await run([[created(1n, 7)], []], [0]);
    expect(starts).toEqual([[[1n, 0]], [[1n, 8]]]);
  });

  it("takes a sign of progress for all watches, and forgets one that was canceled", async () => {
    const canceled = api.WatchResponse.create({ watchId: 2n, canceled: true, compactRevision: 3, header: headerAt(20) });
    const progress = api.WatchResponse.create({ watchId: -1n, header: headerAt(20) });
    const { starts, seen } = await run([[created(1n, 9), created(2n, 9), canceled, progress], []], [5, 1]);
    expect(seen).toEqual(["1: canceled", "0: progress 20"]);
    expect(starts[1]).toEqual([[1n, 21]]);
  });
});
