/** Users and passwords, over every way: who may do what, and tokens that end. */
import { describe, expect, it } from "vitest";
import { grpc } from "../../src/client/grpc/index.ts";
import { type ConnectOptions, createClient, type EtcdClient, localClient } from "../../src/client/index.ts";
import { startTestEtcd, type TestEtcd } from "../../src/testing/index.ts";
import { failureOf } from "./support.ts";
import { TcpProxy } from "./tcp-proxy.ts";

type Options = Pick<ConnectOptions, "credentials">;

const WAYS: readonly { readonly name: string; connect(etcd: TestEtcd, url: string, options: Options): EtcdClient }[] = [
  {
    name: "in process",
    connect: (etcd, _, options) => localClient({ members: [{ name: "test", services: () => etcd.server.services }], ...options }),
  },
  { name: "gRPC", connect: (_, url, options) => createClient({ endpoints: [url], transport: grpc(), ...options }) },
  { name: "HTTP/JSON", connect: (_, url, options) => createClient({ endpoints: [url], ...options }) },
];

const root = { username: "root", password: "root's" };
const jane = { username: "jane", password: "jane's" };

describe.each(WAYS)("users, $name", ({ connect }) => {
  it("see and change what they may, and outlive their tokens", async () => {
    await using etcd = await startTestEtcd({ listen: true, onDisk: true, config: { bcryptCost: 4 } });
    const proxy = await TcpProxy.to(() => etcd.endpoints[0]);
    // Configured before authentication is turned on.
    const owner = connect(etcd, proxy.url, { credentials: root });
    await owner.put("theirs/a", "1");
    await owner.auth.addUser("root", root.password);
    await owner.auth.grantRole("root", "root");
    await owner.auth.addUser("jane", jane.password);
    await owner.auth.addRole("janes");
    await owner.auth.grantPermission("janes", { type: "READWRITE", key: "jane/", prefix: true });
    await owner.auth.grantRole("jane", "janes");
    await owner.auth.enable();
    expect((await owner.auth.status()).enabled).toBe(true);
    await owner.put("theirs/a", "2");

    const user = connect(etcd, proxy.url, { credentials: jane });
    await user.put("jane/a", "1");
    expect((await user.get("jane/a"))?.value).toBe("1");
    expect((await failureOf(user.put("theirs/a", "3"))).reason).toBe("permission-denied");
    expect((await failureOf(user.get("theirs/a"))).reason).toBe("permission-denied");
    expect((await failureOf(user.watch("theirs/", { prefix: true }).next())).reason).toBe("permission-denied");
    await using watch = user.watch("jane/", { prefix: true });
    await using view = user.namespace("jane/").view("");
    await Promise.all([watch.ready, view.ready]);
    await user.put("jane/b", "1");
    expect((await watch.next()).value?.events[0]?.key).toBe("jane/b");
    const lease = await user.lease({ ttlSeconds: 60 });
    await lease.renew();

    const wrong = connect(etcd, proxy.url, { credentials: { ...jane, password: "guessed" } });
    expect((await failureOf(wrong.get("jane/a"))).reason).toBe("auth-failed");
    wrong.close();
    const nobody = connect(etcd, proxy.url, {});
    expect((await failureOf(nobody.get("jane/a"))).reason).toBe("user-empty");
    nobody.close();

    // The member forgets its tokens when it is started anew: the client gets another, watches go on.
    await etcd.restart();
    const { revision } = await user.put("jane/c", "1", { retry: "always" });
    expect((await watch.next()).value?.events[0]?.key).toBe("jane/c");
    await view.atLeast(revision);
    expect(view.list().map(({ key }) => key)).toEqual(["a", "b", "c"]);
    await lease.renew();
    await lease.close();
    await owner.auth.disable({ retry: "always" });
    expect((await user.get("theirs/a"))?.value).toBe("2");
    user.close();
    owner.close();
    await proxy.close();
  });
});
