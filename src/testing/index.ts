/** `holdfast/testing`: servers and clusters for the tests of programs that use them. */
export { type FaultRun, FaultRunError, type FaultRunOptions, type FaultRunResult, faultRun } from "./fault-run.ts";
export type { Hooks } from "./fixture.ts";
export type { FaultKind } from "./simulation/fault-plan.ts";
export type { FaultEvent } from "./simulation/world.ts";
export { startTestCluster, TestCluster, type TestClusterOptions, useTestCluster } from "./test-cluster.ts";
export { startTestEtcd, TestEtcd, type TestEtcdOptions, useTestEtcd } from "./test-etcd.ts";
export { VirtualClock } from "./virtual-clock.ts";
