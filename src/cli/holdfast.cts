#!/usr/bin/env node
// The disk's calls (log, store) share libuv's pool of threads, whose size is read when it is first used. Loading an ES module uses it already, so this has to
// be a CommonJS file; measured on Node 20: set here it counts, set in an ES module it comes too late.
process.env.UV_THREADPOOL_SIZE ??= "16";
void import("./etcd.ts");
