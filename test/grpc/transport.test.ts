import { createHttp2Transport } from "../../src/server/grpc/http2/http2-transport.ts";
import { createNodeHttp2Transport } from "../support/node-http2-transport.ts";
import { transportContract } from "./transport.contract.ts";

transportContract("our own HTTP/2", createHttp2Transport);
// The witness: what it cannot do would be no fair demand.
transportContract("node:http2", createNodeHttp2Transport);
