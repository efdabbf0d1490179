/** `holdfast/testing`: servers and clusters for the tests of programs that use them. */
export type { Hooks } from "./fixture.ts";
export { startTestCluster, TestCluster, type TestClusterOptions, useTestCluster } from "./test-cluster.ts";
export { startTestEtcd, TestEtcd, type TestEtcdOptions, useTestEtcd } from "./test-etcd.ts";
export { VirtualClock } from "./virtual-clock.ts";
