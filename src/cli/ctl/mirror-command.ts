/** make-mirror: copies keys to another cluster, then follows their changes. */
import * as api from "../../api/index.ts";
import { type Command, ExitError } from "../cobra/command.ts";
import type { ToolFace } from "../cobra/face.ts";
import type { Client } from "./client.ts";
import { badArguments, type Call, type Ctl, Status, userCredentials, withCtl } from "./context.ts";
import { EVERYTHING, type KeyRange, keyOf, prefixRange } from "./key-ranges.ts";
import { counter } from "./kv-requests.ts";
import { WatchStream } from "./watcher.ts";

const PAGE_KEYS = 1000;
const REPORT_MS = 30_000;

export const makeMirror: Command<ToolFace> = {
  use: "make-mirror [options] <destination>",
  short: "Makes a mirror at the destination etcd cluster",
  flags: [
    { name: "prefix", kind: "string", help: "Key-value prefix to mirror" },
    { name: "rev", kind: "int", help: "Specify the kv revision to start to mirror" },
    { name: "max-txn-ops", kind: "uint", default: 128, help: "Changes that are made together at the destination, at most" },
    { name: "dest-prefix", kind: "string", help: "Prefix of the keys at the destination, in place of the one mirrored" },
    { name: "no-dest-prefix", kind: "bool", help: "Leave the prefix away at the destination" },
    { name: "dest-cert", kind: "string", help: "The client's TLS certificate for the destination (file)" },
    { name: "dest-key", kind: "string", help: "The client's TLS key for the destination (file)" },
    { name: "dest-cacert", kind: "string", help: "Certificates of authorities to verify the destination with (file)" },
    {
      name: "dest-insecure-transport",
      kind: "bool",
      default: true,
      help: "Do without TLS to the destination where it does not ask for it",
    },
    { name: "dest-user", kind: "string", help: "username[:password] for the destination (asks for a password that is missing)" },
    { name: "dest-password", kind: "string", help: "The password for the destination, when --dest-user does not have it" },
  ],
  run: async (call) => {
    const [destination] = call.args;
    const { flags } = call;
    if (destination === undefined || call.args.length > 1) throw badArguments("make-mirror takes one destination argument");
    if (flags.bool("no-dest-prefix") && flags.string("dest-prefix") !== "") {
      throw badArguments("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one");
    }
    await withCtl(call, async (ctl) => {
      const user = flags.string("dest-user");
      const target = await ctl.connect([destination], {
        tls: {
          cert: flags.string("dest-cert"),
          key: flags.string("dest-key"),
          ca: flags.string("dest-cacert"),
          insecure: flags.bool("dest-insecure-transport"),
        },
        // The source's user is not the destination's.
        credentials: user === "" ? { token: "" } : await userCredentials(call.context, user, flags.string("dest-password")),
      });
      await mirror(await ctl.connect(), target, ctl, call);
    });
  },
};

async function mirror(source: Client, target: Client, ctl: Ctl, call: Call): Promise<void> {
  const { flags } = call;
  const prefix = keyOf(flags.string("prefix"));
  const startRevision = counter(flags.integer("rev"));
  const range = prefixRange(prefix);
  const writer = new MirrorWriter(
    target,
    destinationKeys(flags.string("prefix"), flags, startRevision),
    Number(flags.integer("max-txn-ops")),
    ctl,
  );
  const report = setInterval(() => call.context.stdout(`${writer.total}\n`), REPORT_MS);
  try {
    let next = startRevision;
    if (next === 0) next = (await copyAll(source, range, writer)) + 1;
    const abort = new AbortController();
    const stream = new WatchStream(source, abort.signal);
    stream.add(api.WatchCreateRequest.create({ ...range, startRevision: next }), async (response) => {
      if (response.canceled) {
        throw new ExitError(Status.error, response.compactRevision > 0 ? api.RPC_ERRORS.compacted[1] : response.cancelReason);
      }
      await writer.apply(response.events);
    });
    await stream.run();
  } finally {
    clearInterval(report);
  }
}

/** What becomes of a key. Without other wishes it stays as it is; with a start revision, as etcd's tool does it, the prefix goes. */
function destinationKeys(prefix: string, flags: Call["flags"], startRevision: number): (key: Uint8Array) => Uint8Array {
  const own = keyOf(prefix);
  const given = flags.string("dest-prefix");
  const other = keyOf(given === "" && !flags.bool("no-dest-prefix") && startRevision === 0 ? prefix : given);
  return (key) => Buffer.concat([other, key.subarray(own.length)]);
}

/** Copies everything as of one revision, which it returns. */
async function copyAll(source: Client, range: KeyRange, writer: MirrorWriter): Promise<number> {
  let revision = 0;
  let key = range.key;
  for (;;) {
    const request = api.RangeRequest.create({ key, rangeEnd: range.rangeEnd, limit: PAGE_KEYS, revision });
    const { header, kvs, more } = await source.call(api.KvService.range, request);
    if (revision === 0) revision = header?.revision ?? 0;
    for (const kv of kvs) await writer.put(kv);
    const last = kvs.at(-1);
    if (!more || last === undefined) return revision;
    key = Buffer.concat([last.key, EVERYTHING]);
  }
}

/** Changes at the destination: one by one for the copy, later as many together as were made together, within the limit. */
class MirrorWriter {
  total = 0;
  readonly #client: Client;
  readonly #keyOf: (key: Uint8Array) => Uint8Array;
  readonly #opsMax: number;
  readonly #ctl: Ctl;

  constructor(client: Client, keyOfDestination: (key: Uint8Array) => Uint8Array, opsMax: number, ctl: Ctl) {
    this.#client = client;
    this.#keyOf = keyOfDestination;
    this.#opsMax = Math.max(1, opsMax);
    this.#ctl = ctl;
  }

  async put(kv: api.KeyValue): Promise<void> {
    // A destination that is away is waited for.
    await this.#client.call(api.KvService.put, api.PutRequest.create({ key: this.#keyOf(kv.key), value: kv.value }));
    this.total += 1;
  }

  async apply(events: readonly api.Event[]): Promise<void> {
    let operations: api.RequestOp[] = [];
    let revision = 0;
    let keys = new Set<string>();
    const flush = async (): Promise<void> => {
      if (operations.length === 0) return;
      await this.#client.call(api.KvService.txn, api.TxnRequest.create({ success: operations }));
      operations = [];
      keys = new Set();
    };
    for (const { type, kv } of events) {
      if (kv === undefined) continue;
      const key = this.#keyOf(kv.key);
      const name = Buffer.from(key).toString("latin1");
      // One revision is one transaction where it fits; a key may be changed once in each.
      if (operations.length >= this.#opsMax || (kv.modRevision !== revision && operations.length > 0) || keys.has(name)) await flush();
      revision = kv.modRevision;
      keys.add(name);
      operations.push(
        type === api.EventType.DELETE
          ? api.RequestOp.create({ requestDeleteRange: api.DeleteRangeRequest.create({ key }) })
          : api.RequestOp.create({ requestPut: api.PutRequest.create({ key, value: kv.value }) }),
      );
      this.total += 1;
    }
    await flush();
    if (this.#ctl.flags.bool("debug")) this.#ctl.face.stderr(`mirrored ${this.total} changes\n`);
  }
}
