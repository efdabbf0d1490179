/** What the README prints is what happens. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type EtcdServer, startEtcd } from "../src/index.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");

interface Curl {
  readonly path: string;
  readonly body: string | undefined;
  readonly stream: boolean;
}

/** The tour's commands, in their order. */
const tour: Curl[] = [...readme.matchAll(/^curl -s(N?) http:\/\/127\.0\.0\.1:2379(\S+)(?: -d '([^']*)')?$/gm)].map(
  ([, stream, path = "", body]) => ({
    path,
    body,
    stream: stream === "N",
  }),
);

let server: EtcdServer;

beforeAll(async () => {
  server = await startEtcd({ inMemory: true, listenClientUrls: ["http://127.0.0.1:0"], listenPeerUrls: [] });
  await server.ready;
});

afterAll(async () => {
  await server.close();
});

/** As curl sends it. */
function request({ path, body }: Curl, signal: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  return fetch(`${server.clientUrls[0]}${path}`, body === undefined ? { signal } : { method: "POST", body, headers, signal });
}

describe("the README's tour", () => {
  it("works as printed", async () => {
    expect(tour).toHaveLength(17);
    const answers = new Map<Curl, string>();
    for (const curl of tour) {
      const abort = new AbortController();
      const response = await request(curl, abort.signal);
      expect([curl.path, response.status]).toEqual([curl.path, 200]);
      if (!curl.stream) {
        answers.set(curl, await response.text());
        continue;
      }
      let text = "";
      for await (const chunk of response.body ?? []) {
        text += Buffer.from(chunk).toString("utf8");
        if (text.includes('"events"')) break;
      }
      abort.abort();
      answers.set(curl, text);
    }
    const texts = [...answers.values()];
    const printed = JSON.parse(/```json\n([\s\S]*?)```/.exec(readme)?.[1] ?? "") as Record<string, unknown>;
    expect(JSON.parse(texts[1] ?? "")).toMatchObject({ ...printed, header: { revision: "2" } });
    expect(JSON.parse(texts[2] ?? "")).toMatchObject({ count: "1" });
    expect(JSON.parse(texts[3] ?? "")).toMatchObject({ succeeded: true });
    const find = (path: string): unknown[] => [...answers].filter(([curl]) => curl.path === path).map(([, text]) => JSON.parse(text));
    expect(find("/v3/kv/range")[2]).toMatchObject({ kvs: [{ value: "d29ybGQ=", mod_revision: "2" }] });
    expect(find("/v3/lease/timetolive")).toMatchObject([{ ID: "123", grantedTTL: "60", keys: ["bG9jaw=="] }]);
    expect([...answers].find(([{ stream }]) => stream)?.[1]).toContain('"value":"d29ybGQ="');
    // What is unlocked is the lock that was got.
    const [{ key }] = find("/v3/lock/lock") as [{ key: string }];
    expect(tour.find(({ path }) => path === "/v3/lock/unlock")?.body).toContain(key);
    expect(find("/v3/election/campaign")).toMatchObject([{ leader: { name: "Ym9zcw==", lease: "123" } }]);
    expect(find("/v3/election/leader")).toMatchObject([{ kv: { value: "bWU=", lease: "123" } }]);
    expect(find("/health")).toEqual([{ health: "true", reason: "" }]);
    expect(texts.at(-1)).toContain("etcd_server_has_leader");
  });

  it("embeds as printed, from the package as users import it", () => {
    const program = /```js\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], { cwd: ROOT, encoding: "utf8" });
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/value: 'green'[\s\S]*\nput config\/color\nput config\/size\n$/);
  });
});

describe("the package", () => {
  it("can be required, too, and shows the same names", () => {
    const program = "console.log(JSON.stringify(Object.keys(require('holdfast')).sort()))";
    const { status, stdout } = spawnSync(process.execPath, ["--no-warnings", "--input-type=commonjs", "-e", program], {
      cwd: ROOT,
      encoding: "utf8",
    });
    // The errors, the one function, and what `server.client` needs at hand for transactions and for telling what became of a write.
    const names = ["ConfigError", "EtcdError", "GrpcCode", "compare", "mayHaveHappened", "op", "startEtcd"];
    expect([status, JSON.parse(stdout || "null")]).toEqual([0, names]);
  });
});
